"""Files and PIL images to their stored values, upright: by Pillow, or by other readers for special TIFFs and DICOM."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from encoscope.errors import EncoscopeError, ImageError
from encoscope.images.levels import RawPixels, check_size

# Pillow logs unusual properties of files; without a handler Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_lock = threading.Lock()
_decoding: list[tuple[warnings.catch_warnings[Any], int | None]] = []
_inside = 0


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Switch off decoders' warnings and Pillow's limit of pixels; several threads may do so at once."""
    global _inside
    with _lock:
        if _inside == 0:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.simplefilter("ignore")
            _decoding.append((caught, Image.MAX_IMAGE_PIXELS))
            Image.MAX_IMAGE_PIXELS = None  # check_size has a limit of its own, checked before decoding
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                caught, Image.MAX_IMAGE_PIXELS = _decoding.pop()
                caught.__exit__(None, None, None)


def decode(data: IO[bytes], max_pixels: int, window: tuple[float, float] | None) -> RawPixels:
    """Decode an open file to its stored values.

    Args:
        data: The open file, at its start. Of several frames the first is decoded.
        max_pixels: A file with more pixels, by its header, is refused before it is decoded.
        window: As for ``read_image``; a DICOM file without one uses its own.

    Returns:
        The stored values, upright.

    Raises:
        ImageError: The file is no image, is damaged or too large.
        MissingError: A decoder that is needed is not installed.
    """
    try:
        with silence_decoders():
            return _decode(data, max_pixels, window)
    except UnidentifiedImageError as error:
        raise ImageError("not an image in a known format") from error
    except EncoscopeError:
        raise
    except MemoryError as error:
        raise ImageError("out of memory while decoding it") from error
    except Exception as error:  # decoders raise errors of many kinds
        raise ImageError(_one_line(error)) from error


def _decode(data: IO[bytes], max_pixels: int, window: tuple[float, float] | None) -> RawPixels:
    head = data.read(132)
    data.seek(0)
    if not head:
        raise ImageError("the file is empty (0 bytes)")
    if head[128:132] == b"DICM":
        from encoscope.images.dicom import decode_dicom

        return decode_dicom(data, max_pixels, window)
    try:
        with Image.open(data) as image:
            return decode_pil(image, max_pixels)
    except (UnidentifiedImageError, ValueError):  # ValueError: Pillow knows the format, but not the layout of the bands
        if head[:4] not in _TIFF:
            raise
        from encoscope.images.tiff import decode_tiff

        data.seek(0)
        return decode_tiff(data, max_pixels)


def decode_pil(image: Image.Image, max_pixels: int) -> RawPixels:
    """Convert a PIL image of any mode to its stored values, turned according to its EXIF orientation.

    Args:
        image: The image; it may not be loaded yet.
        max_pixels: The largest number of pixels.

    Returns:
        The stored values, upright.

    Raises:
        ImageError: The image is too large.
    """
    check_size(image.width, image.height, max_pixels)
    tags = getattr(image, "tag_v2", {})
    tiles = getattr(image, "tile", [])
    rawmode = str(tiles[0].args) if tiles else ""
    image.load()
    image = _upright(image)
    if image.mode.startswith("I;16"):
        white = float(2 ** max(tags.get(_BITS, (16,))) - 1)  # 12-bit TIFFs come in 16-bit words
        values = np.asarray(image).astype(np.uint16)[:, :, None]
        return RawPixels(np.uint16(white) - values if tags.get(_PHOTOMETRIC) == 0 else values, white)
    if image.mode == "I":
        values = np.asarray(image)[:, :, None]
        return RawPixels(values.astype(np.uint16), 65535.0) if image.format == "PPM" else RawPixels(values, np.inf)
    if image.mode == "F":
        return RawPixels(np.asarray(image)[:, :, None], 1.0)
    if image.has_transparency_data:
        values, alpha = np.asarray(image.convert("RGBA")), True
    elif image.mode in ("1", "L"):
        values, alpha = np.asarray(image.convert("L"))[:, :, None], False
    else:
        values, alpha = np.asarray(image if image.mode == "RGB" else image.convert("RGB")), False
    if ";16" in rawmode:  # Pillow keeps the high byte of 16-bit color, but a window is in 16-bit values
        return RawPixels(values.astype(np.uint16) * 257, 65535.0, alpha)
    return RawPixels(values, 255.0, alpha)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block: the orientation is unknown, the pixels are still valid
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # palette transparency
    return turned


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
