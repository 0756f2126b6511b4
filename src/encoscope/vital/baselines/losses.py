"""What the comparison methods ask of an image, a large value of a unit or a class, and the size of their images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from encoscope.encoder import Encoder, Observation
from encoscope.errors import EncoscopeError, UsageError
from encoscope.units import Unit, compute_values, required_outputs
from encoscope.vital.synthesis.loop import Losses
from encoscope.vital.synthesis.transforms import Images

_SMALLEST = 8  # pixels


class Maximize:
    """The negative of the unit's value: minimizing it maximizes the unit. Of k views, the mean.

    A unit behind a ReLU that is zero on all views passes no gradient, and the image would stay as it is. Until the unit
    responds, its whole layer is maximized instead (our extension; others let gradients through the ReLU).

    Args:
        encoder: The encoder.
        units: The units of the run.
    """

    def __init__(self, encoder: Encoder, units: Sequence[Unit]) -> None:
        self._encoder, self._units = encoder, tuple(units)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the losses of some units.

        Args:
            images: k views for each unit, a unit's views together.
            rows: Which units of the run.

        Returns:
            A loss for each unit.
        """
        units = self._units[rows]
        seen = self._encoder.observe(images, **required_outputs(units), gradients=True)
        values = compute_values(seen, units)
        own = values.reshape(len(units), -1, len(units)).diagonal(dim1=0, dim2=2).mean(0)
        responses = list(own.unbind())
        for index, unit in enumerate(units):
            if unit.layer in seen.activations and not float(own[index].detach()):
                responses[index] = _mean_of_layer(seen, unit, index, len(units))
        return Losses(-torch.stack(responses))


def _mean_of_layer(seen: Observation, unit: Unit, index: int, count: int) -> Float[Tensor, ""]:
    """The mean of all of a unit's layer, over the unit's own views."""
    maps = seen.activations[str(unit.layer)].maps
    return maps.reshape(count, -1)[index].mean()


class Classify:
    """The cross-entropy of each image's class, the mean over its views.

    Args:
        encoder: The encoder, a classifier.
        targets: The class of each unit of the run.
    """

    def __init__(self, encoder: Encoder, targets: Sequence[int]) -> None:
        self._encoder, self._targets = encoder, tuple(targets)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the losses of some classes.

        Args:
            images: k views for each class, a class's views together.
            rows: Which classes of the run.

        Returns:
            A loss for each class.
        """
        return Losses(compute_cross_entropy(compute_logits(self._encoder, images), self._targets[rows]))


def compute_logits(encoder: Encoder, images: Images) -> Float[Tensor, "batch classes"]:
    """Compute the outputs of a classifier's head, with the graph to the images.

    Args:
        encoder: The encoder.
        images: Normalized images.

    Returns:
        The logits.

    Raises:
        EncoscopeError: For a network without a classifier.
    """
    logits = encoder.observe(images, logits=True, gradients=True).logits
    if logits is None:
        raise EncoscopeError(f"{encoder.source} has no classifier")
    return logits


def compute_cross_entropy(logits: Float[Tensor, "images classes"], targets: Sequence[int]) -> Float[Tensor, " units"]:
    """Compute the cross-entropy of each unit's class, the mean over its views.

    Args:
        logits: The logits of all views, those of one unit together.
        targets: The class of each unit.

    Returns:
        A number for each unit.
    """
    labels = torch.tensor(targets, device=logits.device).repeat_interleave(len(logits) // len(targets))
    return functional.cross_entropy(logits, labels, reduction="none").reshape(len(targets), -1).mean(1)


def require_classes(units: Sequence[Unit], method: str) -> tuple[int, ...]:
    """Give the units' classes, for a method that visualizes classes only.

    Args:
        units: The units.
        method: The method's name, for the message.

    Returns:
        The index of each class.

    Raises:
        UsageError: For any other unit.
    """
    for unit in units:
        if not unit.is_class:
            raise UsageError(
                f"{method} visualizes classes only, not {unit.text}: give class:NAME, or use vital, fourier or maco"
            )
    return tuple(unit.index for unit in units)


def choose_size(encoder: Encoder, size: tuple[int, int] | None) -> tuple[int, int]:
    """Choose the size of the images.

    Args:
        encoder: The encoder.
        size: (height, width) in pixels; None is the network's own input.

    Returns:
        (height, width).

    Raises:
        UsageError: For less than 8 pixels.
    """
    height, width = encoder.preprocess.size if size is None else size
    if min(height, width) < _SMALLEST:
        raise UsageError(f"a visualization has sides of at least {_SMALLEST} pixels, not {height} x {width}")
    return height, width


def choose_input_size(encoder: Encoder, size: tuple[int, int] | None, method: str) -> tuple[int, int]:
    """Choose the size for a method that shows the network the whole image as it is.

    Args:
        encoder: The encoder.
        size: (height, width) in pixels; None is the network's own input.
        method: The method's name, for the message.

    Returns:
        (height, width).

    Raises:
        UsageError: For a size that the network does not take.
    """
    chosen = choose_size(encoder, size)
    if chosen != encoder.preprocess.size and not encoder.resizable:
        height, width = encoder.preprocess.size
        raise UsageError(
            f"{encoder.source} takes {height} x {width} pixels only, and {method} makes images of that size"
        )
    return chosen
