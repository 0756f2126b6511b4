"""Results on one line."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from encoscope.concise_repr import concise_repr


@concise_repr
@dataclass(frozen=True, eq=False)
class Record:
    image: np.ndarray
    weight: torch.Tensor
    names: tuple[str, ...]
    parts: dict[str, np.ndarray]
    share: float
    note: str
    hidden: int = field(default=3, repr=False)


def test_arrays_by_shape_and_collections_by_number() -> None:
    parts = {"layer1": np.zeros(3)}
    record = Record(np.zeros((4, 5), np.float32), torch.tensor(2.5), tuple("abcdef"), parts, 1 / 3, "n" * 99)
    assert repr(record) == (
        "Record(image=float32[4, 5], weight=2.5, names=[6 str], parts={'layer1': float64[3]}, share=0.3333, "
        f"note='{'n' * 56}...)"
    )
