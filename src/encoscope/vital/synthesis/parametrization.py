"""What is optimized in place of an image: the protocol, and the simplest case, the pixels themselves."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.images import Preprocess
from encoscope.vital.references.statistics import ColorStatistics
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


class Pyramid:
    """Images as a sum of noise at several resolutions, in the colors of their references.

    The image is clamp(mu + M sum_k up(z_k) / sqrt(K)): z_k are free numbers at the full resolution, half of it, a
    quarter and so on, ``up`` is bilinear, and mu and M are the mean and the square root of the covariance of the
    references' colors. So a step changes coarse shapes as easily as fine ones, and the colors of photos are the least
    effort.

    Args:
        start: The numbers z_k, of the full resolution first: ``[batch, channels, height, width]`` each.
        mean: The mean color of each image, ``[batch, channels, 1, 1]``; or a photo that the sum is added to.
        root: The square root of its colors' covariance, ``[batch, channels, channels]``.
        low: The lower bound of each channel.
        high: The upper bound of each channel.
    """

    def __init__(
        self,
        start: Sequence[Float[Tensor, "batch channels _ _"]],
        mean: Float[Tensor, "batch channels _ _"],
        root: Float[Tensor, "batch channels channels"],
        low: Float[Tensor, "channels 1 1"],
        high: Float[Tensor, "channels 1 1"],
    ) -> None:
        self._levels = [level.detach().clone().requires_grad_() for level in start]
        like = self._levels[0]
        self._mean, self._root, self._low, self._high = (part.to(like) for part in (mean, root, low, high))
        rows, columns = like.shape[2:]
        self._resizers = [
            (_make_resizer(level.shape[2], rows).to(like), _make_resizer(level.shape[3], columns).to(like).T)
            for level in self._levels[1:]
        ]

    def parameters(self) -> list[Tensor]:
        """The numbers of each resolution."""
        return self._levels

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The images; a value out of its range passes the gradients that lead back."""
        whitened = self._levels[0]
        for level, (down, across) in zip(self._levels[1:], self._resizers, strict=True):
            whitened = whitened + down @ level @ across
        whitened = whitened / len(self._levels) ** 0.5
        colored = torch.einsum("bij,bjhw->bihw", self._root, whitened) + self._mean
        return _Clamp.apply(colored, self._low, self._high)  # pyright: ignore[reportReturnType]

    def clamp_(self) -> None:
        """Leave everything as it is: the image is clamped, not the numbers."""


def _make_resizer(before: int, after: int) -> Float[Tensor, "after before"]:
    """Bilinear resizing of one axis as a matrix: twice as fast on the CPU, with its gradient, as resizing a map."""
    return nn.functional.interpolate(torch.eye(before)[None], after, mode="linear", align_corners=False)[0].T


class _Clamp(torch.autograd.Function):
    """A clamp with a gradient outside of the range where a step against it leads back inside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(values < low, values > high)
        return torch.minimum(torch.maximum(values, low), high)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        below, above = ctx.saved_tensors
        (gradient,) = outputs
        return gradient.masked_fill((below & (gradient > 0)) | (above & (gradient < 0)), 0), None, None


LEVELS = 6
"""Resolutions for an image of the network's own size; one more for each doubling of it."""
START = 0.3
"""The standard deviation of each level at the start, as a share of the references'."""


def start_pyramid(
    preprocess: Preprocess,
    size: tuple[int, int],
    colors: Sequence[ColorStatistics],
    generators: Generators,
    device: torch.device,
    start_image: Float[Tensor, "1 channels height width"] | None = None,
) -> Pyramid:
    """Make a pyramid that begins as faint noise of all resolutions around the references' mean color, or as a photo.

    Args:
        preprocess: The network's preprocessing.
        size: (height, width) in pixels.
        colors: The colors of each image's references.
        generators: The generator of each image.
        device: Where the numbers are.
        start_image: A normalized image to begin with; None begins with noise.

    Returns:
        The pyramid.
    """
    doublings = max(0, round(log2(min(size) / min(preprocess.size))))
    sides = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(LEVELS + doublings)]
    spread = START if start_image is None else 0.0
    start = [spread * draw_normal(generators, preprocess.channels, *side).to(device) for side in sides]
    mean = torch.stack([torch.tensor(each.mean) for each in colors])[:, :, None, None]
    if start_image is not None:
        mean = start_image.expand(len(colors), *start_image.shape[1:])
    root = torch.stack([each.root() for each in colors])
    return Pyramid(start, mean, root, *pixel_bounds(preprocess))


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
