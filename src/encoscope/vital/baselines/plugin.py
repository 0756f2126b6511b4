"""Plug-In Inversion (Ghiasi et al. 2022): a class's picture from the classifier alone, augmentations its only prior.

The picture grows in stages from a small one to its full size, is shifted around at each step, and is seen several times
at once in colours of its own each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Preprocess
from encoscope.units import Unit
from encoscope.vital.baselines.losses import Classify, number_of_steps, own_settings, own_size, require_classes
from encoscope.vital.baselines.registry import BaselineOptions, SynthesisPlan
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import Pixels, denormalize, normalize, pixel_bounds
from encoscope.vital.synthesis.random import Generators, draw_uniform
from encoscope.vital.synthesis.schedule import cosine
from encoscope.vital.synthesis.transforms import Chain, Images, Roll

EIGHTHS = tuple(range(2, 9))  # of the picture's side, a stage each
_STEPS = 401  # in each stage
_ROLL = 32 / 224  # of the picture's full side


@dataclass(frozen=True)
class ColorShifts:
    """Several views of each picture, in each of which a channel x, in [0, 1], has become x exp(U) + U'.

    U and U' are uniform in [-1, 1], drawn for each view and channel. number: views of each picture. window: (height,
    width) that views are enlarged to, for networks that take one size only; None leaves them.
    """

    preprocess: Preprocess
    number: int
    window: tuple[int, int] | None = None

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """[batch * number, channels, ...], a picture's views together."""
        drawn = draw_uniform(generators, self.number, 2, images.shape[1], 1, 1, low=-1, high=1).flatten(0, 1).to(images)
        black, white = (numbers.to(images) for numbers in pixel_bounds(self.preprocess))
        plain = ((images - black) / (white - black)).repeat_interleave(self.number, 0)
        views = normalize(plain * drawn[:, 0].exp() + drawn[:, 1], self.preprocess)
        if self.window is None or views.shape[2:] == self.window:
            return views
        return functional.interpolate(views, self.window, mode="bilinear")


class PlainPixels(Pixels):
    """Pixels in [0, 1], where they are optimised: a step of the learning rate is one of brightness in every channel."""

    def __init__(self, start: Images, preprocess: Preprocess) -> None:
        super().__init__(start, *(torch.full((start.shape[1], 1, 1), bound) for bound in (0.0, 1.0)))
        self._preprocess = preprocess

    def image(self) -> Images:
        """The normalised pixels."""
        return normalize(super().image(), self._preprocess)


@dataclass(frozen=True)
class GrowingStart:
    """Begins a stage: fresh uniform noise in [0, 1], the picture so far enlarged and pasted into its middle.

    The side grows by an eighth of the full one: half of it enlarges the picture so far, half is its new border (how
    much goes to each is not published).
    """

    preprocess: Preprocess
    size: tuple[int, int]
    device: torch.device

    def __call__(self, previous: Images | None, generators: Generators) -> PlainPixels:
        """The pixels to begin with."""
        canvas = draw_uniform(generators, self.preprocess.channels, *self.size).to(self.device)
        if previous is not None:
            rows, columns = ((new + old) // 2 for new, old in zip(self.size, previous.shape[2:], strict=True))
            top, left = (self.size[0] - rows) // 2, (self.size[1] - columns) // 2
            enlarged = functional.interpolate(denormalize(previous, self.preprocess), (rows, columns), mode="bilinear")
            canvas[:, :, top : top + rows, left : left + columns] = enlarged.to(canvas)
        return PlainPixels(canvas, self.preprocess)


def plan(encoder: Encoder, units: Sequence[Unit], options: BaselineOptions) -> SynthesisPlan:
    """Plug-In Inversion: cross-entropy alone, sides of 2/8 to 8/8 of the picture, 401 steps each; Adam at 0.01.

    Each stage's learning rate falls along a cosine to 0; the roll is by up to 32 pixels of 224, in proportion for other
    sizes. ``options.steps`` is the sum over the seven stages, shared evenly, what is left over going to the last ones;
    fewer than seven steps make fewer stages, the last ones. Networks of one input size see each stage enlarged to it,
    others see it as it is, once it is no smaller than their stride.
    Own settings: ``ensemble``, 8, views a step. ``lr``, 0.01.

    Raises:
        UsageError: a unit that is no class, a size the network does not take.
    """
    own = own_settings(options, {"ensemble": 8, "lr": 0.01}, "plugin")
    targets = require_classes(units, "Plug-In Inversion")
    size, steps = own_size(encoder, options, "Plug-In Inversion"), number_of_steps(options, _STEPS * len(EIGHTHS))
    if own["ensemble"] < 1:
        raise UsageError(f"Plug-In Inversion needs an ensemble of at least one view, not {own['ensemble']}")
    stages = []
    for index, eighths in enumerate(EIGHTHS):
        share = (steps + index) // len(EIGHTHS)
        if share:
            stages.append(_stage(encoder, (size[0] * eighths // 8, size[1] * eighths // 8), size, share, own))
    settings = {"method": "plugin", "steps": steps, "size": list(size), **own}
    return SynthesisPlan(tuple(stages), Classify(encoder, targets), settings)


def _stage(encoder: Encoder, side: tuple[int, int], full: tuple[int, int], steps: int, own: dict[str, Any]) -> Stage:
    seen = encoder.resizable and min(side) >= encoder.stride
    window = None if seen else encoder.preprocess.size
    views = ColorShifts(encoder.preprocess, own["ensemble"], window)
    return Stage(
        start=GrowingStart(encoder.preprocess, side, encoder.device),
        steps=steps,
        optimizer=Optimizer(lr=own["lr"], betas=(0.5, 0.99)),
        schedule=cosine,
        transform=Chain((Roll(round(_ROLL * min(full))), views)),
    )
