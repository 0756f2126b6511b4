"""Random changes of the image before the network sees it, drawn for each image by its own generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.vital.synthesis.random import Generators, draw_integers

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
