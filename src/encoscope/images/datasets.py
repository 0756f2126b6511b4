"""Dataset strings, which name a set of images with its labels or boxes in every command and function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from encoscope.errors import MissingError, UsageError, suggest_nearest
from encoscope.images.caltech101 import read_caltech101
from encoscope.images.coco import read_coco, read_coco20k
from encoscope.images.folders import read_folder
from encoscope.images.imagenet import read_imagenet
from encoscope.images.sets import BoxedImages, LabelledImages
from encoscope.images.stl10 import read_stl10
from encoscope.images.voc import read_voc, read_voc07, read_voc12

_READERS: dict[str, Callable[..., LabelledImages]] = {
    "caltech101": read_caltech101,
    "coco": read_coco,
    "coco20k": read_coco20k,
    "imagenet": read_imagenet,
    "stl10": read_stl10,
    "voc": read_voc,
    "voc07": read_voc07,
    "voc12": read_voc12,
}
_AFTER = {"coco": "ANNOTATIONS.json", "coco20k": "LIST"}


def is_dataset(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is a dataset string, and not an existing path.

    Args:
        text: A path or ``NAME:ROOT`` or ``NAME:ROOT#SPLIT``.

    Returns:
        Whether it begins with the name of a dataset and is no existing path.

    Example:
        >>> is_dataset("caltech101:data#train"), is_dataset("images")
        (True, False)
    """
    name, colon, _ = os.fspath(text).partition(":")
    return bool(colon) and name in _READERS and not Path(text).exists()


def open_dataset(text: str | os.PathLike[str]) -> LabelledImages:
    """List the images of a dataset string or a folder, with labels or boxes if it has them.

    - ``DIR``: the images below a folder; its subfolders are the labels if all images lie in subfolders.
    - ``caltech101:ROOT#train`` or ``#test`` (train if left out); ROOT contains ``101_ObjectCategories``.
    - ``voc07:ROOT#trainval``, ``voc12:ROOT#trainval`` (trainval if left out), as in the evaluation of NAVE and LOST;
      ROOT contains ``VOCdevkit`` or ``VOC2007`` (``VOC2012``), or is this folder.
    - ``voc:ROOT#trainval``: any folder in VOC's layout, with or without lists, as labelling tools write it.
    - ``coco:IMAGES#ANNOTATIONS.json``: COCO and COCO-style JSON.
    - ``coco20k:ROOT#LIST``: the images of COCO's train2014 that the list names (the list in ROOT if left out).
    - ``imagenet:ROOT``, ``#train``, ``#val``: folders named by WordNet numbers, in ROOT or in the folder of the split;
      or files with a WordNet number in their names.
    - ``stl10:ROOT#train``, ``#test`` or ``#unlabeled``: the binary files, unpacked into the cache.

    Args:
        text: A folder or a dataset string.

    Returns:
        The images with labels; BoxedImages for a dataset with boxes.

    Raises:
        UsageError: The name or the split is unknown, or the string names no folder.
        MissingError: The folder does not exist, or the data is not complete.
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
    """List the images of a dataset string whose images have boxes.

    Args:
        text: A dataset string, as for ``open_dataset``.

    Returns:
        The images with their boxes.

    Raises:
        UsageError: The dataset has no boxes; also as for ``open_dataset``.
        MissingError: As for ``open_dataset``.
    """
    images = open_dataset(text)
    if not isinstance(images, BoxedImages):
        raise UsageError(
            f"{os.fspath(text)!r} has no boxes: name a set that has boxes, with voc07, voc12, voc, coco or coco20k"
        )
    return images
