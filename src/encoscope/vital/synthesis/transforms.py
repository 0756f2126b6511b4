"""Random changes of the image before the network sees it, drawn for each image by its own generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from encoscope.vital.synthesis.random import Generators, draw_integers, draw_uniform

Images: TypeAlias = Float[Tensor, "batch channels height width"]
Transform: TypeAlias = Callable[[Images, Generators], Images]
"""Differentiable; gives one view of each image, or k views of each, [batch * k, ...], an image's views together."""


def identity(images: Images, generators: Generators) -> Images:
    """Change nothing.

    Args:
        images: The images.
        generators: The generator of each image.

    Returns:
        The images.
    """
    return images


@dataclass(frozen=True)
class Roll:
    """Circular shift by whole pixels: VITAL's jitter.

    Attributes:
        reach: The largest shift on each axis, in pixels.
    """

    reach: int

    def __call__(self, images: Images, generators: Generators) -> Images:
        """Shift each image by its own draw.

        Args:
            images: The images.
            generators: The generator of each image.

        Returns:
            The shifted images.
        """
        shifts = draw_integers(generators, -self.reach, self.reach, 2)
        pairs = zip(images, shifts, strict=True)
        return torch.stack([torch.roll(image, (down, right), (1, 2)) for image, (down, right) in pairs])


@dataclass(frozen=True)
class Chain:
    """Several transforms, one after the other.

    Attributes:
        parts: The transforms in their order.
    """

    parts: tuple[Transform, ...]

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """Apply all of them.

        Args:
            images: The images.
            generators: The generator of each image.

        Returns:
            The views, those of one image together.
        """
        for part in self.parts:
            images = part(images, generators)
        return images


@dataclass(frozen=True)
class WholeOrPart:
    """The whole image or a random part of it, by turns of a coin, resized to the network's input.

    So an image above the network's size is one picture of the unit, whose parts bear a closer look. The side of a part
    is drawn evenly by its logarithm, from the network's own to the whole image.

    Attributes:
        window: (height, width) of the network's input.
        share: How often the whole image is shown.
    """

    window: tuple[int, int]
    share: float = 0.5

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "batch channels rows columns"]:
        """Show each image by its own draw.

        Args:
            images: The images, at least of the window's size.
            generators: The generator of each image.

        Returns:
            A view of each image.
        """
        height, width = images.shape[2:]
        views = []
        for image, (whole, zoom, down, right) in zip(images, draw_uniform(generators, 4).tolist(), strict=True):
            rows, columns = height, width
            if whole >= self.share:
                smallest = max(self.window[0] / height, self.window[1] / width)
                scale = smallest**zoom
                rows, columns = round(height * scale), round(width * scale)
            first, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
            part = image[None, :, first : first + rows, left : left + columns]
            views.append(interpolate(part, self.window, mode="bilinear", antialias=True, align_corners=False))
        return torch.cat(views)


@dataclass(frozen=True)
class Beside:
    """A transform that shows a photo in the same way as each image, as the view behind the image's own.

    Attributes:
        transform: Gives one view of each image.
        image: The photo, of the images' size.
    """

    transform: Transform
    image: Float[Tensor, "1 channels height width"]

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """Show each image and the photo.

        Args:
            images: The images.
            generators: The generator of each image.

        Returns:
            Two views of each image: its own, and the photo's.
        """
        pairs = torch.cat([images, self.image.to(images).expand_as(images)], 1)
        return torch.stack(self.transform(pairs, generators).chunk(2, 1), 1).flatten(0, 1)
