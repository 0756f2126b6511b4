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
from encoscope.file_kind import require_ordinary_file
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
    """List the images of PASCAL VOC 2007: 5,011 in trainval, 20 classes.

    Args:
        root: The folder that contains ``VOC2007`` or ``VOCdevkit``, or one of these.
        split: A list in ``ImageSets/Main``.

    Returns:
        The images with their boxes.

    Raises:
        MissingError: The data does not exist or is incomplete.
        UsageError: There is no such split.
        ImageError: An annotation is damaged.
    """
    return _read_official(Path(root), split, "2007")


def read_voc12(root: str | Path, split: str = "trainval") -> BoxedImages:
    """List the images of PASCAL VOC 2012: 11,540 in trainval, 20 classes.

    Args:
        root: The folder that contains ``VOC2012`` or ``VOCdevkit``, or one of these.
        split: A list in ``ImageSets/Main``.

    Returns:
        The images with their boxes.

    Raises:
        MissingError: The data does not exist or is incomplete.
        UsageError: There is no such split.
        ImageError: An annotation is damaged.
    """
    return _read_official(Path(root), split, "2012")


def read_voc(root: str | Path, split: str | None = None) -> BoxedImages:
    """List the images of any folder in VOC's layout.

    Coordinates are counted from 1, as in VOC, unless a 0 occurs in the folder.

    Args:
        root: A folder with ``Annotations`` and ``JPEGImages`` (or ``images``), or with XML files beside the images.
        split: A list in ``ImageSets/Main``; if left out, ``trainval`` if it exists, otherwise every annotation.

    Returns:
        The images with their boxes. Annotations that are damaged or have no image are listed in ``skipped``.

    Raises:
        MissingError: The folder has another layout, or none of the annotated images can be used.
        UsageError: There is no such split.
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
    stems = sorted(file.stem for file in annotations.glob("*.xml")) if split is None else _read_list(root, split)
    files = _find_images(images)
    read: dict[Path, tuple[list[AnnotatedObject], tuple[int, int] | None]] = {}
    builder = BoxedImagesBuilder()
    for stem in stems:
        xml = annotations / f"{stem}.xml"
        try:
            objects, size, named, boxless = parse_annotation(xml)
        except (ImageError, MissingError) as error:
            builder.skipped.append(SkippedImage(str(xml), str(error)))
            continue
        path = files.get(stem) or files.get(Path(named.replace("\\", "/")).stem)
        if path is None:
            builder.skipped.append(
                SkippedImage(str(xml), f"no image for {xml}: looked for {images / stem} with any suffix")
            )
            continue
        builder.boxless += boxless
        read[path] = (objects, size)
    if not read:
        reason = builder.skipped[0].reason if builder.skipped else "its list is empty"
        raise MissingError(f"no annotated image of {root} can be used; the first: {reason}")
    # VOC counts pixels from 1; a 0 shows that the tool counted from 0
    starts = [start for objects, _ in read.values() for annotated in objects for start in annotated.box[:2]]
    first = 0 if any(0 <= start < 1 for start in starts) else 1
    for path, (objects, size) in read.items():
        builder.add(path, _from_zero(objects, first), size)
    return builder.finish()


def _read_official(root: Path, split: str, year: str) -> BoxedImages:
    name = f"VOC{year}"
    homes = (root, root / name, root / "VOCdevkit" / name)
    home = next((path for path in homes if (path / "Annotations").is_dir() and path.name != "VOCdevkit"), None)
    if home is None:
        raise MissingError(
            f"no {name} at {root}: looked for a folder Annotations in {', '.join(map(str, homes))}; unpack "
            f"{_ARCHIVES[year]} of http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/ and give the folder it makes"
        )
    stems = _read_list(home, split)
    if not stems:
        raise MissingError(f"the list {split} of {home} is empty; unpack {_ARCHIVES[year]} again")
    paths = [home / "JPEGImages" / f"{stem}.jpg" for stem in stems]
    _check_complete(name, home, paths)
    _check_complete(name, home, [home / "Annotations" / f"{stem}.xml" for stem in stems])
    builder = BoxedImagesBuilder()
    for stem, path in zip(stems, paths, strict=True):
        objects, size, _, boxless = parse_annotation(home / "Annotations" / f"{stem}.xml")
        builder.boxless += boxless
        builder.add(path, _from_zero(objects, 1), size)
    return builder.finish(CLASSES)


def _check_complete(name: str, home: Path, files: list[Path]) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise MissingError(
            f"{name} at {home} is incomplete: {len(missing)} of {len(files)} files are not there, the first "
            f"{missing[0]}; copy it again, or use what is there as voc:{home}"
        )


def _read_list(home: Path, split: str) -> list[str]:
    """The image names of a list in ImageSets/Main, each once; a second column (class lists) is ignored."""
    lists = home / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        known = sorted(path.stem for path in lists.glob("*.txt"))
        if not known:
            raise MissingError(f"{home} has no lists of images: there is nothing in {lists}")
        short = [stem for stem in known if "_" not in stem] or known
        raise UsageError(f"{home} has no split {split!r}{suggest_nearest(split, known)}; there are {', '.join(short)}")
    lines = (line.split() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return list(dict.fromkeys(parts[0] for parts in lines if parts))


def _find_images(folder: Path) -> Mapping[str, Path]:
    return {file.stem: file for file in sorted(folder.iterdir(), reverse=True) if file.suffix.lower() in SUFFIXES}


def _from_zero(objects: list[AnnotatedObject], first: int) -> Iterator[AnnotatedObject]:
    """Pixel numbers from 1, both ends included, as edges from 0: (1, width) becomes (0, width), as in LOST's code.

    Tools that count from 0 write edges already.
    """
    for annotated in objects:
        x0, y0, x1, y1 = annotated.box
        yield replace(annotated, box=(x0 - first, y0 - first, x1, y1))


def parse_annotation(xml: Path) -> tuple[list[AnnotatedObject], tuple[int, int] | None, str, int]:
    """Read an annotation in VOC's XML.

    Args:
        xml: The file.

    Returns:
        The objects with coordinates as they are written, the image's (width, height) or None, its file name, and the
        number of objects without a box.

    Raises:
        MissingError: The file does not exist.
        ImageError: It is damaged.
    """
    require_ordinary_file(xml)
    try:
        text = _decode_xml(xml.read_bytes())
        if "<!ENTITY" in text:  # entities can grow without bound, and no tool writes them
            raise ImageError(f"{xml} declares entities; annotations have none")
        root = ElementTree.fromstring(text)
    except FileNotFoundError:
        raise MissingError(f"{xml} is not there: the image has no annotation") from None
    except (OSError, ElementTree.ParseError, UnicodeError) as error:
        raise ImageError(f"{xml} cannot be read: {error}") from error
    objects, boxless = [], 0
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        if box is None:
            boxless += 1
            continue
        corners = [_read_number(xml, box, corner) for corner in ("xmin", "ymin", "xmax", "ymax")]
        name = (entry.findtext("name") or "").strip() or "object"
        difficult, truncated = (_read_flag(entry, flag) for flag in ("difficult", "truncated"))
        (x0, x1), (y0, y1) = sorted(corners[::2]), sorted(corners[1::2])  # tools may write the corners in any order
        objects.append(AnnotatedObject(name, (x0, y0, x1, y1), difficult, truncated))
    return objects, _read_size(root), (root.findtext("filename") or "").strip(), boxless


def _decode_xml(raw: bytes) -> str:
    """The XML without its declaration, decoded by its byte order mark, its declaration, as UTF-8 or as Latin-1."""
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


def _read_number(xml: Path, box: ElementTree.Element, corner: str) -> float:
    text = (box.findtext(corner) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise ImageError(f"{xml}: {corner} is {text!r}, not a number") from None
    return value if math.isfinite(value) else math.nan


def _read_flag(entry: ElementTree.Element, name: str) -> bool:
    return (entry.findtext(name) or "").strip().lower() in _TRUE


def _read_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{name}") or "")) for name in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
