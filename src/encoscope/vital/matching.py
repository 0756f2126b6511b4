"""Bring the distribution of each channel's values to the references' (VITAL, section 3.2.1, equation 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer
from torch import Tensor

from encoscope.encoder import Activation

_BLOCK = 1 << 16  # values sorted at once: their keys fit the cache of a processor core
_VALUES_PER_THREAD = 1 << 16  # with fewer, starting a thread takes longer than it saves

Rows = Float32[np.ndarray, "rows positions"]
Visit = Callable[[slice, Rows, Int64[np.ndarray, "rows positions"]], None]
"""Takes some rows: which they are, their values in ascending order (it may change them), and the position that each
value came from, counted through the rows of the block."""


def sort_blocks(rows: Rows, visit: Visit) -> None:
    """Sort each row by itself, block after block, on as many threads as torch has.

    Ties are ranked by position (-0 is below 0) and each row is sorted by itself, so the result does not depend on
    blocks or threads.

    Args:
        rows: The rows.
        visit: Called with each block. The next block of the same thread is written to the same memory.
    """
    height = max(1, _BLOCK // max(1, rows.shape[1]))
    blocks = [slice(start, min(start + height, len(rows))) for start in range(0, len(rows), height)]

    def sort_part(part: Sequence[slice]) -> None:
        sorter = _Sorter(min(height, len(rows)), rows.shape[1])
        for block in part:
            visit(block, *sorter(rows[block]))

    threads = min(torch.get_num_threads(), rows.size // _VALUES_PER_THREAD + 1, len(blocks))
    if threads <= 1:
        sort_part(blocks)
    else:
        with ThreadPoolExecutor(threads) as pool:  # NumPy holds no lock while it sorts
            list(pool.map(sort_part, [blocks[first::threads] for first in range(threads)]))


class _Sorter:
    """NumPy's vectorized sort of 64-bit keys: the float's bits, flipped so that they sort as integers, above the index.

    Two to seven times as fast as sorting floats with their indices, and exact, since value and index are kept whole.
    All blocks of a thread use the same memory.
    """

    def __init__(self, height: int, width: int) -> None:
        self._keys = np.empty((height, width), dtype=np.int64)
        self._indices = np.arange(height * width).reshape(height, width)
        self._from = np.empty_like(self._keys)
        self._bits = np.empty((height, width), dtype=np.int32)
        self._flipped = np.empty_like(self._bits)

    def __call__(self, rows: Rows) -> tuple[Rows, Int64[np.ndarray, "rows positions"]]:
        count = len(rows)
        keys, origin, bits, flipped = (buffer[:count] for buffer in (self._keys, self._from, self._bits, self._flipped))
        self._flip(rows.view(np.int32), flipped, bits)
        np.left_shift(bits, 32, out=keys, dtype=np.int64)
        keys |= self._indices[:count]
        keys.sort(axis=-1)
        np.bitwise_and(keys, 0xFFFFFFFF, out=origin)
        keys >>= 32
        np.copyto(bits, keys, casting="same_kind")
        self._flip(bits, flipped, bits)
        return bits.view(np.float32), origin

    @staticmethod
    def _flip(bits: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> None:
        """Flip the bits of negative floats, so that they sort as integers do; or flip them back."""
        np.right_shift(bits, 31, out=scratch)
        scratch &= 0x7FFFFFFF
        np.bitwise_xor(bits, scratch, out=out)


Values: TypeAlias = Float[Tensor, "batch channels positions"]


def flatten_values(activation: Activation) -> Values:
    """Flatten a layer's values over space.

    Args:
        activation: The layer's maps, with class token and registers if it has them.

    Returns:
        For each channel all values; those of class token and registers come first.
    """
    maps = activation.maps.flatten(2)
    if activation.prefix is None:
        return maps
    return torch.cat([activation.prefix.transpose(1, 2), maps], 2)


def compute_sort_matching(
    values: Values, prototype: Values, channel_weights: Float[Tensor, "batch channels"] | None = None
) -> Float[Tensor, " batch"]:
    """Compute mean((sort(z) - S) ** 2) over channels and positions, for each image; each channel sorted by itself.

    It equals the mean squared distance of every value to the prototype's value of the same rank, gradients too, with
    one sort. Ties are ranked by position. Differentiable in ``values``.

    Args:
        values: The values z.
        prototype: S, ascending along the last axis.
        channel_weights: A factor for each channel's mean; None for 1.

    Returns:
        The loss of each image.

    Source: VITAL, section 3.2.1, equation 2.
    """
    return _SortMatching.apply(values, prototype, channel_weights)  # pyright: ignore[reportReturnType]


def compute_moment_matching(
    values: Values, prototype: Values, channel_weights: Float[Tensor, "batch channels"] | None = None
) -> Float[Tensor, " batch"]:
    """Compute the mean over channels of squared differences of mean and of standard deviation, for each image.

    It is what ``compute_sort_matching`` would be if both distributions were Gaussian.

    Args:
        values: The values.
        prototype: The values to match.
        channel_weights: A factor for each channel; None for 1.

    Returns:
        The loss of each image.

    Source: VITAL, section 5, which names it as an alternative.
    """
    mean = (values.mean(2) - prototype.mean(2)).square()
    spread = (_std(values) - _std(prototype)).square()
    loss = mean + spread
    return (loss if channel_weights is None else loss * channel_weights).mean(1)


def _std(values: Values) -> Float[Tensor, "batch channels"]:
    """The standard deviation, with a floor far below any activation so that a constant channel has a gradient."""
    return (values.var(2, correction=0) + 1e-10).sqrt()


def compute_matching(
    kind: str,
    values: Values,
    prototype: Values,
    channel_weights: Float[Tensor, "batch channels"] | None = None,
) -> Float[Tensor, " batch"]:
    """Compute the loss of one of the two matchings, by name.

    Args:
        kind: "sort" or "moments".
        values: The values.
        prototype: The values to match.
        channel_weights: A factor for each channel; None for 1.

    Returns:
        The loss of each image.
    """
    return (compute_sort_matching if kind == "sort" else compute_moment_matching)(values, prototype, channel_weights)


class _SortMatching(torch.autograd.Function):
    """Computes the gradient together with the loss: it follows from the ranks, through the permutation of the sort."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, prototype: Tensor, channel_weights: Tensor | None) -> Tensor:
        factor = values.new_ones(values.shape[:2]) if channel_weights is None else channel_weights
        factor = factor / (values.shape[1] * values.shape[2])
        same_type = values.dtype == prototype.dtype == torch.float32
        matched = _on_cpu if same_type and values.device.type == "cpu" else _anywhere
        gradient, squares = matched(values.detach(), prototype, 2 * factor)
        ctx.save_for_backward(gradient)
        return (squares * factor).sum(1)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None, None], None, None


