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
    """Convert values to double precision on the CPU.

    Args:
        values: Numbers of any shape and dtype.
        name: What the values are, for the error message.

    Returns:
        A float64 array of the same shape.

    Raises:
        UsageError: A value is NaN or infinite.
    """
    array = values.detach().to("cpu", torch.float64).numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = array.astype(np.float64, copy=False)
    if not np.isfinite(array).all():
        raise UsageError(f"{name}: {np.count_nonzero(~np.isfinite(array))} of {array.size} numbers are NaN or infinite")
    return array


def check_same_width(first: np.ndarray, second: np.ndarray) -> None:
    """Check that two sets of features have the same number of channels.

    Args:
        first: ``[images, channels]``.
        second: ``[images, channels]``.

    Raises:
        UsageError: The numbers of channels differ.
    """
    if first.shape[1] != second.shape[1]:
        raise UsageError(
            f"features of {first.shape[1]} and of {second.shape[1]} channels cannot be compared: take one extractor"
        )


def check_count(values: np.ndarray, count: int, measure: str) -> None:
    """Check that there are enough images.

    Args:
        values: One row for each image.
        count: The least number of rows.
        measure: What the rows are needed for, for the error message.

    Raises:
        UsageError: There are fewer rows than ``count``.
    """
    if len(values) < count:
        raise UsageError(f"{measure} needs at least {count} images, not {len(values)}")
