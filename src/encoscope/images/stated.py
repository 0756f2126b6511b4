"""Preprocessing that the user states in place of what a network's source says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoscope.errors import UsageError
from encoscope.images.geometry import Preprocess
from encoscope.images.resize import check_interpolation

_LARGEST_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class StatedPreprocess:
    """What the user states; None leaves what the network's source says.

    Attributes:
        mean: Mean of each channel, or one for all, for values in [0, 1].
        std: Standard deviation of each channel, or one for all, for values in [0, 1].
        input_size: Side, or (height, width), of the input in pixels.
        interpolation: How images are resized.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    input_size: int | tuple[int, int] | None = None
    interpolation: str | None = None

    def __post_init__(self) -> None:
        check_normalization(self.mean, self.std)
        sides = (self.input_size,) if isinstance(self.input_size, int) else self.input_size or ()
        if any(not 1 <= side <= _LARGEST_SIDE for side in sides):
            raise UsageError(f"input size is from 1 to {_LARGEST_SIDE} pixels, not {self.input_size}")
        if self.interpolation is not None:
            check_interpolation(self.interpolation)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is stated."""
        return tuple(name for name, value in vars(self).items() if value is not None)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to what the source says."""
        return len(self.names) == len(vars(self))

    def apply(self, preprocess: Preprocess) -> Preprocess:
        """Put what is stated into a preprocessing.

        Args:
            preprocess: What the network's source says.

        Returns:
            The preprocessing with what is stated.

        Raises:
            UsageError: For another number of values than the network has channels.
        """
        if self.mean is not None or self.std is not None:
            preprocess = replace(
                preprocess,
                mean=_per_channel(self.mean, preprocess.unit_mean, preprocess.channels, "mean"),
                std=_per_channel(self.std, preprocess.unit_std, preprocess.channels, "std"),
                rescale=1 / 255,
                rescale_offset=0.0,
                std_twice=False,
            )
        if self.input_size is not None:
            size = (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size
            resize_to = None if preprocess.resize_to is None else preprocess.resized_to(size)
            preprocess = replace(preprocess, size=size, resize_to=resize_to, pad_to=None)
        if self.interpolation is not None:
            preprocess = replace(preprocess, interpolation=self.interpolation)
        return preprocess


def check_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Refuse a mean and a standard deviation that are not for values in [0, 1].

    Args:
        mean: Mean of each channel; None if it is not stated.
        std: Standard deviation of each channel; None if it is not stated.

    Raises:
        UsageError: Saying what is likely to be wrong.
    """
    numbers = [*(mean or ()), *(std or ())]
    if not all(math.isfinite(value) for value in numbers):
        raise UsageError("mean and std hold values that are NaN or infinite")
    for name, values in (("mean", mean), ("std", std)):
        shown = ", ".join(f"{value:g}" for value in values or ())
        if any(value > 1 for value in values or ()):
            raise UsageError(
                f"{name} is {shown}, but pixels are from 0 to 1 here: if it is for pixels from 0 to 255, divide mean "
                "and std by 255"
            )
        if any(value < 0 or (name == "std" and value == 0) for value in values or ()):
            bound = "above 0, up to 1" if name == "std" else "from 0 to 1"
            raise UsageError(f"{name} is {shown}: each value is {bound}, as pixels are from 0 to 1")


def _per_channel(values: Sequence[float] | None, own: tuple[float, ...], channels: int, name: str) -> tuple[float, ...]:
    if values is None:
        return own
    if len(values) not in (1, channels):
        raise UsageError(f"{name} has {len(values)} values for {channels} channels")
    return tuple(float(value) for value in values) * (channels if len(values) == 1 else 1)
