"""Files and PIL images to their stored values, upright: by Pillow, or by other readers for special TIFFs and DICOM."""

from __future__ import annotations

import logging
import math
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from encoscope.errors import EncoscopeError, ImageError
from encoscope.images.bands import decode_words, turn_upright
from encoscope.images.levels import RawPixels, check_size
from encoscope.images.tiff import decode_tiff, read_layout

# Pillow logs unusual properties of files; without a handler Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P([36])" + _SPACE + rb"\d+" + _SPACE + rb"\d+" + _SPACE + rb"(\d{1,5})\s")

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


def decode(data: Any, max_pixels: int, window: tuple[float, float] | None, channels: int = 3) -> RawPixels:
    """Decode an open file to its stored values.

    Args:
        data: The open file, at its start. Of several frames the first is decoded.
        max_pixels: A file with more pixels, by its header, is refused before it is decoded.
        window: As for ``read_image``; a DICOM file without one uses its own.
        channels: As for ``read_image``: of a TIFF, other numbers than 1 and 3 take all bands as they are stored.

    Returns:
        The stored values, upright.

    Raises:
        ImageError: The file is no image, is damaged or too large.
        MissingError: A decoder that is needed is not installed.
    """
    try:
        with silence_decoders():
            return _decode(data, max_pixels, window, channels)
    except UnidentifiedImageError as error:
        raise ImageError("not an image in a known format") from error
    except EncoscopeError:
        raise
    except MemoryError as error:
        raise ImageError("out of memory while decoding it") from error
    except Exception as error:  # decoders raise errors of many kinds
        raise ImageError(_one_line(error)) from error


def _decode(data: Any, max_pixels: int, window: tuple[float, float] | None, channels: int) -> RawPixels:
    head = data.read(132)
    data.seek(0)
    if not head:
        raise ImageError("the file is empty (0 bytes)")
    if head[128:132] == b"DICM":
        from encoscope.images.dicom import decode_dicom

        return decode_dicom(data, max_pixels, window)
    if head[4:8] == b"ftyp" and b"avif" in head[8:40]:
        _check_avif(data)
    try:
        with Image.open(data) as image:
            return decode_pil(image, max_pixels, channels, data)
    except (UnidentifiedImageError, ValueError):  # ValueError: Pillow knows the format, but not the layout of the bands
        if head[:4] not in _TIFF:
            raise
        return decode_tiff(data, max_pixels, channels)


def decode_pil(image: Image.Image, max_pixels: int, channels: int = 3, data: Any | None = None) -> RawPixels:
    """Convert a PIL image of any mode to its stored values, turned according to its EXIF orientation.

    Args:
        image: The image; it may not be loaded yet.
        max_pixels: The largest number of pixels.
        channels: As for ``decode``.
        data: The open file, to read what Pillow's modes do not hold; the image's own if left out. An image that is
            loaded already holds what Pillow kept.

    Returns:
        The stored values, upright.

    Raises:
        ImageError: The image is too large.
    """
    check_size(image.width, image.height, max_pixels)
    tiles = getattr(image, "tile", [])
    data = data or (getattr(image, "fp", None) if tiles and image.tell() == 0 else None)
    if image.format == "AVIF":
        _check_avif(data or getattr(image, "fp", None))
    if data is not None and tiles:
        raw = _decode_bands(image, data, str(tiles[0].args), max_pixels, channels)
        if raw is not None:
            return raw
    return _convert(image)


def _decode_bands(image: Image.Image, data: Any, layout: str, max_pixels: int, channels: int) -> RawPixels | None:
    """The bands of a file that Pillow's modes hold in part; None for one that they hold."""
    if image.format == "TIFF":
        tiff = read_layout(image)
        whole = tiff.is_plain and channels in (1, 3)
        return None if whole else decode_tiff(data, max_pixels, channels, tiff)
    if image.format == "PNG" and ";16" in layout and image.mode in ("RGB", "RGBA", "LA"):
        bands = 2 if layout.startswith("LA") else len(image.mode)
        values, clear = decode_words(data, bands), image.info.get("transparency")
        if bands != 3 or clear is None:
            return RawPixels(values, 65535.0, None if bands == 3 else bands - 1)
        opaque = (values != np.asarray(clear, dtype=np.uint16)).any(2, keepdims=True)
        return RawPixels(np.concatenate([values, opaque * np.uint16(65535)], 2), 65535.0, 3)
    if image.format == "PPM" and image.mode == "RGB":
        raw = _decode_ppm(data, image)
        data.seek(0)
        return raw
    if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA", "LA"):
        _check_jpeg2000(data)
    return None


