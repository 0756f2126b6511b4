"""The image files of a dataset in order, with the name of a label for each file that has one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import MissingError, UsageError
from encoscope.images.collect import collect_files
from encoscope.images.datasets import is_dataset, open_dataset
from encoscope.images.sampling import sample_images
from encoscope.images.sets import LabelledImages


@dataclass(frozen=True)
class ImageListing:
    """The image files of a dataset, in the dataset's own order.

    Attributes:
        paths: One file for each image.
        labels: The name of each image's class; None for an image without a label.

    Example:
        >>> listing = ImageListing((Path("a.png"), Path("b.png")), ("cat", None))
        >>> len(listing), listing.classes
        (2, ('cat',))
    """

    paths: tuple[Path, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted; empty where no image has a label."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    def select(self, indices: Iterable[int]) -> ImageListing:
        """Take some of the files.

        Args:
            indices: Positions in ``paths``, from 0, in the order in which the files shall come.

        Returns:
            The files at these positions, with their labels.
        """
        chosen = list(indices)
        return ImageListing(tuple(self.paths[i] for i in chosen), tuple(self.labels[i] for i in chosen))

    def sample(self, count: int | None, random_state: int = RANDOM_STATE) -> ImageListing:
        """Draw some of the files, from every class in proportion (see ``sample_images``).

        Args:
            count: How many files; None takes all.
            random_state: The seed.

        Returns:
            The files that were drawn, in their order here.

        Raises:
            UsageError: For a count below 1.
        """
        return self.select(sample_images(self.labels, count, random_state))

    def take_each(self, count: int | None) -> ImageListing:
        """Take the first files of each label.

        Args:
            count: How many files of a label are kept, at least 0; None keeps all.

        Returns:
            The kept files, in their order here. Files without a label count as one label.
        """
        seen: dict[str | None, int] = {}
        kept = []
        for index, label in enumerate(self.labels):
            seen[label] = seen.get(label, 0) + 1
            if count is None or seen[label] <= count:
                kept.append(index)
        return self.select(kept)

    def find_labels(self, paths: Sequence[Path]) -> list[str | None] | None:
        """Look up the labels of some files by their path.

        Args:
            paths: Files, relative to the working directory or absolute.

        Returns:
            A label for each path, None for a file that is not listed here; None alone if no listed file has a label.
        """
        if not self.classes:
            return None
        # abspath, not resolve: two symbolic links to one file stay two files
        table = {os.path.abspath(path): label for path, label in zip(self.paths, self.labels, strict=True)}  # noqa: PTH100
        return [table.get(os.path.abspath(path)) for path in paths]  # noqa: PTH100


def list_images(source: Any) -> ImageListing:
    """List the image files that a source names, with their labels.

    Args:
        source: A dataset string (see ``open_dataset``), a folder, a file, a list of these, ``LabelledImages``, or an
            ``ImageListing``, which is returned as it is.

    Returns:
        The files in the source's order. Labels are the dataset's own. The labels of a folder are its subfolders (class
        names or WordNet numbers alike) if all images lie in subfolders. A file of a list may be missing: it is skipped
        when it is read.

    Raises:
        MissingError: A folder or a dataset does not exist, or has no images.
        UsageError: The source, or an item of a list, names no files.
    """
    if isinstance(source, ImageListing):
        return source
    if isinstance(source, str | os.PathLike):
        pairs = _list_path(source)
    elif isinstance(source, LabelledImages):
        pairs = _pair_labels(source)
    elif isinstance(source, Iterable):
        items = list(source)
        wrong = next((item for item in items if not isinstance(item, str | os.PathLike)), None)
        if wrong is not None:
            raise UsageError(f"a dataset is a string, a folder or a list of files: {type(wrong).__name__} is no file")
        pairs = [pair for item in items for pair in (_list_path(item) if _names_many(item) else [(Path(item), None)])]
    else:
        raise UsageError(f"a dataset is a string, a folder or a list of files, not {type(source).__name__}")
    if not pairs:
        raise MissingError("the dataset has no files: name at least one image")
    return ImageListing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))


def _names_many(item: str | os.PathLike[str]) -> bool:
    return is_dataset(item) or Path(item).is_dir()


def _list_path(source: str | os.PathLike[str]) -> list[tuple[Path, str | None]]:
    if _names_many(source):
        return _pair_labels(open_dataset(source))
    return [(file, None) for file in collect_files(Path(source))]


def _pair_labels(images: LabelledImages) -> list[tuple[Path, str | None]]:
    labels = [images.classes[label] for label in images.labels] or [None] * len(images)
    return list(zip(images.paths, labels, strict=True))


def draw_images(source: Any, count: int | None, random_state: int = RANDOM_STATE) -> Any:
    """Draw some of the images that a user gave, from every class in proportion where there are labels.

    Args:
        source: What ``read_images`` takes.
        count: How many images; None takes all, and gives the source back.
        random_state: The seed.

    Returns:
        Paths for a source of files; images for a list, an array or a dataset of images; the first images of a stream,
        which cannot be drawn from.

    Raises:
        MissingError: A folder or a dataset does not exist, or has no images.
        UsageError: For a count below 1.
    """
    if count is None:
        return source
    if isinstance(source, LabelledImages | ImageListing):
        return list(list_images(source).sample(count, random_state).paths)
    several = (
        isinstance(source, list | tuple) and source and all(isinstance(item, str | os.PathLike) for item in source)
    )
    if several or isinstance(source, str | os.PathLike):
        files = collect_files(source)
        labels = list_images(source).find_labels(files) or [None] * len(files)
        return list(ImageListing(tuple(files), tuple(labels)).sample(count, random_state).paths)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        labels = getattr(source, "targets", None)  # of torchvision's datasets
        known = list(labels) if labels is not None and len(labels) == len(source) else [None] * len(source)
        known = [label.item() if hasattr(label, "item") else label for label in known]
        return [source[index] for index in sample_images(known, count, random_state)]
    return islice(source, count)
