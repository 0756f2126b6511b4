"""Folders of images: what lies below one, and the labels its subfolders give."""

from __future__ import annotations

import os
from pathlib import Path

from encoscope.errors import ImageError, MissingError
from encoscope.images.sets import LabelledImages

SUFFIXES = frozenset(
    {".avif", ".bmp", ".dcm", ".dicom", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)


def find_image_files(folder: Path) -> list[Path]:
    """All files below a folder with a known suffix, sorted, hidden ones left out. MissingError when there are none."""

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot list {error.filename}: {error.strerror}") from error

    files = []
    for root, names, leaves in os.walk(folder, onerror=refuse):
        names[:] = [name for name in names if not name.startswith(".")]
        files += [
            Path(root, leaf) for leaf in leaves if not leaf.startswith(".") and Path(leaf).suffix.lower() in SUFFIXES
        ]
    if not files:
        raise MissingError(f"no images below {folder} (known suffixes: {', '.join(sorted(SUFFIXES))})")
    return sorted(files, key=lambda file: file.as_posix())


def read_folder(root: str | Path) -> LabelledImages:
    """The images below a folder, labelled by its subfolders (ImageFolder) when all of them lie in subfolders.

    A class is a folder directly below ``root``, whatever lies deeper; without subfolders, or with images beside them,
    there are no labels. Raises MissingError for a folder that is not there or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingError(f"no such folder: {root}")
    files = find_image_files(root)
    places = [file.relative_to(root).parts for file in files]
    if any(len(parts) == 1 for parts in places):
        return LabelledImages(tuple(files), (), ())
    classes = tuple(sorted({parts[0] for parts in places}, key=os.fsencode))
    index = {name: place for place, name in enumerate(classes)}
    return LabelledImages(tuple(files), tuple(index[parts[0]] for parts in places), classes)
