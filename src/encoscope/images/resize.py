"""Antialiased resizing as timm and torchvision do it for PIL images: Pillow, channel by channel for floats."""

from __future__ import annotations

import numpy as np
from PIL import Image

from encoscope.errors import UsageError, suggest_nearest
from encoscope.images.levels import Pixels

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def resize_image(pixels: Pixels, size: tuple[int, int], interpolation: str = "bicubic") -> Pixels:
    """Resize pixels as Pillow does, antialiased.

    Args:
        pixels: uint8, or float32 in [0, 1].
        size: (height, width) of the result.
        interpolation: "nearest", "bilinear", "bicubic", "lanczos", "box" or "hamming".

    Returns:
        The pixels, of the same dtype; values beyond its range are clipped.

    Raises:
        UsageError: The interpolation is unknown.

    Example:
        >>> resize_image(np.full((4, 4, 3), 9, np.uint8), (2, 2)).shape
        (2, 2, 3)
    """
    check_interpolation(interpolation)
    if pixels.shape[:2] == size:
        return pixels
    method, target = _FILTERS[interpolation], (size[1], size[0])
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(target, method))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(target, method))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    resized = np.stack(planes, axis=2)
    return resized if resized.dtype == np.uint8 else np.clip(resized, 0, 1)


def check_interpolation(interpolation: str) -> None:
    """Refuse an interpolation that is not known.

    Args:
        interpolation: Its name.

    Raises:
        UsageError: Naming those that are known.
    """
    if interpolation not in _FILTERS:
        raise UsageError(
            f"unknown interpolation {interpolation!r}{suggest_nearest(interpolation, _FILTERS)}: {', '.join(_FILTERS)}"
        )
