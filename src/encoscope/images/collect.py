"""Many images: files and folders to paths, and a stream of photos that goes on past the bad ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from encoscope.errors import EncoscopeError, ImageError, MissingError
from encoscope.images.datasets import is_dataset, open_dataset
from encoscope.images.folders import find_image_files
from encoscope.images.image import LoadedImage, SkippedImage
from encoscope.images.levels import Color, Window
from encoscope.images.read import MAX_PIXELS, read_image


def collect_files(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files that paths and dataset strings stand for, each once, in the order given.

    A file stands for itself whatever its name; a folder for all files below it with a known suffix, sorted, hidden
    ones left out. Raises MissingError for a path that is not there and for a folder without images.
    """
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    found: dict[str, Path] = {}
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
            found.setdefault(os.path.abspath(file), file)  # noqa: PTH100 - symbolic links stay apart
    return list(found.values())


def read_images(
    inputs: Any,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
    background: Color = "white",
) -> Iterator[LoadedImage | SkippedImage]:
    """Stream images from paths, folders, PIL images, arrays, tensors, Photos, iterables and datasets of these.

    One image is in memory at a time. What cannot be read comes out as Skipped, in its place, and the stream goes on. A
    dataset's item may be a tuple that begins with the image; a 4-D array or tensor is a batch of images. The keywords
    are those of ``read``.
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
