"""Views of an image: what the comparison methods show to the network in its place, drawn again in each step."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from encoscope.images import Preprocess
from encoscope.vital.synthesis.parametrization import normalize
from encoscope.vital.synthesis.random import Generators, draw_integers, draw_normal, draw_uniform
from encoscope.vital.synthesis.transforms import Images

_PUBLISHED_SIZE = 224  # side of the image that the published lengths in pixels are for
_MIN_SIDE = 0.05  # of the image's side: a normal draw can be negative


@dataclass(frozen=True)
class Wander:
    """Shift, zoom and turn each image a little, by its own draw, and show it through a window of the network's size.

    The published chain (pad by 12 pixels of mid-gray, crop 8 fewer at a random position, scale by 0.9 to 1.1, turn by
    up to 10 degrees, crop 4 fewer at a random position) is one affine map here, sampled once (bilinear): shifts of up
    to 4 and 2 pixels, with gray where the window shows more than the image. Lengths in pixels are for images of 224
    and are in proportion for others.

    Attributes:
        window: (height, width) of the network's input.
        gray: Mid-gray as the network takes it, one value for each channel.
        crops: By how many pixels the two crops are smaller.
        scales: The scales that are drawn from.
        degrees: The largest turn.

    Source: Olah, Mordvintsev and Schubert 2017.
    """

    window: tuple[int, int]
    gray: tuple[float, ...]
    crops: tuple[int, int] = (8, 4)
    scales: tuple[float, ...] = tuple(1 + (step - 5) / 50 for step in range(11))
    degrees: int = 10

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """Show each image once.

        Args:
            images: The images.
            generators: The generator of each image.

        Returns:
            A view of each image, [batch, channels, *window].
        """
        height, width = images.shape[2:]
        maps = torch.stack([self._map(generator, height, width) for generator in generators]).to(images)
        grid = functional.affine_grid(maps, [len(images), images.shape[1], *self.window], align_corners=False)
        gray = torch.tensor(self.gray).to(images).reshape(1, -1, 1, 1)
        # grid_sample gives zero outside of the image: shifted so that zero is gray
        return functional.grid_sample(images - gray, grid, align_corners=False) + gray

    def _map(self, generator: Generator, height: int, width: int) -> Float[Tensor, "2 3"]:
        """From the window to the image, in the coordinates of ``affine_grid``: [-1, 1] from edge to edge."""
        ((scale_index,),) = draw_integers([generator], 0, len(self.scales) - 1, 1)
        ((degrees,),) = draw_integers([generator], -self.degrees, self.degrees, 1)
        first, second = (self._shift(generator, crop, min(height, width)) for crop in self.crops)
        angle = degrees * pi / 180
        turn = torch.tensor([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]) / self.scales[scale_index]
        offset = turn @ second + first
        half = torch.tensor([width / 2, height / 2])
        return torch.cat([turn * half[None] / half[:, None], (offset / half)[:, None]], 1)

    def _shift(self, generator: Generator, crop: int, side: int) -> Float[Tensor, " 2"]:
        """How far a crop of fewer pixels, at a random position, lies from the middle: (right, down)."""
        fewer = round(crop * side / _PUBLISHED_SIZE)
        ((right, down),) = draw_integers([generator], 0, fewer, 2)
        return torch.tensor([right - fewer / 2, down - fewer / 2])


def mid_gray(preprocess: Preprocess) -> tuple[float, ...]:
    """Compute mid-gray, 0.5 in every channel, as the network takes it.

    Args:
        preprocess: The network's preprocessing.

    Returns:
        One value for each channel.
    """
    return tuple(normalize(torch.full((1, preprocess.channels, 1, 1), 0.5), preprocess).flatten().tolist())


@dataclass(frozen=True)
class NoisyCrops:
    """Square crops of each image, resized to the network's input, with uniform noise: MACO's views.

    Centers are 0.5 + 0.15 N(0, 1) of the side; sides are N(mean, spread) of it, kept between 0.05 and 1. A crop that
    would reach over the border is moved inside. Sampled bilinearly, one sample for each pixel of the window.

    Attributes:
        window: (height, width) of the network's input.
        number: Crops of each image.
        mean: The mean side of the crops, as a share of the image's.
        spread: The standard deviation of the side.
        noise: Half the width of the uniform noise, in normalized units.

    Source: MACO (Fel et al. 2023).
    """

    window: tuple[int, int]
    number: int = 32
    mean: float = 0.25
    spread: float = 0.1
    noise: float = 0.1

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """Cut the crops out of each image.

        Args:
            images: The images.
            generators: The generator of each image.

        Returns:
            [batch * number, channels, *window], the crops of one image together.
        """
        draws = draw_normal(generators, self.number, 3)
        side = (self.mean + self.spread * draws[..., 2]).clamp(_MIN_SIDE, 1)
        center = 0.5 + 0.15 * draws[..., :2]
        center = torch.minimum(torch.maximum(center, side[..., None] / 2), 1 - side[..., None] / 2)
        maps = torch.zeros(len(images), self.number, 2, 3)
        maps[..., 0, 0] = maps[..., 1, 1] = side  # of the image's width and of its height
        maps[..., 2] = 2 * center - 1
        views = images.repeat_interleave(self.number, 0)
        grid = functional.affine_grid(
            maps.flatten(0, 1).to(images), [len(views), images.shape[1], *self.window], align_corners=False
        )
        crops = functional.grid_sample(views, grid, padding_mode="border", align_corners=False)
        noise = draw_uniform(generators, self.number, images.shape[1], *self.window, low=-self.noise, high=self.noise)
        return crops + noise.flatten(0, 1).to(images)
