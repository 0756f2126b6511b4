"""ImageNet as it lies on disk: a folder for each WordNet number, below a folder for each split, or flat files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from encoscope._torchvision import ensure_torchvision
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.images.folders import find_image_files
from encoscope.images.sets import LabelledImages

DEFAULT_SPLIT = "train"
UNIQUE_NAMES = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n02113186": "Cardigan (dog)",
    "n02963159": "cardigan (jacket)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
}
"""Names of the six ImageNet classes whose first name another class has, too, by WordNet number."""
_NUMBER = re.compile(r"n[0-9]{8}")
_NUMBER_IN_NAME = re.compile(r"(?<![0-9A-Za-z])n[0-9]{8}(?![0-9])")
_SHOWN = 6


@cache
def name_imagenet_classes() -> dict[str, str]:
    """Name ImageNet's 1,000 classes, each as no other.

    Returns:
        The first name of each class by its WordNet number, in the order of the classes (that of the numbers).

    Raises:
        EncoscopeError: If two classes still have one name.
    """
    ensure_torchvision()
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    names = {
        number: UNIQUE_NAMES.get(number, info.index_to_description(index).split(",")[0])
        for index, number in enumerate(info.label_names())
    }
    folded = [name.casefold() for name in names.values()]
    repeated = sorted({name for name in folded if folded.count(name) > 1})
    if repeated:
        raise EncoscopeError(f"class names are not unique: {', '.join(repeated)}")
    return names


def read_imagenet(root: str | Path, split: str = "") -> LabelledImages:
    """List images of ImageNet, or of any part of it, with the names of their classes.

    Each image's WordNet number is that of the folder that it lies in (``n01440764/photo.jpg``); of an image that lies
    in no folder it is the one in its name (``n01440764_tench.jpg``, ``ILSVRC2012_val_00000293_n01440764.JPEG``).

    Args:
        root: A folder of such folders or images, or the folder above it.
        split: The folder below ``root`` that is read: "train", "val", or whatever it is called there. "" takes
            ``root`` itself, or its folder ``train`` if there is one and ``root`` holds no WordNet numbers.

    Returns:
        The images with their classes, in the order of the WordNet numbers. A class that is not among the 1,000 of
        ImageNet-1k is called by its number.

    Raises:
        UsageError: There is no such split, or an image has no WordNet number, or several.
        MissingError: The folder does not exist or holds no images.
    """
    folder = _find_split(Path(root), split)
    files = find_image_files(folder)
    numbers = [_read_number(file, folder) for file in files]
    known = sorted(set(numbers))
    names = name_imagenet_classes()
    _check_numbers(known, folder)
    index = {number: position for position, number in enumerate(known)}
    classes = tuple(names.get(number, number) for number in known)
    return LabelledImages(tuple(files), tuple(index[number] for number in numbers), classes)


def _find_split(root: Path, split: str) -> Path:
    """The folder of the images."""
    if not root.is_dir():
        raise MissingError(f"no such folder: {root}")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if split:
        if not (root / split).is_dir():
            raise UsageError(
                f"{root} has no folder {split!r}{suggest_nearest(split, folders)}: the split of imagenet:ROOT#SPLIT is "
                f"a folder of ROOT, which has {_list_some(folders)}"
            )
        return root / split
    if DEFAULT_SPLIT in folders and not any(map(_NUMBER.fullmatch, folders)):
        return root / DEFAULT_SPLIT
    return root


def _read_number(file: Path, folder: Path) -> str:
    """The WordNet number of an image."""
    first, *rest = file.relative_to(folder).parts
    numbers = {first} if rest and _NUMBER.fullmatch(first) else set() if rest else set(_NUMBER_IN_NAME.findall(first))
    if len(numbers) == 1:
        return numbers.pop()
    if numbers:
        raise UsageError(f"{file} has several WordNet numbers in its name: {', '.join(sorted(numbers))}")
    where = f"neither its name nor a folder directly below {folder} has" if not rest else f"the folder {first!r} is not"
    raise UsageError(
        f"{file} is no image of ImageNet: {where} a WordNet number such as n01440764; "
        "give imagenet:ROOT the folder that holds folders of such names, or imagenet:ROOT#SPLIT the one above it"
    )


def _check_numbers(numbers: list[str], folder: Path) -> None:
    """Refuse WordNet numbers that no ImageNet has."""
    strange = [number for number in numbers if number not in name_imagenet_classes()]
    if not strange:
        return
    from timm.data.imagenet_info import ImageNetInfo

    known = set(ImageNetInfo("imagenet-22k").label_names())
    unknown = next((number for number in strange if number not in known), None)
    if unknown is not None:
        raise UsageError(f"{folder} is no ImageNet: it has no class with the WordNet number {unknown}")


def _list_some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
