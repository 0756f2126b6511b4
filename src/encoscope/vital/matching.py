"""Bring the distribution of each channel's values to the references' (paper, section 3.2.1, equation 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer
from torch import Tensor

from encoscope.encoder import Activation

_BLOCK = 1 << 16  # values sorted at once: their keys fit a core's own cache
_WORTH = 1 << 16  # values that are worth a thread

Rows = Float32[np.ndarray, "rows positions"]
Visit = Callable[[slice, Rows, Int64[np.ndarray, "rows positions"]], None]
"""Takes some rows: which these are, their values in ascending order (its own, to be changed at will), and from where
each came, counted through the rows of the block."""


def sort_blocks(rows: Rows, visit: Visit) -> None:
    """Sort each row by itself and show block after block, on as many threads as torch has.

    Ties are ranked by position (-0 lies below 0), and rows do not touch, so what is shown does not depend on blocks or
    threads. It is shown in memory that the next block of the same thread is written to.
    """
    height = max(1, _BLOCK // max(1, rows.shape[1]))
    blocks = [slice(start, min(start + height, len(rows))) for start in range(0, len(rows), height)]

    def some(part: Sequence[slice]) -> None:
        sorter = _Sorter(min(height, len(rows)), rows.shape[1])
        for block in part:
            visit(block, *sorter(rows[block]))

    threads = min(torch.get_num_threads(), rows.size // _WORTH + 1, len(blocks))
    if threads <= 1:
        some(blocks)
    else:
        with ThreadPoolExecutor(threads) as pool:  # NumPy holds no lock while it sorts
            list(pool.map(some, [blocks[first::threads] for first in range(threads)]))


class _Sorter:
    """NumPy's vectorised sort of 64-bit keys: the float's bits, made to order as integers do, above the place.

    Two to seven times as fast as a sort with indices of floats; exact, since nothing of value or place is lost.
    Its memory is its own, and every block's in turn.
    """

    def __init__(self, height: int, width: int) -> None:
        self._keys = np.empty((height, width), dtype=np.int64)
        self._places = np.arange(height * width).reshape(height, width)
        self._from = np.empty_like(self._keys)
        self._bits = np.empty((height, width), dtype=np.int32)
        self._turned = np.empty_like(self._bits)

    def __call__(self, rows: Rows) -> tuple[Rows, Int64[np.ndarray, "rows positions"]]:
        count = len(rows)
        keys, origin, bits, turned = (buffer[:count] for buffer in (self._keys, self._from, self._bits, self._turned))
        self._turn(rows.view(np.int32), turned, bits)
        np.left_shift(bits, 32, out=keys, dtype=np.int64)
        keys |= self._places[:count]
        keys.sort(axis=-1)
        np.bitwise_and(keys, 0xFFFFFFFF, out=origin)
        keys >>= 32
        np.copyto(bits, keys, casting="same_kind")
        self._turn(bits, turned, bits)
        return bits.view(np.float32), origin

    @staticmethod
    def _turn(bits: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> None:
        """Turn a negative float's bits round, so that integers order as floats do; and back."""
        np.right_shift(bits, 31, out=scratch)
        scratch &= 0x7FFFFFFF
        np.bitwise_xor(bits, scratch, out=out)


Matching: TypeAlias = Literal["sort", "moments"]
Values: TypeAlias = Float[Tensor, "batch channels positions"]


def flatten_values(activation: Activation) -> Values:
    """A layer's values over space; for tokens, over all of them, class token and registers first."""
    maps = activation.maps.flatten(2)
    if activation.prefix is None:
        return maps
    return torch.cat([activation.prefix.transpose(1, 2), maps], 2)


