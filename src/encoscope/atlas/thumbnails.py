"""Pictures of a site: WebP files named by their content, so that a picture that is used twice is stored once."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope import plots, results
from encoscope.atlas.layout import IMAGES
from encoscope.atlas.records import ImageFile
from encoscope.errors import UsageError

QUALITY = 82


def save_image(site: Path, image: Any, *, side: int | None = None, quality: int = QUALITY) -> ImageFile:
    """Write a picture into a site.

    Args:
        site: The site's folder.
        image: A PIL image, a ``LoadedImage``, or pixels ``[height, width, channels]`` (uint8, or floats in [0, 1]; four
            channels are color and opacity).
        side: The long side is made at most this many pixels; None keeps the size.
        quality: Of the WebP file, 0 to 100.

    Returns:
        The file's name and size.

    Raises:
        UsageError: Pixels of another shape.
    """
    shown = image if isinstance(image, Image.Image) else _to_image(image)
    if shown.mode not in ("RGB", "RGBA"):
        shown = shown.convert("RGB")
    if side is not None and max(shown.size) > side:
        scale = side / max(shown.size)
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=quality, method=4)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:32]
    name = f"{digest[:2]}/{digest}.webp"
    file = site / IMAGES / name
    if not file.is_file():
        with results.atomic_write(file) as temporary:
            temporary.write_bytes(content)
    return ImageFile(name, shown.width, shown.height)


def _to_image(image: Any) -> Image.Image:
    pixels = np.asarray(getattr(image, "pixels", image))
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if pixels.dtype != np.uint8:
            pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
        return Image.fromarray(pixels, "RGBA")
    if pixels.ndim != 3:
        raise UsageError(f"a picture has shape [height, width, channels], not {pixels.shape}")
    return Image.fromarray(plots.to_rgb(pixels))
