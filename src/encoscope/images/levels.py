"""From stored values of any depth to the pixels of a Photo: window, range, alpha, number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image, ImageColor

from encoscope.errors import ImageError, UsageError

Color: TypeAlias = str | tuple[int, int, int]
Window: TypeAlias = tuple[float, float]
# sides that a function may change: not bound to its other arguments
Pixels: TypeAlias = UInt8[np.ndarray, "_height _width _channels"] | Float32[np.ndarray, "_height _width _channels"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's mode L
_SLACK = 1e-4  # floats that resizing or compression left a hair outside [0, 1] are clipped, not refused


@dataclass(frozen=True, eq=False)
class RawPixels:
    """Values as a file or an array holds them.

    values: ``[height, width, channels]``, any real dtype. white: the stored value that means 1.0, for integers.
    alpha: whether the last channel is opacity.
    """

    values: Shaped[np.ndarray, "height width channels"]
    white: float
    alpha: bool = False


def check_size(width: int, height: int, max_pixels: int) -> None:
    """ImageError when an image is larger than the limit, with its size and the cure."""
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} is {width * height:,} pixels, more than the limit of {max_pixels:,}: "
            "make it smaller, or raise max_pixels"
        )


def to_pixels(raw: RawPixels, channels: int, window: Window | None, background: Color) -> Pixels:
    """Stored values to the pixels of a Photo with ``channels`` channels.

    8-bit values stay as they are; other unsigned integers are divided by the value of white; floats must lie in
    [0, 1]. ``window`` = (low, high) instead maps low to 0 and high to 1, clipped, whatever the dtype. Opacity is
    composited on ``background`` where one or three channels are asked for; grey and colour turn into each other.
    Raises ImageError for values that need a window, NaN, and channels that do not fit.
    """
    values, alpha = raw.values, None
    if raw.alpha and channels in (1, 3):
        alpha = values[..., -1].astype(np.float32) / raw.white
        values = values[..., :-1]
    pixels = _scaled(values, raw.white, window)
    if alpha is not None and alpha.min() < 1:
        pixels = _composited(pixels, alpha, background)
    return as_channels(pixels, channels)


def as_channels(pixels: Pixels, channels: int) -> Pixels:
    """Grey to colour or colour to grey (ITU-R 601 luma); ImageError when the numbers of channels do not fit."""
    have = pixels.shape[2]
    if have == channels:
        return pixels
    if have == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if have == 3 and channels == 1:
        if pixels.dtype == np.uint8:
            return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        return (pixels @ _LUMA)[:, :, None]
    raise ImageError(f"the image has {have} channels where {channels} are needed")


def _scaled(values: np.ndarray, white: float, window: Window | None) -> Pixels:
    kind = values.dtype.kind
    if kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"the image holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite")
    if window is not None:
        low, high = window
        scaled = (values.astype(np.float64) - low) / (high - low)
        return np.clip(scaled, 0, 1).astype(np.float32)
    if values.dtype == np.uint8 and white == 255:
        return np.array(values, order="C")  # a copy: a Photo does not change with the array it came from
    low, high = (values.min().item(), values.max().item())
    if kind == "f":
        if low < -_SLACK or high > 1 + _SLACK:
            raise ImageError(
                f"a floating-point image must lie in [0, 1], this one spans [{low:g}, {high:g}]: "
                f"give a window, such as window=({low:g}, {high:g})"
            )
        return np.clip(values, 0, 1).astype(np.float32)
    if kind == "u":
        return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)
    raise ImageError(
        f"{values.dtype.name} values have no agreed white, this image spans [{low:g}, {high:g}]: "
        f"give a window, such as window=({low:g}, {high:g})"
    )


def _composited(pixels: Pixels, alpha: Float32[np.ndarray, "height width"], background: Color) -> Pixels:
    colour = parse_color(background)
    if pixels.dtype == np.uint8:
        colours = as_channels(pixels, 3)
        canvas = Image.new("RGB", colours.shape[1::-1], colour)
        canvas.paste(Image.fromarray(colours), mask=Image.fromarray(np.round(alpha * 255).astype(np.uint8)))
        return np.asarray(canvas)
    colours = as_channels(pixels, 3)
    share = np.clip(alpha, 0, 1)[:, :, None]
    return colours * share + np.asarray(colour, dtype=np.float32) / 255 * (1 - share)


def parse_color(colour: Color) -> tuple[int, int, int]:
    """A colour's name, ``#rrggbb`` or (red, green, blue) in 0 to 255, as the latter; UsageError when it is none."""
    try:
        if isinstance(colour, str):
            red, green, blue = ImageColor.getrgb(colour)[:3]
        else:
            red, green, blue = (int(value) for value in colour)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"not a colour: {colour!r} (give a name, '#rrggbb', or three numbers from 0 to 255)"
        ) from error
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise UsageError(f"not a colour: {colour!r} (numbers go from 0 to 255)")
    return red, green, blue


def check_window(window: Window | None) -> None:
    """UsageError unless low < high."""
    if window is not None and not (len(window) == 2 and window[0] < window[1]):
        raise UsageError(f"a window is (low, high) with low < high, not {window!r}")
