"""Bring the distribution of each channel's values to the references' (paper, section 3.2.1, equation 2)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from encoscope.encoder import Activation
from encoscope.vital.ranks import sort_blocks

Matching: TypeAlias = Literal["sort", "moments"]
Values: TypeAlias = Float[Tensor, "batch channels positions"]


def values_of(activation: Activation) -> Values:
    """A layer's values over space; for tokens, over all of them, class token and registers first."""
    maps = activation.maps.flatten(2)
    if activation.prefix is None:
        return maps
    return torch.cat([activation.prefix.transpose(1, 2), maps], 2)


def sort_matching(
    values: Values, prototype: Values, channel_weights: Float[Tensor, "batch channels"] | None = None
) -> Float[Tensor, " batch"]:
    """mean((sort(z) - S) ** 2) over channels and positions, for each image; each channel sorted by itself.

    It equals the mean squared distance of every value to the prototype's value of the same rank, gradients too, with
    one sort. Values that tie are ranked by position. Differentiable in ``values``.

    prototype: sorted (ascending) along the last axis. channel_weights: factor of each channel's mean.
    """
    return _SortMatching.apply(values, prototype, channel_weights)  # pyright: ignore[reportReturnType]


def moment_matching(
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


def match(
    kind: Matching,
    values: Values,
    prototype: Values,
    channel_weights: Float[Tensor, "batch channels"] | None = None,
) -> Float[Tensor, " batch"]:
    """One of the two, by name."""
    return (sort_matching if kind == "sort" else moment_matching)(values, prototype, channel_weights)


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
    ordered, places = sort(values)
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


def sort(
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