def _anywhere(
    values: Values, prototype: Values, factor: Float[Tensor, "batch channels"]
) -> tuple[Values, Float[Tensor, "batch channels"]]:
    """Each value's distance to the prototype's of its rank, times the channel's factor; the sum of their squares."""
    ordered, indices = sort_values(values)
    difference = ordered - prototype
    gradient = torch.empty_like(difference).scatter_(2, indices, difference * factor[:, :, None])
    return gradient, difference.square().sum(2)


def _on_cpu(
    values: Values, prototype: Values, factor: Float[Tensor, "batch channels"]
) -> tuple[Values, Float[Tensor, "batch channels"]]:
    """The same, in one visit of each block of channels."""
    rows, targets, factors = _rows(values), _rows(prototype.expand_as(values)), factor.numpy().reshape(-1, 1)
    gradient, squares = np.empty_like(rows), np.empty_like(rows[:, 0])

    def visit(block: slice, ordered: np.ndarray, indices: np.ndarray) -> None:
        ordered -= targets[block]
        squares[block] = np.einsum("rp,rp->r", ordered, ordered)
        ordered *= factors[block]
        gradient[block].reshape(-1)[indices] = ordered

    sort_blocks(rows, visit)
    return torch.from_numpy(gradient).view(values.shape), torch.from_numpy(squares).view(factor.shape)


def sort_values(
    values: Float[Tensor, "*rows positions"],
) -> tuple[Float[Tensor, "*rows positions"], Integer[Tensor, "*rows positions"]]:
    """Sort values along the last axis.

    Args:
        values: The values.

    Returns:
        The values in ascending order, and the index that each came from; ties by index.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        ordered, indices = torch.sort(values.detach(), dim=-1, stable=True)
        return ordered, indices
    rows = _rows(values)
    ordered, origin = np.empty_like(rows), np.empty(rows.shape, dtype=np.int64)

    def visit(block: slice, part: np.ndarray, indices: np.ndarray) -> None:
        ordered[block] = part
        np.subtract(indices, np.arange(len(part))[:, None] * rows.shape[1], out=origin[block])

    sort_blocks(rows, visit)
    return torch.from_numpy(ordered).view(values.shape), torch.from_numpy(origin).view(values.shape)


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy().reshape(-1, values.shape[-1])
