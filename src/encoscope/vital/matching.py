"""Bring the distribution of each channel's values to the references' (paper, section 3.2.1, equation 2)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from encoscope.encoder import Activation

Matching: TypeAlias = Literal["sort", "moments"]
_WORTH = 1 << 16  # values that are worth a thread
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
        ordered, places = sort(values)
        difference = ordered - prototype
        weighted = difference if channel_weights is None else difference * channel_weights[:, :, None]
        size = values.shape[1] * values.shape[2]
        gradient = torch.empty_like(ordered).scatter_(2, places, weighted)
        ctx.save_for_backward(gradient.mul_(2 / size))
        return (weighted * difference).sum((1, 2)) / size

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None, None], None, None


def sort(
    values: Float[Tensor, "*rows positions"],
) -> tuple[Float[Tensor, "*rows positions"], Integer[Tensor, "*rows positions"]]:
    """The values in ascending order along the last axis, and the places they came from."""
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return _sort_keys(values.detach())
    ordered, places = torch.sort(values.detach(), dim=-1, stable=True)
    return ordered, places


def _sort_keys(values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows sorted by NumPy, some by each of torch's threads: rows do not touch, so the result is the same."""
    rows = values.contiguous().numpy().reshape(-1, values.shape[-1])
    threads = min(torch.get_num_threads(), rows.size // _WORTH + 1, max(1, len(rows)))
    if threads == 1:
        parts = [_sort_rows(rows)]
    else:
        with ThreadPoolExecutor(threads) as pool:  # NumPy holds no lock while it sorts
            parts = list(pool.map(_sort_rows, np.array_split(rows, threads)))
    ordered, places = (np.concatenate(part) if threads > 1 else part[0] for part in zip(*parts, strict=True))
    return torch.from_numpy(ordered).view(values.shape), torch.from_numpy(places).view(values.shape)


def _sort_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's vectorised sort of 64-bit keys: the float's bits, made to order as integers do, above the place.

    Two to seven times as fast as a sort with indices of floats; exact, since nothing of value or place is lost.
    """
    bits = rows.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(rows.shape[-1])
    keys.sort(axis=-1)
    places = keys & 0xFFFFFFFF
    bits = (keys >> 32).astype(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits.view(np.float32), places
