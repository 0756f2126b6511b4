"""One image from a path, a PIL image, an array or a tensor, as a LoadedImage."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from encoscope.defaults import BACKGROUND, MAX_PIXELS
from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.file_kind import name_special_kind
from encoscope.images.decode import decode, decode_pil, silence_decoders
from encoscope.images.image import LoadedImage, hash_pixels
from encoscope.images.levels import (
    Channels,
    Color,
    Pixels,
    RawPixels,
    Window,
    as_channels,
    check_size,
    check_window,
    take_bands,
    to_pixels,
)

_NPY, _ZIP = b"\x93NUMPY", b"PK"  # how a .npy file begins, and a .npz file


def read_image(
    source: Any,
    *,
    channels: Channels | None = 3,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
    background: Color = BACKGROUND,
) -> LoadedImage:
    """Read one image, upright, at its own size.

    Args:
        source: A path (of an image, or of an array saved as .npy or alone in a .npz); a PIL image; an array ``[H, W]``
            or ``[H, W, C]``; a tensor ``[C, H, W]`` or ``[H, W, C]``; or a LoadedImage, which is returned with the
            channels requested. Arrays and tensors hold uint8, other unsigned integers, booleans or floats in [0, 1];
            four channels are RGBA. Several images are read by ``read_images``.
        channels: Channels of the result. Grey and color are converted to each other; other numbers must match, and
            take all bands of a file as they are stored, opacity too. None is 3 for grey and color, and all bands of
            what has further ones: to show an image, not to give it to a network. A tuple such as (4, 3, 2) takes these
            bands as they are stored, numbered from 1.
        max_pixels: Files with more pixels, by their header, are refused before they are decoded.
        window: (low, high): the stored values that become 0 and 1; needed for floats outside [0, 1] and for signed
            integers. None for all other images.
        background: The color under transparent pixels: a name, "#rrggbb" or (red, green, blue) from 0 to 255.

    Returns:
        The image: uint8 pixels for 8 bits, float32 pixels in [0, 1] for 16 bits, floats and windowed values.

    Raises:
        MissingError: The file does not exist, or an optional decoder is not installed.
        ImageError: The image cannot be used; the message says why.
        UsageError: The window or the background is wrong.

    Example:
        >>> image = read_image(np.zeros((4, 6), np.uint8))
        >>> (image.height, image.width, image.channels)
        (4, 6, 3)
    """
    check_window(window)
    if isinstance(source, LoadedImage):
        if isinstance(channels, tuple):  # those of an image that was read with bands are these already
            if source.channels == len(channels):
                return source
            white = 255.0 if source.pixels.dtype == np.uint8 else 1.0
            return replace(source, pixels=take_bands(RawPixels(source.pixels, white), channels, None))
        channels = channels or (3 if source.channels == 1 else source.channels)
        return source if source.channels == channels else replace(source, pixels=as_channels(source.pixels, channels))
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source), channels, max_pixels, window, background)
    try:
        if isinstance(source, Image.Image):
            with silence_decoders():
                raw = decode_pil(source, max_pixels, _count_decoded(channels))
        elif isinstance(source, Tensor):
            raw = _from_tensor(source, channels)
        elif isinstance(source, np.ndarray):
            raw = _from_array(source, channels, first=False)
        else:
            raise ImageError(f"{type(source).__name__} is no image: give a path, a PIL image, an array or a tensor")
        pixels = _convert(raw, channels, window, background)
    except ImageError:
        raise
    except OSError as error:  # a PIL image whose file turns out to be broken
        raise ImageError(f"cannot read the image: {' '.join(str(error).split())}") from error
    return LoadedImage(pixels, None, hash_pixels(pixels))


def _convert(raw: RawPixels, channels: Channels | None, window: Window | None, background: Color) -> Pixels:
    if isinstance(channels, tuple):
        return take_bands(raw, channels, window)
    return to_pixels(raw, channels or _count_shown(raw), window, background)


def _count_decoded(channels: Channels | None) -> int:
    """The number of channels that decoders are told: 0 stands for all bands as they are stored."""
    return 0 if isinstance(channels, tuple) else channels or 3


def _count_shown(raw: RawPixels) -> int:
    """3 for grey and color, else as many channels as there are."""
    stored, opacity = raw.values.shape[2], int(raw.alpha is not None)
    colors = stored - opacity if raw.colors is None else raw.colors
    return 3 if colors in (1, 3) and stored == colors + opacity else stored


def _read_file(
    path: Path, channels: Channels | None, max_pixels: int, window: Window | None, background: Color
) -> LoadedImage:
    kind = name_special_kind(path)
    if kind is not None:
        raise ImageError(f"cannot read {path}: it is {kind}, not an image")
    try:
        with path.open("rb") as file:
            head = file.read(6)
            file.seek(0)
            if head == _NPY or (head.startswith(_ZIP) and path.suffix.lower() == ".npz"):
                raw = _from_array(_read_array(path, file), channels, first=False)
                check_size(raw.values.shape[1], raw.values.shape[0], max_pixels)
            else:
                raw = decode(file, max_pixels, window, _count_decoded(channels))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return LoadedImage(_convert(raw, channels, window, background), str(path), digest)
    except FileNotFoundError as error:
        if isinstance(error, EncoscopeError):  # a decoder that is not installed
            raise MissingError(f"cannot read {path}: {error}") from error
        hint = (
            " (an address? nothing is downloaded here: save the image first)"
            if str(path).startswith(("http:/", "https:/"))
            else ""
        )
        raise MissingError(f"no such file: {path}{hint}") from error
    except ImageError as error:
        raise ImageError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error


def _read_array(path: Path, file: Any) -> np.ndarray:
    """The array of a .npy file, or the only one of a .npz file; its layout is found as for an array in memory."""
    try:
        if path.suffix.lower() != ".npz":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(file, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise ImageError(f"it holds {len(archive.files)} arrays where an image is one: save it alone")
            values = archive[archive.files[0]]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        detail = " ".join(str(error).split())
        raise ImageError(f"it is no {path.suffix.lower() or '.npy'} file of numbers: {detail}") from error
    if not isinstance(values, np.ndarray):
        raise ImageError("it holds no array")
    return values


def _from_tensor(tensor: Tensor, channels: Channels | None) -> RawPixels:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    return _from_array(tensor.numpy(), channels, first=True)


def _from_array(values: np.ndarray, channels: Channels | None, first: bool) -> RawPixels:
    """``first``: whether ``[C, H, W]`` is assumed where both layouts are possible (tensors)."""
    shape = values.shape
    if values.ndim == 2:
        values = values[:, :, None]
    elif values.ndim == 3:
        fits = {1, 3, 4, channels}
        if not isinstance(channels, int) and fits.isdisjoint({shape[0], shape[2]}):  # of any number: the shorter axis
            fits.add(min(shape[0], shape[2]))
        if shape[0] in fits and (first or shape[2] not in fits):
            values = values.transpose(1, 2, 0)
        elif shape[2] not in fits:
            raise ImageError(f"an image of shape {shape} has neither {channels} channels nor 1, 3 or 4")
    else:
        raise ImageError(f"an image has 2 or 3 axes, this array has shape {shape}")
    if 0 in values.shape:
        raise ImageError(f"the image is empty: shape {shape}")
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise ImageError(f"an image holds real numbers, not {values.dtype}")
    white = float(np.iinfo(values.dtype).max) if values.dtype.kind in "ui" else 1.0
    return RawPixels(values, white, 3 if values.shape[2] == 4 else None)