def _decode_ppm(data: Any, image: Image.Image) -> RawPixels | None:
    """A PPM of more than 8 bits; None for other ones."""
    data.seek(0)
    head = _PPM.match(data.read(4096))
    white = int(head[2]) if head else 0
    if head is None or not 255 < white <= 65535:
        return None
    data.seek(head.end())
    shape = (image.height, image.width, 3)
    if head[1] == b"6":
        values = np.frombuffer(data.read(2 * math.prod(shape)), dtype=">u2")
    else:
        values = np.array(re.sub(rb"#[^\n]*", b"", data.read()).split(), dtype=np.int64)[: math.prod(shape)]
    if len(values) < math.prod(shape):
        raise ImageError("the file is cut off")
    return RawPixels(values.astype(np.uint16).reshape(shape), float(white))


def _check_jpeg2000(data: Any) -> None:
    """Refuse color of more than 8 bits, of which Pillow keeps 8."""
    data.seek(0)
    _, start, sizes = data.read(4096).partition(b"\xff\x4f\xff\x51")
    bits = (sizes[38] & 0x7F) + 1 if start and len(sizes) > 38 else 8
    if bits > 8:
        raise ImageError(f"JPEG 2000 color of {bits} bits is not read at full depth: save it as PNG or TIFF")


def _check_avif(data: Any) -> None:
    """Refuse an AVIF of more than 8 bits, of which Pillow keeps 8; nothing is known of one that is loaded already."""
    if data is None or getattr(data, "closed", False):
        return
    start = data.tell()
    data.seek(0)
    _, marker, settings = data.read(65536).partition(b"av1C")
    data.seek(start)
    if marker and len(settings) > 2 and settings[2] & 0x40:
        bits = 12 if settings[2] & 0x20 else 10
        raise ImageError(f"AVIF color of {bits} bits is not read at full depth: save it as PNG or TIFF")


def _convert(image: Image.Image) -> RawPixels:
    """What Pillow itself has of an image."""
    tags = getattr(image, "tag_v2", {})
    image.load()
    clear = image.info.get("transparency") if image.format == "PNG" else None
    image = turn_upright(image)
    if image.mode.startswith("I;16"):
        white = float(2 ** max(tags.get(_BITS, (16,))) - 1)  # 12-bit TIFFs come in 16-bit words
        values = np.asarray(image).astype(np.uint16)[:, :, None]
        values = np.uint16(white) - values if tags.get(_PHOTOMETRIC) == 0 else values
        if isinstance(clear, int):
            return RawPixels(np.concatenate([values, (values != clear) * np.uint16(65535)], 2), white, 1)
        return RawPixels(values, white)
    if image.mode == "I":
        values = np.asarray(image)[:, :, None]
        return RawPixels(values.astype(np.uint16), 65535.0) if image.format == "PPM" else RawPixels(values, np.inf)
    if image.mode == "F":
        return RawPixels(np.asarray(image)[:, :, None], 1.0)
    if image.mode == "LA":
        return RawPixels(np.asarray(image), 255.0, 1)
    if image.mode in ("RGBa", "La"):
        return RawPixels(np.asarray(image), 255.0, len(image.mode) - 1, True)
    if image.has_transparency_data:
        return RawPixels(np.asarray(image.convert("RGBA")), 255.0, 3)
    if image.mode in ("1", "L"):
        return RawPixels(np.asarray(image.convert("L"))[:, :, None], 255.0)
    return RawPixels(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), 255.0)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
