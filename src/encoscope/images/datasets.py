"""Dataset strings: one way to name a set of photos, with labels where it has them, wherever a set is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from encoscope.errors import UsageError, nearest
from encoscope.images.caltech101 import LabelledPhotos, caltech101

_READERS = {"caltech101": caltech101}


def is_dataset(text: str | os.PathLike[str]) -> bool:
    """Whether this is a dataset string, ``NAME:ROOT`` or ``NAME:ROOT#SPLIT``, and no path that is there."""
    name, colon, _ = os.fspath(text).partition(":")
    return bool(colon) and name in _READERS and not Path(text).exists()


def dataset(text: str | os.PathLike[str]) -> LabelledPhotos:
    """The photos, labels and class names that a dataset string stands for.

    ``caltech101:ROOT#train`` or ``#test`` (train if left out); ROOT is the folder that holds ``101_ObjectCategories``.
    Raises UsageError for a name or split that is not known, MissingError for a root that does not hold the data.
    """
    name, _, rest = os.fspath(text).partition(":")
    if name not in _READERS:
        raise UsageError(
            f"unknown dataset {name!r}{nearest(name, _READERS)}: NAME:ROOT#SPLIT with {', '.join(_READERS)}"
        )
    root, _, split = rest.partition("#")
    if not root:
        raise UsageError(f"{text!r} names no folder: {name}:ROOT#SPLIT")
    return _READERS[name](root, split or "train")
