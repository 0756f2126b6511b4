"""Folders of images: the files below a folder, and its subfolders as labels."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from encoscope.counting import count_noun
from encoscope.errors import ImageError, MissingError
from encoscope.images.sets import LabelledImages

SUFFIXES = frozenset(
    {".avif", ".bmp", ".dcm", ".dicom", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
ARRAYS = frozenset({".npy", ".npz"})
"""Suffixes of arrays, which are the images of a folder that has no others: else they may be anything."""

_log = logging.getLogger("encoscope")


def find_image_files(folder: Path) -> list[Path]:
    """Find all image files below a folder.

    Args:
        folder: The folder.

    Returns:
        The files with a known suffix, sorted, without hidden ones; files of arrays if there are no others.

    Raises:
        MissingError: There are none.
        ImageError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot list {error.filename}: {error.strerror}") from error

    files, arrays = [], []
    for root, names, leaves in os.walk(folder, onerror=refuse):
        names[:] = [name for name in names if not name.startswith(".")]
        paths = [Path(root, leaf) for leaf in leaves if not leaf.startswith(".")]
        files += [path for path in paths if path.suffix.lower() in SUFFIXES]
        arrays += [path for path in paths if path.suffix.lower() in ARRAYS]
    if files and arrays:
        _log.warning(
            "%s beside the images of %s: arrays are read where a folder has no other images, or by name",
            count_noun(len(arrays), ".npy or .npz file is not read", ".npy and .npz files are not read"),
            folder,
        )
    files = files or arrays
    if not files:
        known = ", ".join(sorted(SUFFIXES | ARRAYS))
        raise MissingError(f"no images below {folder} (known suffixes: {known})")
    return sorted(files, key=lambda file: file.as_posix())


def read_folder(root: str | Path) -> LabelledImages:
    """List the images below a folder, labelled by its subfolders, as torchvision's ImageFolder does.

    Args:
        root: The folder.

    Returns:
        The images. Each folder directly below ``root`` is a class. If images lie beside these folders, or if there are
        none, there are no labels.

    Raises:
        MissingError: The folder does not exist or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingError(f"no such folder: {root}")
    files = find_image_files(root)
    parts = [file.relative_to(root).parts for file in files]
    if any(len(names) == 1 for names in parts):
        return LabelledImages(tuple(files), (), ())
    classes = tuple(sorted({names[0] for names in parts}, key=os.fsencode))
    index = {name: number for number, name in enumerate(classes)}
    return LabelledImages(tuple(files), tuple(index[names[0]] for names in parts), classes)
