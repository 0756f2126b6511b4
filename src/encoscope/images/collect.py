"""Many images: the files of paths, folders and datasets, and a stream of images that skips those it cannot read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from encoscope.defaults import BACKGROUND, MAX_PIXELS
from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.images.datasets import is_dataset, open_dataset
from encoscope.images.folders import find_image_files
from encoscope.images.image import LoadedImage, SkippedImage
from encoscope.images.levels import Channels, Color, Window
from encoscope.images.read import read_image


def collect_files(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the image files that paths and dataset strings stand for.

    Args:
        inputs: A path, a dataset string, or several of these. A file stands for itself, whatever its name; a folder for
            all files below it with a known suffix, sorted, without hidden ones.

    Returns:
        The files in this order, each once.

    Raises:
        MissingError: A path does not exist, or a folder has no images.
    """
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    unique: dict[str, Path] = {}
    for path in map(Path, inputs):
        if is_dataset(path):
            files = list(open_dataset(path).paths)
        elif path.is_dir():
            files = find_image_files(path)
        elif path.exists():
            files = [path]
        else:
            raise MissingError(f"no such file or folder: {path}")
        for file in files:
            unique.setdefault(os.path.abspath(file), file)  # noqa: PTH100 - symbolic links stay apart
    return list(unique.values())


def read_images(
    inputs: Any,
    *,
    channels: Channels = 3,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
    background: Color = BACKGROUND,
) -> Iterator[LoadedImage | SkippedImage]:
    """Read images one after the other, so that one is in memory at a time.

    Args:
        inputs: A path, a folder, a dataset string, a PIL image, an array, a tensor, a LoadedImage, or an iterable or a
            torch dataset of these. An item of a dataset may be a tuple that begins with the image; an array or a tensor
            with four axes is a batch of images.
        channels: As for ``read_image``.
        max_pixels: As for ``read_image``.
        window: As for ``read_image``.
        background: As for ``read_image``.

    Yields:
        The images in order; a SkippedImage in place of each that cannot be read.

    Raises:
        ImageError: ``inputs`` is neither an image nor a collection.
        UsageError: The window or the background is wrong.

    Example:
        >>> [image.width for image in read_images(np.zeros((2, 4, 6, 3), np.uint8))]
        [6, 6]
    """
    for number, source in enumerate(_sources(inputs)):
        if isinstance(source, SkippedImage):
            yield source
            continue
        try:
            yield read_image(source, channels=channels, max_pixels=max_pixels, window=window, background=background)
        except (ImageError, MissingError) as error:
            name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"image {number}"
            yield SkippedImage(str(name), str(error))


def _sources(inputs: Any) -> Iterator[Any]:
    if isinstance(inputs, str | os.PathLike):
        try:
            yield from collect_files(inputs)
        except EncoscopeError as error:
            yield SkippedImage(str(inputs), str(error))
    elif isinstance(inputs, LoadedImage | SkippedImage | Image.Image):
        yield inputs
    elif isinstance(inputs, Tensor | np.ndarray):
        yield from inputs if inputs.ndim == 4 else [inputs]
    elif (
        isinstance(inputs, tuple)
        and len(inputs)
        and isinstance(inputs[0], LoadedImage | Image.Image | Tensor | np.ndarray)
    ):
        yield from _sources(inputs[0])  # a dataset's (image, label)
    else:
        for item in _items(inputs):
            yield from _sources(item)


def _items(inputs: Any) -> Iterable[Any]:
    if hasattr(inputs, "__iter__"):
        return inputs
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):  # a map-style torch dataset
        return (inputs[index] for index in range(len(inputs)))
    raise ImageError(f"{type(inputs).__name__} is neither an image nor a collection of images")
