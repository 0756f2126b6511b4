"""Small photos of a red thing before a blue ground, with panoptic masks and with boxes, in COCO's formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_masked_images(
    folder: Path,
    count: int,
    size: tuple[int, int],
    *,
    rows: tuple[int, int],
    width: int,
    step: int,
    hidden: int = 0,
) -> tuple[str, str]:
    """Write photos in which the thing moves to the right.

    Args:
        folder: Where they go.
        count: How many.
        size: (height, width) in pixels.
        rows: The first row of the thing, and the one after its last.
        width: The thing's width; its first left edge is half of ``step`` further on.
        step: How far it moves from photo to photo, in pixels.
        hidden: The side of the corner that is not annotated.

    Returns:
        The dataset strings of the masks, and of the boxes.
    """
    photos, pngs = folder / "photos", folder / "panoptic"
    photos.mkdir()
    pngs.mkdir()
    rng = np.random.default_rng(0)
    (top, bottom), (height, across) = rows, size
    images, parts, objects = [], [], []
    for number in range(count):
        pixels = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
        ids = np.full((*size, 3), 9 * np.array([1, 0, 0]), dtype=np.uint8)
        left = (step + 1) // 2 + step * number
        pixels[..., 2] += 150
        pixels[top:bottom, left : left + width] = (220, 30, 30)
        ids[top:bottom, left : left + width, 0] = 5
        ids[:hidden, :hidden] = 0
        Image.fromarray(pixels).save(photos / f"{number}.png")
        Image.fromarray(ids).save(pngs / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": across, "height": height})
        segments = [{"id": 5, "category_id": 1}, {"id": 9, "category_id": 187}]
        parts.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [left, top, width, bottom - top]}
        objects.append(box | {"iscrowd": 0, "area": width * (bottom - top)})
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}]
    strings = []
    for name, known in (("panoptic", parts), ("boxes", objects)):
        document = {"images": images, "annotations": known, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(document))
        strings.append(f"coco:{photos}#{folder / f'{name}.json'}")
    return strings[0], strings[1]
