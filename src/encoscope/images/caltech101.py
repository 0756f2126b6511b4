"""Caltech-101 with the split lists that ship with the package."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from encoscope.errors import MissingError, UsageError, suggest_nearest
from encoscope.images.sets import LabelledImages

BACKGROUND = "BACKGROUND_Google"
FOLDER = "101_ObjectCategories"
SPLITS = ("train", "test")


@cache
def read_split(split: str) -> tuple[str, ...]:
    """Read the list of a split, which is part of the package.

    Args:
        split: "train" or "test".

    Returns:
        Files as ``class/image_0001.jpg`` in the list's order, the background class included.

    Raises:
        UsageError: There is no such split.
    """
    if split not in SPLITS:
        raise UsageError(
            f"Caltech-101 has no split {split!r}; use one of {', '.join(SPLITS)}{suggest_nearest(split, SPLITS)}"
        )
    text = (resources.files("encoscope.images") / "splits" / f"caltech101-{split}.txt").read_text(encoding="utf-8")
    return tuple(text.split())


@cache
def list_classes() -> tuple[str, ...]:
    """List the 101 class names, which are those of the folders without the background.

    Returns:
        The names, sorted by bytes; a class's index is its position here.
    """
    names = {entry.split("/")[0] for split in SPLITS for entry in read_split(split)} - {BACKGROUND}
    return tuple(sorted(names, key=str.encode))


def read_caltech101(root: str | Path, split: str = "train") -> LabelledImages:
    """List the images of a split of Caltech-101, without the background class.

    Args:
        root: The folder that contains ``101_ObjectCategories`` (as torchvision's ``Caltech101`` writes it), or this
            folder itself.
        split: "train" (5,784 images) or "test" (2,893).

    Returns:
        The images with their classes.

    Raises:
        UsageError: There is no such split.
        MissingError: The folder, or a listed image, does not exist.
    """
    entries = [entry for entry in read_split(split) if not entry.startswith(f"{BACKGROUND}/")]
    root = Path(root)
    folder = root if root.name == FOLDER else root / FOLDER
    if not folder.is_dir():
        raise MissingError(f"no Caltech-101 at {root}: there is no folder {FOLDER}; give the folder that contains it")
    paths = tuple(folder / entry for entry in entries)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise MissingError(f"Caltech-101 at {root} is incomplete: {missing} is not there; fetch the dataset again")
    index = {name: number for number, name in enumerate(list_classes())}
    return LabelledImages(paths, tuple(index[entry.split("/")[0]] for entry in entries), list_classes())
