"""What a dataset is made of: image files in order, with a label each where there are labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoscope.errors import MissingError, UsageError
from encoscope.images import LabelledImages, collect_files, is_dataset, open_dataset


@dataclass(frozen=True)
class ImageListing:
    """The files of a dataset in its own order. labels: a class name each, None where a file has none."""

    paths: tuple[Path, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)


def list_images(source: Any) -> ImageListing:
    """The files that a dataset string, a folder, a list of files and folders, or labelled photos stand for.

    Labels are the dataset's own; a folder's are its subfolders where all files lie in some. A file of a list need not
    be there: it is skipped when it is read. Raises MissingError for a folder or dataset that is not there or is empty,
    UsageError for anything else that names no files.
    """
    if isinstance(source, ImageListing):
        return source
    if isinstance(source, str | os.PathLike):
        found = _one(source)
    elif isinstance(source, LabelledImages):
        found = _photos(source)
    elif isinstance(source, Iterable):
        items = list(source)
        wrong = next((item for item in items if not isinstance(item, str | os.PathLike)), None)
        if wrong is not None:
            raise UsageError(f"a dataset is a string, a folder or a list of files: {type(wrong).__name__} is no file")
        found = [pair for item in items for pair in (_one(item) if _several(item) else [(Path(item), None)])]
    else:
        raise UsageError(f"a dataset is a string, a folder or a list of files, not {type(source).__name__}")
    if not found:
        raise MissingError("the dataset has no files: name at least one image")
    return ImageListing(tuple(path for path, _ in found), tuple(label for _, label in found))


def _several(item: str | os.PathLike[str]) -> bool:
    return is_dataset(item) or Path(item).is_dir()


def _one(source: str | os.PathLike[str]) -> list[tuple[Path, str | None]]:
    if _several(source):
        return _photos(open_dataset(source))
    return [(file, None) for file in collect_files(Path(source))]


def _photos(photos: LabelledImages) -> list[tuple[Path, str | None]]:
    labels = [photos.classes[label] for label in photos.labels] or [None] * len(photos)
    return list(zip(photos.paths, labels, strict=True))
