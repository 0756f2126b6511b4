"""What is optimized in place of an image: the protocol, and the simplest case, the pixels themselves."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.images import Preprocess
from encoscope.vital.synthesis.random import Generators, draw_normal


@runtime_checkable
class Parametrization(Protocol):
    """An image for each unit of a batch as a differentiable function of free parameters."""

    def parameters(self) -> list[Tensor]:
        """The leaf tensors to optimize, each with the batch as its first axis; the same objects every time."""
        ...

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The images the parameters stand for, normalized as the network takes them, differentiable."""
        ...

    def clamp_(self) -> None:
        """Bring the parameters back into their range, after each step, in place."""
        ...


class Pixels:
    """The normalized pixels themselves, kept within what an image file can hold: [-mean/std, (1-mean)/std].

    Args:
        start: Normalized images to begin with.
        low: The lower bound of each channel.
        high: The upper bound of each channel.
    """

    def __init__(
        self,
        start: Float[Tensor, "batch channels height width"],
        low: Float[Tensor, "channels 1 1"],
        high: Float[Tensor, "channels 1 1"],
    ) -> None:
        self._pixels = start.detach().clone().requires_grad_()
        self._low, self._high = low.to(start.device), high.to(start.device)

    def parameters(self) -> list[Tensor]:
        """The pixels."""
        return [self._pixels]

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The pixels."""
        return self._pixels

    @torch.no_grad()
    def clamp_(self) -> None:
        """Cut what lies outside of the bounds."""
        self._pixels.copy_(torch.minimum(torch.maximum(self._pixels, self._low), self._high))


def start_from_noise(
    preprocess: Preprocess, size: tuple[int, int], generators: Generators, device: torch.device
) -> Pixels:
    """Make pixels that begin as standard normal noise in normalized space, not clamped before the first step.

    Args:
        preprocess: The network's preprocessing.
        size: (height, width) in pixels.
        generators: The generator of each image.
        device: Where the pixels are.

    Returns:
        The pixels.

    Source: the code of VITAL's authors.
    """
    start = draw_normal(generators, preprocess.channels, *size).to(device)
    return Pixels(start, *pixel_bounds(preprocess))


def pixel_bounds(preprocess: Preprocess) -> tuple[Float[Tensor, "channels 1 1"], Float[Tensor, "channels 1 1"]]:
    """Compute the normalized values of black and of white, for each channel.

    Args:
        preprocess: The network's preprocessing.

    Returns:
        The values of black, and those of white.
    """
    mean, std = _column(preprocess.unit_mean, preprocess.channels), _column(preprocess.unit_std, preprocess.channels)
    return -mean / std, (1 - mean) / std


def denormalize(
    images: Float[Tensor, "batch channels height width"], preprocess: Preprocess
) -> Float[Tensor, "batch channels height width"]:
    """Turn normalized images into values in [0, 1].

    Args:
        images: Normalized images.
        preprocess: The network's preprocessing.

    Returns:
        The values, clamped.
    """
    mean, std = (
        _column(numbers, preprocess.channels).to(images.device)
        for numbers in (preprocess.unit_mean, preprocess.unit_std)
    )
    return _flip(images * std + mean, preprocess).clamp(0, 1)


def normalize(
    images: Float[Tensor, "batch channels height width"], preprocess: Preprocess
) -> Float[Tensor, "batch channels height width"]:
    """Turn values in [0, 1] into what the network takes; differentiable.

    Args:
        images: Values in [0, 1].
        preprocess: The network's preprocessing.

    Returns:
        Normalized images.
    """
    mean, std = (
        _column(numbers, preprocess.channels).to(images.device)
        for numbers in (preprocess.unit_mean, preprocess.unit_std)
    )
    return (_flip(images, preprocess) - mean) / std


def _flip(images: Tensor, preprocess: Preprocess) -> Tensor:
    """From the network's order of colors to red, green, blue, or back."""
    return images.flip(1) if preprocess.channel_order == "bgr" else images


def _column(numbers: tuple[float, ...], channels: int) -> Tensor:
    return torch.tensor(numbers).expand(channels).reshape(-1, 1, 1)
