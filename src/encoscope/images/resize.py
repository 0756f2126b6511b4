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
    """Resize to (height, width), dtype kept; floats are clipped to [0, 1], as bytes are to 0 and 255."""
    if interpolation not in _FILTERS:
        raise UsageError(
            f"unknown interpolation {interpolation!r}{suggest_nearest(interpolation, _FILTERS)}: {', '.join(_FILTERS)}"
        )
    if pixels.shape[:2] == size:
        return pixels
    how, target = _FILTERS[interpolation], (size[1], size[0])
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(target, how))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(target, how))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    resized = np.stack(planes, axis=2)
    return resized if resized.dtype == np.uint8 else np.clip(resized, 0, 1)