def sort_matching_loss(
    values: Values, prototype: Values, channel_weights: Float[Tensor, "batch channels"] | None = None
) -> Float[Tensor, " batch"]:
    """mean((sort(z) - S) ** 2) over channels and positions, for each image; each channel sorted by itself.

    It equals the mean squared distance of every value to the prototype's value of the same rank, gradients too, with
    one sort. Values that tie are ranked by position. Differentiable in ``values``.

    prototype: sorted (ascending) along the last axis. channel_weights: factor of each channel's mean.
    """
    return _SortMatching.apply(values, prototype, channel_weights)  # pyright: ignore[reportReturnType]


def moment_matching_loss(
    values: Values, prototype: Values, channel_weights: Float[Tensor, "batch channels"] | None = None
) -> Float[Tensor, " batch"]:
    """Mean over channels of squared differences of mean and of standard deviation, for each image.

    What ``sort_matching`` would be if both distributions were Gaussian; the paper's section 5 names it as an exchange.
    """
    mean = (values.mean(2) - prototype.mean(2)).square()
    spread = (_deviation(values) - _deviation(prototype)).square()
    loss = mean + spread
    return (loss if channel_weights is None else loss * channel_weights).mean(1)


def _deviation(values: Values) -> Float[Tensor, "batch channels"]:
    """With a floor far below any activation, whose square root has a gradient."""
    return (values.var(2, correction=0) + 1e-10).sqrt()


def matching_loss(
    kind: Matching,
    values: Values,
    prototype: Values,
    channel_weights: Float[Tensor, "batch channels"] | None = None,
) -> Float[Tensor, " batch"]:
    """One of the two, by name."""
    return (sort_matching_loss if kind == "sort" else moment_matching_loss)(values, prototype, channel_weights)


class _SortMatching(torch.autograd.Function):
    """The gradient is known as soon as the ranks are: it is scattered back through the permutation."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, prototype: Tensor, channel_weights: Tensor | None) -> Tensor:
        factor = values.new_ones(values.shape[:2]) if channel_weights is None else channel_weights
        factor = factor / (values.shape[1] * values.shape[2])
        alike = values.dtype == prototype.dtype == torch.float32
        matched = _on_cpu if alike and values.device.type == "cpu" else _anywhere
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
    ordered, places = sort_values(values)
    difference = ordered - prototype
    gradient = torch.empty_like(difference).scatter_(2, places, difference * factor[:, :, None])
    return gradient, difference.square().sum(2)


def _on_cpu(
    values: Values, prototype: Values, factor: Float[Tensor, "batch channels"]
) -> tuple[Values, Float[Tensor, "batch channels"]]:
    """The same, in one visit of each block of channels."""
    rows, targets, factors = _rows(values), _rows(prototype.expand_as(values)), factor.numpy().reshape(-1, 1)
    gradient, squares = np.empty_like(rows), np.empty_like(rows[:, 0])

    def visit(block: slice, ordered: np.ndarray, places: np.ndarray) -> None:
        ordered -= targets[block]
        squares[block] = np.einsum("rp,rp->r", ordered, ordered)
        ordered *= factors[block]
        gradient[block].reshape(-1)[places] = ordered

    sort_blocks(rows, visit)
    return torch.from_numpy(gradient).view(values.shape), torch.from_numpy(squares).view(factor.shape)


def sort_values(
    values: Float[Tensor, "*rows positions"],
) -> tuple[Float[Tensor, "*rows positions"], Integer[Tensor, "*rows positions"]]:
    """The values in ascending order along the last axis, and the places they came from; ties by place."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        found, places = torch.sort(values.detach(), dim=-1, stable=True)
        return found, places
    rows = _rows(values)
    ordered, origin = np.empty_like(rows), np.empty(rows.shape, dtype=np.int64)

    def visit(block: slice, some: np.ndarray, places: np.ndarray) -> None:
        ordered[block] = some
        np.subtract(places, np.arange(len(some))[:, None] * rows.shape[1], out=origin[block])

    sort_blocks(rows, visit)
    return torch.from_numpy(ordered).view(values.shape), torch.from_numpy(origin).view(values.shape)


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy().reshape(-1, values.shape[-1])
