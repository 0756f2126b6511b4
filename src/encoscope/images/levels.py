"""From stored values of any depth to the pixels of a LoadedImage: window, range, alpha, number of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt8
from PIL import Image, ImageColor

from encoscope.counting import count_noun
from encoscope.errors import ImageError, UsageError

Color: TypeAlias = str | tuple[int, int, int]
Window: TypeAlias = tuple[float, float]
Channels: TypeAlias = int | tuple[int, ...]
"""Number of channels of an image, or the bands of a file that they are, numbered from 1."""
# a function may change the sides: names that are not bound to its other arguments
Pixels: TypeAlias = UInt8[np.ndarray, "_height _width _channels"] | Float32[np.ndarray, "_height _width _channels"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's mode L
_SLACK = 1e-4  # floats slightly outside [0, 1], as after resizing or compression, are clipped, not refused


@dataclass(frozen=True, eq=False)
class RawPixels:
    """Values as they are stored in a file or an array.

    Attributes:
        values: ``[height, width, channels]`` of any real dtype.
        white: For integers the stored value that means 1.0.
        alpha: The index of the channel that is opacity; None where none is.
        is_premultiplied: Whether the other channels are stored multiplied by opacity ("associated alpha").
        colors: How many channels, the first ones, are color or grey; None for all but opacity.
    """

    values: Shaped[np.ndarray, "height width channels"]
    white: float
    alpha: int | None = None
    is_premultiplied: bool = False
    colors: int | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check that an image is not too large.

    Args:
        width: Pixels.
        height: Pixels.
        max_pixels: The largest number of pixels.

    Raises:
        ImageError: There are more pixels; the message says what to do.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} is {width * height:,} pixels, more than the limit of {max_pixels:,}: "
            "make it smaller, or raise max_pixels"
        )


def to_pixels(raw: RawPixels, channels: int, window: Window | None, background: Color) -> Pixels:
    """Convert stored values to the pixels of a LoadedImage.

    Args:
        raw: Stored values. 8-bit values stay as they are; other unsigned integers are divided by the value of white;
            floats must lie in [0, 1].
        channels: Number of channels of the result. Grey and color are converted to each other; for another number than
            1 and 3 all channels are taken as they are stored, opacity too.
        window: (low, high): low is mapped to 0 and high to 1, and values are clipped, whatever the dtype; None for
            none.
        background: The color under transparent pixels, if one or three channels are requested.

    Returns:
        uint8 pixels, or float32 pixels in [0, 1].

    Raises:
        ImageError: The values need a window, are NaN or infinite, or their channels do not fit.
    """
    if channels not in (1, 3):
        return as_channels(_scale(raw.values, raw.white, window), channels)
    stored = raw.values.shape[2]
    opacity = int(raw.alpha is not None)
    colors = stored - opacity if raw.colors is None else raw.colors
    if stored > colors + opacity:
        raise ImageError(
            f"the image has {stored} channels where {channels} are needed, and {stored - colors - opacity} of them are "
            f"neither color nor opacity: {_bands_cure(stored)}"
        )
    values = raw.values[..., :colors]
    if raw.alpha is None or np.all(raw.values[..., raw.alpha] >= raw.white):
        return as_channels(_scale(values, raw.white, window), channels)
    alpha = (raw.values[..., raw.alpha].astype(np.float64) / raw.white).clip(0, 1)
    if raw.is_premultiplied:
        return as_channels(_add_background(values, alpha, raw.white, window, background), channels)
    return as_channels(_composite(_scale(values, raw.white, window), alpha, background), channels)


def take_bands(raw: RawPixels, bands: tuple[int, ...], window: Window | None) -> Pixels:
    """Take some of the bands as they are stored.

    Args:
        raw: Stored values.
        bands: The bands, numbered from 1, in the order of the result's channels.
        window: As for ``to_pixels``.

    Returns:
        The pixels of these bands.

    Raises:
        ImageError: There is no such band, or the values cannot be used.
    """
    stored = raw.values.shape[2]
    if max(bands) > stored:
        raise ImageError(f"the image has {count_noun(stored, 'band')}, and band {max(bands)} of it is requested")
    return _scale(raw.values[..., [band - 1 for band in bands]], raw.white, window)


def as_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert pixels from grey to color, or from color to grey (luma of ITU-R 601).

    Args:
        pixels: The pixels.
        channels: Number of channels of the result.

    Returns:
        The pixels with this number of channels.

    Raises:
        ImageError: The numbers of channels differ, and are not 1 and 3.

    Example:
        >>> as_channels(np.full((1, 1, 1), 7, np.uint8), 3).tolist()
        [[[7, 7, 7]]]
    """
    current = pixels.shape[2]
    if current == channels:
        return pixels
    if current == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if current == 3 and channels == 1:
        if pixels.dtype == np.uint8:
            return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        return (pixels @ _LUMA)[:, :, None]
    raise ImageError(f"the image has {current} channels where {channels} are needed: {_bands_cure(current)}")


