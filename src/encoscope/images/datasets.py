"""Dataset strings: one way to name a set of photos, with its labels or boxes, wherever a set is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from encoscope.errors import MissingError, UsageError, suggest_nearest
from encoscope.images.caltech101 import read_caltech101
from encoscope.images.coco import read_coco, read_coco20k
from encoscope.images.folders import read_folder
from encoscope.images.sets import BoxedImages, LabelledImages
from encoscope.images.stl10 import read_stl10
from encoscope.images.voc import read_voc, read_voc07, read_voc12

_READERS: dict[str, Callable[..., LabelledImages]] = {
    "caltech101": read_caltech101,
    "coco": read_coco,
    "coco20k": read_coco20k,
    "stl10": read_stl10,
    "voc": read_voc,
    "voc07": read_voc07,
    "voc12": read_voc12,
}
_AFTER = {"coco": "ANNOTATIONS.json", "coco20k": "LIST"}


def is_dataset(text: str | os.PathLike[str]) -> bool:
    """Whether this is a dataset string, ``NAME:ROOT`` or ``NAME:ROOT#SPLIT``, and no path that is there."""
    name, colon, _ = os.fspath(text).partition(":")
    return bool(colon) and name in _READERS and not Path(text).exists()


def open_dataset(text: str | os.PathLike[str]) -> LabelledImages:
    """The photos that a dataset string or a folder stands for, with labels or boxes where it has them.

    - ``DIR``: the images below a folder; its subfolders are the labels if all of them lie in subfolders.
    - ``caltech101:ROOT#train`` or ``#test`` (train if left out); ROOT holds ``101_ObjectCategories``.
    - ``voc07:ROOT#trainval``, ``voc12:ROOT#trainval`` (trainval if left out), as the evaluation of NAVE and LOST takes
      them; ROOT holds ``VOCdevkit`` or ``VOC2007`` (``VOC2012``), or is it.
    - ``voc:ROOT#trainval``: any folder in VOC's layout, with or without lists, as labelling tools write it.
    - ``coco:IMAGES#ANNOTATIONS.json``: COCO and COCO-style JSON.
    - ``coco20k:ROOT#LIST``: the photos of COCO's train2014 that the list names (ROOT's own if left out).
    - ``stl10:ROOT#train``, ``#test`` or ``#unlabeled``: the binary files, unpacked into the cache.

    Those with boxes come as BoxedPhotos. Raises UsageError for a name or split that is not known, MissingError for a
    root that does not hold the data, or only a part of it.
    """
    if Path(text).is_dir():
        return read_folder(Path(text))
    name, colon, rest = os.fspath(text).partition(":")
    if not colon:
        raise MissingError(f"no such folder: {text}; a dataset is a folder or NAME:ROOT with {', '.join(_READERS)}")
    if name not in _READERS:
        raise UsageError(
            f"unknown dataset {name!r}{suggest_nearest(name, _READERS)}: NAME:ROOT#SPLIT with {', '.join(_READERS)}"
        )
    root, _, after = rest.rpartition("#") if "#" in rest else (rest, "", "")
    if not root:
        raise UsageError(f"{text!r} names no folder: {name}:ROOT#{_AFTER.get(name, 'SPLIT')}")
    return _READERS[name](root, after) if after else _READERS[name](root)


def open_boxed_dataset(text: str | os.PathLike[str]) -> BoxedImages:
    """``dataset`` for a set whose photos have boxes. Raises UsageError for one that has none, and as ``dataset``."""
    found = open_dataset(text)
    if not isinstance(found, BoxedImages):
        raise UsageError(
            f"{os.fspath(text)!r} has no boxes: name a set that has, with voc07, voc12, voc, coco or coco20k"
        )
    return found
