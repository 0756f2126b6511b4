"""All bands of a file at full depth, by Pillow: what its color modes would drop, round or divide by opacity."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from encoscope.errors import ImageError

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_bytes(data: Any, mode: str, layout: str | None = None) -> UInt8[np.ndarray, "height width bands"]:
    """Decode a file as if its pixels were bytes of another mode.

    Args:
        data: The open file; it is read from its start.
        mode: Pillow's mode with as many bands of 8 bits as the result shall have.
        layout: Pillow's name ("raw mode") for how a pixel's bytes lie in the file; the mode's own if left out.

    Returns:
        The bytes of each pixel, upright.
    """
    data.seek(0)
    with Image.open(data) as image:
        image._mode = mode
        image.tile = [tile._replace(args=_replace_layout(tile.args, layout or mode)) for tile in image.tile]
        image.load()
        return np.asarray(turn_upright(image))


def decode_words(data: Any, bands: int) -> UInt16[np.ndarray, "height width bands"]:
    """Decode a file of 16-bit color.

    Pillow keeps one byte of each value, and which one depends on the byte order it is told: so it is told both.

    Args:
        data: The open file, of 2 (PNG), 3 or 4 bands; it is read from its start.
        bands: Their number.

    Returns:
        The values as the file has them, upright.

    Raises:
        ImageError: For another number of bands.
    """
    data.seek(0)
    with Image.open(data) as image:
        is_png = image.format == "PNG"
        arguments: Any = image.tile[0].args
        layout = str(arguments if is_png else arguments[0])
    if bands == 2 and is_png:
        pairs = decode_bytes(data, "RGBA").astype(np.uint16)
        return pairs[..., 0::2] * 256 + pairs[..., 1::2]
    if bands not in (3, 4):
        raise ImageError(f"16-bit color of {bands} bands")
    mode = "RGB" if bands == 3 else "RGBA"
    # libtiff gives words in the machine's own order, "N"
    is_big = layout.endswith("B") or (layout.endswith("N") and sys.byteorder == "big")
    big, little = (decode_bytes(data, mode, f"{mode};16{order}").astype(np.uint16) for order in "BL")
    return big * 256 + little if is_big else little * 256 + big


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image according to its EXIF orientation.

    Args:
        image: The image, loaded.

    Returns:
        The upright image, with the same ``info``.
    """
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block: the orientation is unknown, the pixels are still valid
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # palette transparency
    return turned


def _replace_layout(arguments: Any, layout: str) -> Any:
    return (layout, *arguments[1:]) if isinstance(arguments, tuple) else layout
