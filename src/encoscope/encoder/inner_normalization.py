"""Find networks that normalize their input themselves, by what reaches their first layer with weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import evaluation_mode, removing_hooks

_LEVELS = (0.25, 0.75)  # of two trial images, each of one color
_MAX_STD = 0.7  # values that are spread less than this are not spread: a batch norm after normalization has about 1
_TOLERANCE = 1e-4


class _Reached(BaseException):
    """Ends a trial run at the first layer with weights. Networks that catch Exception do not catch it."""


@dataclass(frozen=True)
class InnerNormalization:
    """What a network does with its input before the first layer with weights.

    Attributes:
        mean: The mean that it subtracts from each channel; empty if it removes each image's own mean.
        std: What it divides by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        if not self.mean:
            return "each image by its own mean"
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


def find_inner_normalization(
    module: nn.Module, channels: int, size: tuple[int, int], call: Callable[[Tensor], Any]
) -> InnerNormalization | None:
    """Run a network on two images of one color up to its first layer with weights, and compare what comes there.

    Args:
        module: The network.
        channels: Its number of input channels.
        size: (height, width) of its input.
        call: Calls the network.

    Returns:
        How it normalizes; None if the input reaches the layer as it is, or if this cannot be told.
    """
    first = next(module.parameters(), None)
    options = {} if first is None or not first.is_floating_point() else {"device": first.device, "dtype": first.dtype}
    values = []
    for level in _LEVELS:
        reached = _first_input(module, torch.full((1, channels, *size), level, **options), call)
        if reached is None or reached.ndim != 4 or reached.shape[1] != channels:
            return None
        values.append(reached[0, :, reached.shape[2] // 2, reached.shape[3] // 2].double().cpu())
    slope = (values[1] - values[0]) / (_LEVELS[1] - _LEVELS[0])
    if not torch.isfinite(slope).all():
        return None
    if (slope.abs() < _TOLERANCE).all():
        return InnerNormalization((), ())
    if (slope < 1 / _MAX_STD).any():
        return None
    mean = _LEVELS[0] - values[0] / slope
    return InnerNormalization(_round(mean), _round(1 / slope))


def _first_input(module: nn.Module, pixels: Tensor, call: Callable[[Tensor], Any]) -> Tensor | None:
    inputs: list[Tensor] = []

    def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            inputs.append(args[0].detach())
        raise _Reached

    layers = [child for child in module.modules() if getattr(getattr(child, "weight", None), "ndim", 0) >= 2]
    with evaluation_mode(module), torch.no_grad(), removing_hooks([]) as handles:
        handles.extend(layer.register_forward_pre_hook(stop) for layer in layers)
        with suppress(_Reached, Exception):  # a forward that fails is reported where the layers are found
            call(pixels)
    return inputs[0] if inputs else None


def _round(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) + 0.0 for value in values.tolist())
