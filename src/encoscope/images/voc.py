"""PASCAL VOC 2007 and 2012, and any folder in their layout, as labelling tools write it."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from encoscope.errors import ImageError, MissingError, UsageError, suggest_nearest
from encoscope.images.folders import SUFFIXES
from encoscope.images.image import SkippedImage
from encoscope.images.sets import AnnotatedObject, BoxedImages, BoxedImagesBuilder

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_ARCHIVES = {"2007": "VOCtrainval_06-Nov-2007.tar", "2012": "VOCtrainval_11-May-2012.tar"}
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*?\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)""")
_TRUE = {"1", "true", "yes"}


def read_voc07(root: str | Path, split: str = "trainval") -> BoxedImages:
    """PASCAL VOC 2007: 5,011 photos in trainval, 20 classes; ``root`` holds ``VOC2007``, ``VOCdevkit`` or is either."""
    return _official(Path(root), split, "2007")


def read_voc12(root: str | Path, split: str = "trainval") -> BoxedImages:
    """PASCAL VOC 2012: 11,540 photos in trainval, 20 classes."""
    return _official(Path(root), split, "2012")


def read_voc(root: str | Path, split: str | None = None) -> BoxedImages:
    """Any folder in VOC's layout: ``Annotations`` and ``JPEGImages`` (or ``images``), or XML files beside the images.

    split: a list in ``ImageSets/Main``; left out, ``trainval`` if there is one, else every annotation. Coordinates are
    counted from 1, as in VOC, unless a 0 occurs in the folder. What is damaged or has no image is left out and said.

    Raises:
        MissingError: nothing in this layout, or no image of all that are annotated. UsageError: unknown split.
    """
    root = Path(root)
    annotations = next((root / name for name in ("Annotations", "annotations") if (root / name).is_dir()), root)
    images = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), root)
    if not root.is_dir() or not any(annotations.glob("*.xml")):
        raise MissingError(
            f"no VOC layout at {root}: looked for {root / 'Annotations'}/*.xml with {root / 'JPEGImages'}, and for XML "
            "files beside images; give the folder that holds them"
        )
    if split is None:
        split = "trainval" if (root / "ImageSets" / "Main" / "trainval.txt").is_file() else None
    stems = sorted(file.stem for file in annotations.glob("*.xml")) if split is None else _listed(root, split)
    files = _images(images)
    read: dict[Path, tuple[list[AnnotatedObject], tuple[int, int] | None]] = {}
    found = BoxedImagesBuilder()
    for stem in stems:
        xml = annotations / f"{stem}.xml"
        try:
            things, size, named, boxless = parse_annotation(xml)
        except (ImageError, MissingError) as error:
            found.skipped.append(SkippedImage(str(xml), str(error)))
            continue
        path = files.get(stem) or files.get(Path(named.replace("\\", "/")).stem)
        if path is None:
            found.skipped.append(
                SkippedImage(str(xml), f"no image for {xml}: looked for {images / stem} with any suffix")
            )
            continue
        found.boxless += boxless
        read[path] = (things, size)
    if not read:
        reason = found.skipped[0].reason if found.skipped else "its list is empty"
        raise MissingError(f"no annotated image of {root} can be used; the first: {reason}")
    # VOC counts pixels from 1; a tool that counts from 0 gives itself away by a 0
    lows = [low for things, _ in read.values() for thing in things for low in thing.box[:2]]
    first = 0 if any(0 <= low < 1 for low in lows) else 1
    for path, (things, size) in read.items():
        found.add(path, _from_zero(things, first), size)
    return found.finish()


def _official(root: Path, split: str, year: str) -> BoxedImages:
    name = f"VOC{year}"
    places = (root, root / name, root / "VOCdevkit" / name)
    home = next((place for place in places if (place / "Annotations").is_dir() and place.name != "VOCdevkit"), None)
    if home is None:
        raise MissingError(
            f"no {name} at {root}: looked for a folder Annotations in {', '.join(map(str, places))}; unpack "
            f"{_ARCHIVES[year]} of http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/ and give the folder it makes"
        )
    stems = _listed(home, split)
    if not stems:
        raise MissingError(f"the list {split} of {home} is empty; unpack {_ARCHIVES[year]} again")
    paths = [home / "JPEGImages" / f"{stem}.jpg" for stem in stems]
    _whole(name, home, paths)
    _whole(name, home, [home / "Annotations" / f"{stem}.xml" for stem in stems])
    found = BoxedImagesBuilder()
    for stem, path in zip(stems, paths, strict=True):
        things, size, _, boxless = parse_annotation(home / "Annotations" / f"{stem}.xml")
        found.boxless += boxless
        found.add(path, _from_zero(things, 1), size)
    return found.finish(CLASSES)


