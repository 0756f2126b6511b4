"""Preprocessing that the user states in place of what a network's source says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from encoscope.counting import count_noun
from encoscope.errors import UsageError
from encoscope.images.geometry import Preprocess
from encoscope.images.resize import check_interpolation

_LARGEST_SIDE = 16_384  # pixels
_MOST_CHANNELS = 4096


@dataclass(frozen=True)
class StatedPreprocess:
    """What the user states; None leaves what the network's source says.

    Attributes:
        mean: Mean of each channel, or one for all, for values in [0, 1].
        std: Standard deviation of each channel, or one for all, for values in [0, 1].
        input_size: Side, or (height, width), of the input in pixels.
        interpolation: How images are resized.
        bands: The bands of a file that are the network's channels, numbered from 1.
        channels: Number of channels of the input.
    """

    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    input_size: int | tuple[int, int] | None = None
    interpolation: str | None = None
    bands: Sequence[int] | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, read_numbers(getattr(self, name), name))
        check_normalization(read_numbers(self.mean, "mean"), read_numbers(self.std, "std"))
        if self.input_size is not None:
            object.__setattr__(self, "input_size", read_size(self.input_size))
        if self.interpolation is not None:
            check_interpolation(self.interpolation)
        bands = self.bands if isinstance(self.bands, list | tuple) else []
        if self.bands is not None and (not bands or not all(isinstance(band, int) and band > 0 for band in bands)):
            raise UsageError(f"bands are numbers from 1 on, such as (4, 3, 2), not {self.bands!r}")
        if self.channels is not None and not (isinstance(self.channels, int) and 0 < self.channels <= _MOST_CHANNELS):
            raise UsageError(f"channels is a number from 1 to {_MOST_CHANNELS}, not {self.channels!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is stated."""
        return tuple(name for name, value in vars(self).items() if value is not None)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to what the source says of how pixels are prepared."""
        return None not in (self.mean, self.std, self.input_size, self.interpolation)

    def apply(self, preprocess: Preprocess) -> Preprocess:
        """Put what is stated into a preprocessing.

        Args:
            preprocess: What the network's source says.

        Returns:
            The preprocessing with what is stated.

        Raises:
            UsageError: For another number of values than the network has channels.
        """
        if self.channels is not None and self.channels != preprocess.channels:
            of_each = {name: getattr(preprocess, name) for name in ("mean", "std")}  # else the mean of the source's own
            spread = {name: (sum(values) / len(values),) * self.channels for name, values in of_each.items()}
            preprocess = replace(preprocess, channels=self.channels, bands=None, **spread)
        if self.mean is not None or self.std is not None:
            preprocess = replace(
                preprocess,
                mean=_per_channel(read_numbers(self.mean, "mean"), preprocess.unit_mean, preprocess.channels, "mean"),
                std=_per_channel(read_numbers(self.std, "std"), preprocess.unit_std, preprocess.channels, "std"),
                rescale=1 / 255,
                rescale_offset=0.0,
                std_twice=False,
            )
        if self.input_size is not None:
            size = read_size(self.input_size)
            resize_to = None if preprocess.resize_to is None else preprocess.resized_to(size)
            preprocess = replace(preprocess, size=size, resize_to=resize_to, pad_to=None)
        if self.interpolation is not None:
            preprocess = replace(preprocess, interpolation=self.interpolation)
        if self.bands is not None:
            if len(self.bands) != preprocess.channels:
                raise UsageError(
                    f"{count_noun(len(self.bands), 'band')} for a network of {preprocess.channels} channels: name a "
                    "band for each channel"
                )
            preprocess = replace(preprocess, bands=tuple(self.bands))
        return preprocess


def read_numbers(values: Any, name: str) -> tuple[float, ...] | None:
    """Read one number, or one for each channel.

    Args:
        values: The numbers.
        name: What they are, for the message.

    Returns:
        The numbers; None for None.

    Raises:
        UsageError: For anything else.
    """
    if values is None:
        return None
    try:
        if isinstance(values, str):
            raise ValueError
        return tuple(float(value) for value in ((values,) if isinstance(values, Real) else values))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is a number, or one for each channel, not {values!r}") from None


def read_size(size: Any) -> tuple[int, int]:
    """Read the size of a network's input.

    Args:
        size: The side, or (height, width), in pixels.

    Returns:
        (height, width).

    Raises:
        UsageError: For anything else, and for sides that no network has.
    """
    sides = (size, size) if isinstance(size, Integral) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) for side in sides):
        raise UsageError(f"the input size is a number of pixels, or (height, width), not {size!r}")
    height, width = int(sides[0]), int(sides[1])
    if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE):
        raise UsageError(f"input size is from 1 to {_LARGEST_SIDE} pixels, not {size}")
    return height, width


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
