"""COCO's instance annotations, COCO-style JSON of other tools, and COCO20k."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.file_kind import require_ordinary_file
from encoscope.images.image import SkippedImage
from encoscope.images.sets import AnnotatedObject, BoxedImages, BoxedImagesBuilder

LIST = "coco_20k_filenames.txt"
LISTED = 19_817


def read_coco(images: str | Path, annotations: str | Path | None = None) -> BoxedImages:
    """List the annotated images of a COCO-style JSON, in its order.

    Args:
        images: The folder of the images. A file name in the JSON may begin with folders that do not exist here.
        annotations: The JSON file.

    Returns:
        The images with their boxes; classes are in the order of the category ids. Images whose file does not exist are
        listed in ``skipped``.

    Raises:
        UsageError: No JSON file was named.
        MissingError: A folder or file does not exist, or none of the images.
        ImageError: The JSON is damaged or of another kind.
    """
    if annotations is None:
        raise UsageError(f"a COCO dataset names its annotations too: coco:{images}#ANNOTATIONS.json")
    folder = Path(images)
    if not folder.is_dir():
        raise MissingError(f"no folder of COCO images at {folder}; get them from https://cocodataset.org")
    document = _read_document(Path(annotations))
    return _collect(folder, Path(annotations), document, document["images"], [])


def read_coco20k(root: str | Path, file_list: str | Path | None = None) -> BoxedImages:
    """List the images of COCO20k: the 19,817 images of train2014 that LOST and its successors evaluate on.

    Args:
        root: A folder with ``train2014`` (or ``images/train2014``) and ``annotations/instances_train2014.json``.
        file_list: A text file with a file name on each line; ``coco_20k_filenames.txt`` in ``root`` if left out. It is
            not part of COCO.

    Returns:
        The images with their boxes.

    Raises:
        MissingError: A folder, a file or a listed image does not exist.
        ImageError: A file is damaged.
    """
    root = Path(root)
    folders = (root / "train2014", root / "images" / "train2014")
    folder = next((candidate for candidate in folders if candidate.is_dir()), None)
    if folder is None:
        raise MissingError(
            f"no COCO20k at {root}: looked for {' and '.join(map(str, folders))}; unpack train2014.zip and "
            "annotations_trainval2014.zip of https://cocodataset.org there"
        )
    file = root / LIST if file_list is None else Path(file_list)
    if not file.is_file():
        raise MissingError(
            f"no list of COCO20k at {file}: it is not part of COCO; take {LIST} from the datasets folder of LOST's "
            "code (github.com/valeoai/LOST), put it there or name it as coco20k:ROOT#LIST"
        )
    names = file.read_text(encoding="utf-8-sig").split()
    source = root / "annotations" / "instances_train2014.json"
    document = _read_document(source)
    by_number = {entry["id"]: entry for entry in document["images"]}
    try:
        numbers = [int(Path(name).stem.rpartition("_")[2]) for name in names]
        chosen = [by_number[number] for number in dict.fromkeys(numbers)]
    except ValueError as error:
        raise ImageError(f"{file} is no list of COCO file names, such as COCO_train2014_000000000009.jpg") from error
    except KeyError as error:
        raise ImageError(f"{file} lists image {error.args[0]}, which is not in {source}") from error
    missing = [entry for entry in chosen if not (folder / entry["file_name"]).is_file()]
    if missing or not chosen:
        raise MissingError(
            f"COCO20k at {root} is incomplete: {len(missing)} of {len(chosen)} listed images are not there"
            + (f", the first {folder / missing[0]['file_name']}" if missing else "")
            + f"; copy them again, or use what is there as coco:{folder}#{source}"
        )
    note = [] if len(chosen) == LISTED else [f"{file} lists {len(chosen):,} images; COCO20k has {LISTED:,}"]
    return _collect(folder, source, document, chosen, note)


def _read_document(source: Path) -> dict[str, Any]:
    require_ordinary_file(source)
    try:
        document = json.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise MissingError(f"no annotations at {source}; give COCO's instances JSON, or one in its form") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{source} is no JSON, or only a part of one: {error}") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "annotations")):
        raise ImageError(f"{source} is not in COCO's form: there are no lists 'images' and 'annotations' in it")
    if any("segments_info" in entry for entry in document["annotations"][:1]):
        raise ImageError(f"{source} holds panoptic annotations, which have no boxes of their own; give the instances")
    return document


def _collect(
    folder: Path, source: Path, document: Mapping[str, Any], images: list[dict[str, Any]], notes: list[str]
) -> BoxedImages:
    try:
        names = {entry["id"]: str(entry["name"]) for entry in document.get("categories", [])}
        by_image: dict[Any, list[AnnotatedObject]] = defaultdict(list)
        builder = BoxedImagesBuilder()
        for entry in document["annotations"]:
            box = entry.get("bbox")
            if not box:
                builder.boxless += 1
                continue
            x, y, width, height = (_finite(value) for value in box)
            name = names.setdefault(entry["category_id"], f"category {entry['category_id']}")
            annotated = AnnotatedObject(name, (x, y, x + width, y + height), crowd=bool(entry.get("iscrowd", 0)))
            by_image[entry["image_id"]].append(annotated)
        known = {entry["id"] for entry in document["images"]}
        unlisted = sum(len(objects) for image, objects in by_image.items() if image not in known)
        if unlisted:
            notes = [*notes, f"{unlisted} boxes belong to images that {source.name} does not list"]
        for entry in images:
            path = _find_file(folder, entry["file_name"])
            if path is None:
                reason = f"{folder / entry['file_name']} is not there, though {source.name} lists it"
                builder.skipped.append(SkippedImage(str(folder / entry["file_name"]), reason))
                continue
            builder.add(path, by_image.get(entry["id"], []), _size(entry))
        classes = tuple(names[key] for key in sorted(names))
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{source} is not in COCO's form ({error!r})") from error
    if not builder.objects:
        raise MissingError(
            f"none of the {len(images)} images of {source} is in {folder}"
            + (f"; the first: {builder.skipped[0].reason}" if builder.skipped else "")
        )
    return builder.finish(classes, notes)


def _find_file(folder: Path, name: str) -> Path | None:
    """The image's file below the folder: by its name, or by its name without the folders that other tools write."""
    plain = Path(name.replace("\\", "/"))
    return next((path for path in (folder / plain, folder / plain.name) if path.is_file()), None)


def _finite(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.nan


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = (int(entry.get(side) or 0) for side in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None
