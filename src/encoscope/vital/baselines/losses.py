"""What the comparison methods ask of an image - more of a unit, or a class - and how their settings are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from encoscope.encoder import Encoder, Observation
from encoscope.errors import UsageError, suggest_nearest
from encoscope.units import Unit, compute_values, required_outputs
from encoscope.vital.baselines.registry import BaselineOptions
from encoscope.vital.synthesis.loop import Losses
from encoscope.vital.synthesis.transforms import Images

_SMALLEST = 8  # pixels


class Maximize:
    """Less the unit's value: minimised, the image shows as much of the unit as it can. Of k views, the mean.

    A unit after a ReLU that is silent on all views passes no gradient, and the image would stay as it is. Until the
    unit answers, all of its layer is maximised in its place (our extension; others let gradients through the ReLU).
    """

    def __init__(self, encoder: Encoder, units: Sequence[Unit]) -> None:
        self._encoder, self._units = encoder, tuple(units)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """The losses of the units in ``rows``, k images each."""
        units = self._units[rows]
        seen = self._encoder.observe(images, **required_outputs(units), gradients=True)
        found = compute_values(seen, units)
        own = found.reshape(len(units), -1, len(units)).diagonal(dim1=0, dim2=2).mean(0)
        awake = list(own.unbind())
        for place, unit in enumerate(units):
            if unit.layer in seen.activations and not float(own[place].detach()):
                awake[place] = _whole(seen, unit, place, len(units))
        return Losses(-torch.stack(awake))


def _whole(seen: Observation, unit: Unit, place: int, count: int) -> Float[Tensor, ""]:
    """The mean of all of a unit's layer, over the views that stand at its place."""
    maps = seen.activations[str(unit.layer)].maps
    return maps.reshape(count, -1)[place].mean()


class Classify:
    """The cross-entropy of each image's class, the mean over its views."""

    def __init__(self, encoder: Encoder, targets: Sequence[int]) -> None:
        self._encoder, self._targets = encoder, tuple(targets)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """The losses of the classes in ``rows``, k images each."""
        return Losses(compute_cross_entropy(compute_logits(self._encoder, images), self._targets[rows]))


def compute_logits(encoder: Encoder, images: Images) -> Float[Tensor, "batch classes"]:
    """The head's outputs, with the graph."""
    found = encoder.observe(images, logits=True, gradients=True).logits
    assert found is not None  # asked for
    return found


def compute_cross_entropy(logits: Float[Tensor, "images classes"], targets: Sequence[int]) -> Float[Tensor, " units"]:
    """The cross-entropy of each unit's class, the mean over its views (images of one unit stand together)."""
    wanted = torch.tensor(targets, device=logits.device).repeat_interleave(len(logits) // len(targets))
    return functional.cross_entropy(logits, wanted, reduction="none").reshape(len(targets), -1).mean(1)


def require_classes(units: Sequence[Unit], method: str) -> tuple[int, ...]:
    """The units' classes, for a method that knows nothing but classes. UsageError for any other unit."""
    for unit in units:
        if unit.kind != "class":
            raise UsageError(
                f"{method} pictures classes only, not {unit.text}: give class:NAME, or use vital, fourier or maco"
            )
    return tuple(unit.index for unit in units)


def picture_size(encoder: Encoder, options: BaselineOptions) -> tuple[int, int]:
    """(height, width) asked for, the network's own input if none was. UsageError for less than 8 pixels."""
    size = options.size or encoder.preprocess.size
    if min(size) < _SMALLEST:
        raise UsageError(f"a picture has sides of at least {_SMALLEST} pixels, not {size[0]} x {size[1]}")
    return size


def own_size(encoder: Encoder, options: BaselineOptions, method: str) -> tuple[int, int]:
    """As ``picture_size``, for methods that show the network the whole picture as it is.

    Raises:
        UsageError: a size that the network does not take.
    """
    size = picture_size(encoder, options)
    if size != encoder.preprocess.size and not encoder.resizable:
        height, width = encoder.preprocess.size
        raise UsageError(
            f"{encoder.source} takes {height} x {width} pixels only, and {method} makes pictures of that size"
        )
    return size


def number_of_steps(options: BaselineOptions, usual: int) -> int:
    """Steps asked for, or the method's usual number. UsageError for none."""
    steps = usual if options.steps is None else options.steps
    if steps < 1:
        raise UsageError(f"a picture needs at least one step, not {steps}")
    return steps


def own_settings(options: BaselineOptions, defaults: Mapping[str, Any], method: str) -> dict[str, Any]:
    """A method's own settings, its defaults where nothing else was asked for. UsageError for one it does not have."""
    for name in options.extra:
        if name not in defaults:
            raise UsageError(
                f"{method} has no setting {name!r}{suggest_nearest(name, defaults)}; it has {', '.join(defaults)}"
            )
    return {**defaults, **options.extra}
