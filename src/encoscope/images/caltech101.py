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
    """The photos of a split as ``class/image_0001.jpg``, background included, as the shipped list orders them."""
    if split not in SPLITS:
        raise UsageError(
            f"Caltech-101 has no split {split!r}; use one of {', '.join(SPLITS)}{suggest_nearest(split, SPLITS)}"
        )
    text = (resources.files("encoscope.images") / "splits" / f"caltech101-{split}.txt").read_text(encoding="utf-8")
    return tuple(text.split())


@cache
def list_classes() -> tuple[str, ...]:
    """The 101 folder names, sorted bytewise, background excluded: a class's index is its place here."""
    names = {entry.split("/")[0] for split in SPLITS for entry in read_split(split)} - {BACKGROUND}
    return tuple(sorted(names, key=str.encode))


def read_caltech101(root: str | Path, split: str = "train") -> LabelledImages:
    """The photos of a split of Caltech-101, without the background class.

    root: the folder that holds ``101_ObjectCategories`` (as torchvision's ``Caltech101`` leaves it), or that one.
    split: "train" (5,784 photos) or "test" (2,893).

    Raises:
        UsageError: unknown split.
        MissingError: the folder, or a listed photo, is not there.
    """
    entries = [entry for entry in read_split(split) if not entry.startswith(f"{BACKGROUND}/")]
    root = Path(root)
    folder = root if root.name == FOLDER else root / FOLDER
    if not folder.is_dir():
        raise MissingError(f"no Caltech-101 at {root}: there is no folder {FOLDER}; give the folder that holds it")
    paths = tuple(folder / entry for entry in entries)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise MissingError(f"Caltech-101 at {root} is incomplete: {missing} is not there; fetch the dataset again")
    index = {name: place for place, name in enumerate(list_classes())}
    return LabelledImages(paths, tuple(index[entry.split("/")[0]] for entry in entries), list_classes())
