"""Plug-In Inversion (Ghiasi et al. 2022): images of a class from the classifier alone, with augmentations.

The image grows in stages from a small one to its full size and is shifted at each step. The network sees several views
of it at once, each with other colors.
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
from encoscope.images import Preprocess
from encoscope.units import Unit
from encoscope.vital.baselines.losses import Classify, choose_input_size, require_classes
from encoscope.vital.settings import PluginSettings
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import Pixels, denormalize, normalize, pixel_bounds
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.synthesis.random import Generators, draw_uniform
from encoscope.vital.synthesis.schedule import cosine
from encoscope.vital.synthesis.transforms import Chain, Images, Roll

EIGHTHS = tuple(range(2, 9))  # of the image's side, a stage each
_ROLL = 32 / 224  # of the image's full side


@dataclass(frozen=True)
class ColorShifts:
    """Several views of each image, in each of which a channel x, in [0, 1], becomes x exp(U) + U'.

    U and U' are uniform in [-1, 1], drawn for each view and channel.

    Attributes:
        preprocess: The network's preprocessing.
        number: Views of each image.
        window: (height, width) that views are enlarged to, for networks that take one size only; None leaves them.
    """

    preprocess: Preprocess
    number: int
    window: tuple[int, int] | None = None

    def __call__(self, images: Images, generators: Generators) -> Float[Tensor, "views channels rows columns"]:
        """Show each image several times.

        Args:
            images: Normalized images.
            generators: The generator of each image.

        Returns:
            [batch * number, channels, ...], the views of one image together.
        """
        draws = draw_uniform(generators, self.number, 2, images.shape[1], 1, 1, low=-1, high=1).flatten(0, 1).to(images)
        black, white = (numbers.to(images) for numbers in pixel_bounds(self.preprocess))
        plain = ((images - black) / (white - black)).repeat_interleave(self.number, 0)
        views = normalize(plain * draws[:, 0].exp() + draws[:, 1], self.preprocess)
        if self.window is None or views.shape[2:] == self.window:
            return views
        return functional.interpolate(views, self.window, mode="bilinear")


class PlainPixels(Pixels):
    """Pixels that are optimized in [0, 1]: a step of the learning rate changes brightness equally in every channel.

    Args:
        start: Images in [0, 1] to begin with.
        preprocess: The network's preprocessing.
    """

    def __init__(self, start: Images, preprocess: Preprocess) -> None:
        super().__init__(start, *(torch.full((start.shape[1], 1, 1), bound) for bound in (0.0, 1.0)))
        self._preprocess = preprocess

    def image(self) -> Images:
        """The normalized pixels."""
        return normalize(super().image(), self._preprocess)


@dataclass(frozen=True)
class GrowingStart:
    """Begins a stage: new uniform noise in [0, 1] with the image so far, enlarged, pasted into its middle.

    The side grows by an eighth of the full one: half of that enlarges the image so far, half is its new border (how
    much goes to each is not published).

    Attributes:
        preprocess: The network's preprocessing.
        size: (height, width) of the stage.
        device: Where the pixels are.
    """

    preprocess: Preprocess
    size: tuple[int, int]
    device: torch.device

    def __call__(self, previous: Images | None, generators: Generators) -> PlainPixels:
        """Make the pixels to begin with.

        Args:
            previous: The images of the stage before; None in the first.
            generators: The generator of each image.

        Returns:
            The pixels.
        """
        canvas = draw_uniform(generators, self.preprocess.channels, *self.size).to(self.device)
        if previous is not None:
            rows, columns = ((new + old) // 2 for new, old in zip(self.size, previous.shape[2:], strict=True))
            top, left = (self.size[0] - rows) // 2, (self.size[1] - columns) // 2
            enlarged = functional.interpolate(denormalize(previous, self.preprocess), (rows, columns), mode="bilinear")
            canvas[:, :, top : top + rows, left : left + columns] = enlarged.to(canvas)
        return PlainPixels(canvas, self.preprocess)


def plan(encoder: Encoder, units: Sequence[Unit], settings: PluginSettings, images: Any = None) -> SynthesisPlan:
    """Plan Plug-In Inversion: cross-entropy alone, sides of 2/8 to 8/8 of the image, 401 steps each; Adam at 0.01.

    Each stage's learning rate falls along a cosine to 0; the roll is by up to 32 pixels of 224, in proportion for other
    sizes. The steps are shared evenly by the seven stages, what is left over going to the last ones; fewer than seven
    steps make fewer stages, the last ones. Networks of one input size see each stage enlarged to it, others see it as
    it is, once it is no smaller than their stride.

    Args:
        encoder: The encoder.
        units: The units.
        settings: The method's settings.
        images: Not used: this method needs no images.

    Returns:
        The plan.

    Raises:
        UsageError: For a unit that is no class, and a size that the network does not take.

    Source: Plug-In Inversion (Ghiasi et al. 2022).
    """
    targets = require_classes(units, "Plug-In Inversion")
    size = choose_input_size(encoder, settings.size, "Plug-In Inversion")
    stages = []
    for index, eighths in enumerate(EIGHTHS):
        share = (settings.steps + index) // len(EIGHTHS)
        if share:
            side = (size[0] * eighths // 8, size[1] * eighths // 8)
            stages.append(_stage(encoder, side, size, share, settings))
    record = {"method": "plugin", **settings.as_dict(), "size": list(size)}
    return SynthesisPlan(tuple(stages), Classify(encoder, targets), record)


def _stage(
    encoder: Encoder, side: tuple[int, int], full: tuple[int, int], steps: int, settings: PluginSettings
) -> Stage:
    shown_as_it_is = encoder.resizable and min(side) >= encoder.stride
    window = None if shown_as_it_is else encoder.preprocess.size
    views = ColorShifts(encoder.preprocess, settings.n_views, window)
    return Stage(
        start=GrowingStart(encoder.preprocess, side, encoder.device),
        steps=steps,
        optimizer=Optimizer(lr=settings.lr, betas=(0.5, 0.99)),
        schedule=cosine,
        transform=Chain((Roll(round(_ROLL * min(full))), views)),
    )
