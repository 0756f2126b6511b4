"""COCO's panoptic annotations: for each image a PNG whose colors number the segments, and a JSON that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int64
from PIL import Image

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.file_kind import require_ordinary_file

Labels: TypeAlias = Literal["category", "segment"]
VOID = -1


@dataclass(frozen=True, eq=False)
class Panoptic:
    """The annotation of an image's pixels.

    Attributes:
        path: The image's file.
        labels: For each pixel a category's id, or a segment's number from 0 in the order of the file; -1 where nothing
            is annotated.
        names: The names of the labels that occur.
        things: Those labels that are countable objects by the file's categories (``isthing``), not stuff such as sky.
    """

    path: Path
    labels: Int64[np.ndarray, "height width"]
    names: dict[int, str]
    things: frozenset[int] = field(default_factory=frozenset)


def read_segment_ids(png: Path) -> Int64[np.ndarray, "height width"]:
    """Read the segment ids of a panoptic PNG.

    Args:
        png: The file.

    Returns:
        For each pixel red + 256 green + 256² blue; 0 is unlabelled.

    Raises:
        MissingError: The file does not exist.
        ImageError: It is no 8-bit color PNG.
    """
    require_ordinary_file(png)
    try:
        with Image.open(png) as file:
            if file.mode not in ("RGB", "RGBA"):
                raise ImageError(f"{png} is no panoptic PNG: its mode is {file.mode}, not RGB")
            colors = np.asarray(file.convert("RGB"), dtype=np.int64)
    except FileNotFoundError:
        raise MissingError(
            f"{png} is not there; the folder of panoptic PNGs lies beside its JSON, with its name"
        ) from None
    except OSError as error:
        raise ImageError(f"{png} cannot be read: {error}") from error
    return colors @ np.array([1, 256, 256**2])


def read_panoptic(images: str | Path, annotations: str | Path, labels: Labels | str = "category") -> Iterator[Panoptic]:
    """Read the annotated images of a COCO panoptic file, in its order.

    Args:
        images: The folder of the images.
        annotations: The JSON file; the PNGs are in the folder of the same name without suffix.
        labels: "category" joins all segments of a category, "segment" keeps each segment.

    Returns:
        An iterator that reads one image's annotation after the other.

    Raises:
        UsageError: ``labels`` is neither word.
        MissingError: A file does not exist.
        ImageError: The JSON or a PNG is damaged.
    """
    if labels not in ("category", "segment"):
        raise UsageError(f"labels is 'category' or 'segment', not {labels!r}")
    source = Path(annotations)
    require_ordinary_file(source)
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        categories = {entry["id"]: entry["name"] for entry in document["categories"]}
        countable = {entry["id"] for entry in document["categories"] if entry.get("isthing")}
        files = {entry["id"]: entry["file_name"] for entry in document["images"]}
        entries = document["annotations"]
    except FileNotFoundError:
        raise MissingError(f"{source} is not there; give COCO's panoptic JSON") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{source} is no COCO panoptic JSON ({error!r})") from error
    return _read(Path(images), source.with_suffix(""), entries, files, categories, countable, labels)


def _read(
    images: Path,
    masks: Path,
    entries: list[dict],
    files: dict[int, str],
    categories: dict[int, str],
    countable: set[int],
    labels: str,
) -> Iterator[Panoptic]:
    for entry in entries:
        ids = read_segment_ids(masks / entry["file_name"])
        numbered = np.full(ids.shape, VOID, dtype=np.int64)
        names: dict[int, str] = {}
        things: set[int] = set()
        for number, segment in enumerate(entry["segments_info"]):
            label = segment["category_id"] if labels == "category" else number
            numbered[ids == segment["id"]] = label
            names[label] = categories[segment["category_id"]]
            if segment["category_id"] in countable:
                things.add(label)
        yield Panoptic(images / files[entry["image_id"]], numbered, names, frozenset(things))