def _whole(name: str, home: Path, files: list[Path]) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise MissingError(
            f"{name} at {home} is incomplete: {len(missing)} of {len(files)} files are not there, the first "
            f"{missing[0]}; copy it again, or use what is there as voc:{home}"
        )


def _listed(home: Path, split: str) -> list[str]:
    """The image names of a list in ImageSets/Main, each once; a second column (class lists) is left out."""
    lists = home / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        known = sorted(found.stem for found in lists.glob("*.txt"))
        if not known:
            raise MissingError(f"{home} has no lists of images: there is nothing in {lists}")
        short = [stem for stem in known if "_" not in stem] or known
        raise UsageError(f"{home} has no split {split!r}{suggest_nearest(split, known)}; there are {', '.join(short)}")
    lines = (line.split() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return list(dict.fromkeys(parts[0] for parts in lines if parts))


def _images(folder: Path) -> Mapping[str, Path]:
    return {file.stem: file for file in sorted(folder.iterdir(), reverse=True) if file.suffix.lower() in SUFFIXES}


def _from_zero(things: list[AnnotatedObject], first: int) -> Iterator[AnnotatedObject]:
    """Pixel numbers from 1, both ends counted, as edges from 0: (1, width) becomes (0, width), as LOST does.

    Tools that count from 0 write edges already.
    """
    for thing in things:
        x0, y0, x1, y1 = thing.box
        yield replace(thing, box=(x0 - first, y0 - first, x1, y1))


def parse_annotation(xml: Path) -> tuple[list[AnnotatedObject], tuple[int, int] | None, str, int]:
    """The objects of an annotation, the image's (width, height) if said, its file name, and how many had no box.

    Coordinates are as written. Raises MissingError when there is no such file, ImageError when it is damaged.
    """
    try:
        text = _text(xml.read_bytes())
        if "<!ENTITY" in text:  # entities can grow without bound, and no tool writes them
            raise ImageError(f"{xml} declares entities; annotations have none")
        root = ElementTree.fromstring(text)
    except FileNotFoundError:
        raise MissingError(f"{xml} is not there: the image has no annotation") from None
    except (OSError, ElementTree.ParseError, UnicodeError) as error:
        raise ImageError(f"{xml} cannot be read: {error}") from error
    things, boxless = [], 0
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        if box is None:
            boxless += 1
            continue
        corners = [_number(xml, box, corner) for corner in ("xmin", "ymin", "xmax", "ymax")]
        name = (entry.findtext("name") or "").strip() or "object"
        difficult, truncated = (_flag(entry, flag) for flag in ("difficult", "truncated"))
        (x0, x1), (y0, y1) = sorted(corners[::2]), sorted(corners[1::2])  # a box may have been drawn from any corner
        things.append(AnnotatedObject(name, (x0, y0, x1, y1), difficult, truncated))
    return things, _size(root), (root.findtext("filename") or "").strip(), boxless


def _text(raw: bytes) -> str:
    """The XML without its declaration, in whatever encoding: a byte order mark, the declared one, UTF-8, Latin-1."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _DECLARATION.sub("", raw.decode("utf-16"))
    declared = _ENCODING.match(raw.removeprefix(codecs.BOM_UTF8))
    named = [declared[1].decode("ascii")] if declared else []
    for encoding in [*named, "utf-8-sig"]:
        try:
            return _DECLARATION.sub("", raw.decode(encoding).removeprefix("\ufeff"))
        except (LookupError, UnicodeError):
            continue
    return _DECLARATION.sub("", raw.decode("latin-1"))


def _number(xml: Path, box: ElementTree.Element, corner: str) -> float:
    text = (box.findtext(corner) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise ImageError(f"{xml}: {corner} is {text!r}, not a number") from None
    return value if math.isfinite(value) else math.nan


def _flag(entry: ElementTree.Element, name: str) -> bool:
    return (entry.findtext(name) or "").strip().lower() in _TRUE


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{name}") or "")) for name in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
