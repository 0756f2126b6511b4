"""Arrays and tensors alike, as float64 arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from encoscope.errors import UsageError

Features: TypeAlias = Float[np.ndarray, "_images _channels"] | Float[Tensor, "_images _channels"]
Scores: TypeAlias = Float[np.ndarray, " _images"] | Float[Tensor, " _images"]


def as_float64(values: np.ndarray | Tensor, name: str = "the values") -> Float64[np.ndarray, ...]:
    """The values in double precision on the CPU. UsageError when some are NaN or infinite."""
    array = values.detach().to("cpu", torch.float64).numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        raise UsageError(f"{name}: {np.count_nonzero(~np.isfinite(array))} of {array.size} numbers are NaN or infinite")
    return array


def check_same_width(first: np.ndarray, second: np.ndarray) -> None:
    """UsageError unless both have as many channels."""
    if first.shape[1] != second.shape[1]:
        raise UsageError(
            f"features of {first.shape[1]} and of {second.shape[1]} channels cannot be compared: take one extractor"
        )


def check_count(values: np.ndarray, count: int, what: str) -> None:
    """UsageError for fewer rows than that."""
    if len(values) < count:
        raise UsageError(f"{what} needs at least {count} images, not {len(values)}")
