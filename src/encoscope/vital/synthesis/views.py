"""Views of a picture: what the comparison methods show the network in its place, drawn anew each step."""

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

_PUBLISHED_SIZE = 224  # the picture that the published lengths in pixels are for
_LEAST = 0.05  # of the picture's side: a normal draw may ask for less than nothing


@dataclass(frozen=True)
class Wander:
    """Move, zoom and turn each picture a little, by its own draw, and show it through a window of the network's size.

    The published chain - pad by 12 pixels of mid-grey, crop 8 fewer at a random place, scale by 0.9 to 1.1, turn by up
    to 10 degrees, crop 4 fewer at a random place - is one affine map, sampled once (bilinear) instead of once a link:
    shifts of up to 4 and 2 pixels, with grey wherever the window shows more than the picture. Lengths in pixels are for
    pictures of 224 and shrink or grow with the picture's side.

    window: (height, width) of the network's input. grey: mid-grey as the network takes it, one value a channel.
    """

    window: tuple[int, int]
    grey: tuple[float, ...]
    crops: tuple[int, int] = (8, 4)
    scales: tuple[float, ...] = tuple(1 + (step - 5) / 50 for step in range(11))
    degrees: int = 10

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """One view of each image, [batch, channels, *window]."""
        height, width = images.shape[2:]
        maps = torch.stack([self._map(generator, height, width) for generator in generators]).to(images)
        grid = functional.affine_grid(maps, [len(images), images.shape[1], *self.window], align_corners=False)
        grey = torch.tensor(self.grey).to(images).reshape(1, -1, 1, 1)
        # beyond the border grid_sample shows zero: zero is made grey
        return functional.grid_sample(images - grey, grid, align_corners=False) + grey

    def _map(self, generator: Generator, height: int, width: int) -> Float[Tensor, "2 3"]:
        """From the window to the picture, in the coordinates of ``affine_grid``: [-1, 1] from edge to edge."""
        ((scale_at,),) = draw_integers([generator], 0, len(self.scales) - 1, 1)
        ((degrees,),) = draw_integers([generator], -self.degrees, self.degrees, 1)
        first, second = (self._shift(generator, crop, min(height, width)) for crop in self.crops)
        angle = degrees * pi / 180
        turn = torch.tensor([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]]) / self.scales[scale_at]
        offset = turn @ second + first
        half = torch.tensor([width / 2, height / 2])
        return torch.cat([turn * half[None] / half[:, None], (offset / half)[:, None]], 1)

    def _shift(self, generator: Generator, crop: int, side: int) -> Float[Tensor, " 2"]:
        """How far a crop of so many pixels fewer, at a random place, lies from the middle: (right, down)."""
        fewer = round(crop * side / _PUBLISHED_SIZE)
        ((right, down),) = draw_integers([generator], 0, fewer, 2)
        return torch.tensor([right - fewer / 2, down - fewer / 2])


def mid_gray(preprocess: Preprocess) -> tuple[float, ...]:
    """Mid-grey, 0.5 in every channel, as the network takes it."""
    return tuple(normalize(torch.full((1, preprocess.channels, 1, 1), 0.5), preprocess).flatten().tolist())


@dataclass(frozen=True)
class NoisyCrops:
    """Square crops of each picture, resized to the network's input, with uniform noise: MACO's views.

    window: (height, width) of the network's input. number: crops of each picture. Centres are 0.5 + 0.15 N(0, 1) of the
    side; sides are N(mean, spread) of it, kept between 0.05 and 1, and a crop that would hang over the border is moved
    inside: nothing depends on a size in pixels. Sampled bilinearly, one sample a pixel of the window. noise: half the
    width of the uniform noise, in normalised units.
    """

    window: tuple[int, int]
    number: int = 32
    mean: float = 0.25
    spread: float = 0.1
    noise: float = 0.1

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """[batch * number, channels, *window], an image's crops together."""
        draws = draw_normal(generators, self.number, 3)
        side = (self.mean + self.spread * draws[..., 2]).clamp(_LEAST, 1)
        centre = 0.5 + 0.15 * draws[..., :2]
        centre = torch.minimum(torch.maximum(centre, side[..., None] / 2), 1 - side[..., None] / 2)
        maps = torch.zeros(len(images), self.number, 2, 3)
        maps[..., 0, 0] = maps[..., 1, 1] = side  # of the picture's width and of its height
        maps[..., 2] = 2 * centre - 1
        views = images.repeat_interleave(self.number, 0)
        grid = functional.affine_grid(
            maps.flatten(0, 1).to(images), [len(views), images.shape[1], *self.window], align_corners=False
        )
        crops = functional.grid_sample(views, grid, padding_mode="border", align_corners=False)
        noise = draw_uniform(generators, self.number, images.shape[1], *self.window, low=-self.noise, high=self.noise)
        return crops + noise.flatten(0, 1).to(images)