def _bands_cure(channels: int) -> str:
    return f"save those to use as a file of their own, or take a network of {channels} channels"


def _scale(values: np.ndarray, white: float, window: Window | None) -> Pixels:
    kind = values.dtype.kind
    if kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"the image holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite")
    if window is not None:
        low, high = window
        scaled = (values.astype(np.float64) - low) / (high - low)
        return np.clip(scaled, 0, 1).astype(np.float32)
    if values.dtype == np.uint8 and white == 255:
        return np.array(values, order="C")  # a copy: a LoadedImage does not change when its source array does
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
        f"{values.dtype.name} values have no standard value of white, and this image spans [{low:g}, {high:g}]: "
        f"give a window, such as window=({low:g}, {high:g})"
    )


def _add_background(
    values: np.ndarray,
    alpha: Float64[np.ndarray, "height width"],
    white: float,
    window: Window | None,
    background: Color,
) -> Pixels:
    """Composite values that are stored multiplied by their opacity: they are not divided by it first."""
    low, high = window or (0.0, white)
    share = alpha[:, :, None]
    foreground = ((values.astype(np.float64) - low * share) / (high - low)).clip(0, share)
    if foreground.shape[2] == 1:
        foreground = np.repeat(foreground, 3, axis=2)
    pixels = foreground + np.asarray(parse_color(background), dtype=np.float64) / 255 * (1 - share)
    if values.dtype == np.uint8 and white == 255 and window is None:
        return np.rint(pixels * 255).astype(np.uint8)
    return pixels.astype(np.float32)


def _composite(pixels: Pixels, alpha: Float64[np.ndarray, "height width"], background: Color) -> Pixels:
    color = parse_color(background)
    foreground = as_channels(pixels, 3)
    if pixels.dtype == np.uint8:
        canvas = Image.new("RGB", foreground.shape[1::-1], color)
        canvas.paste(Image.fromarray(foreground), mask=Image.fromarray(np.round(alpha * 255).astype(np.uint8)))
        return np.asarray(canvas)
    share = alpha[:, :, None].astype(np.float32)
    return foreground * share + np.asarray(color, dtype=np.float32) / 255 * (1 - share)


def parse_color(color: Color) -> tuple[int, int, int]:
    """Convert a color to numbers.

    Args:
        color: A name, ``#rrggbb``, or (red, green, blue) from 0 to 255.

    Returns:
        (red, green, blue) from 0 to 255.

    Raises:
        UsageError: It is none of these.

    Example:
        >>> parse_color("white")
        (255, 255, 255)
    """
    try:
        if isinstance(color, str):
            red, green, blue = ImageColor.getrgb(color)[:3]
        else:
            red, green, blue = (int(value) for value in color)
    except (ValueError, TypeError) as error:
        raise UsageError(f"not a color: {color!r} (give a name, '#rrggbb', or three numbers from 0 to 255)") from error
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise UsageError(f"not a color: {color!r} (numbers go from 0 to 255)")
    return red, green, blue


def check_window(window: Window | None) -> None:
    """Check that a window is (low, high) with low < high.

    Args:
        window: The window; None for none.

    Raises:
        UsageError: It is not.
    """
    if window is not None and not (len(window) == 2 and window[0] < window[1]):
        raise UsageError(f"a window is (low, high) with low < high, not {window!r}")
