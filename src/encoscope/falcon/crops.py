"""The part of an image that a unit responds to: from a GradCAM to a mask, its largest box, and the crop (section 3.2).

The boxes of connected pixels are found by "downright boxing": by passing the first column and row of each component
down and to the right, for many masks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.images import Geometry, LoadedImage, resize_image

Box = tuple[int, int, int, int]
"""[x0, y0, x1, y1], inclusive extremes in the original image's pixels."""


@concise_repr
@dataclass(frozen=True, eq=False)
class Crop:
    """The part of an image that a unit responds to.

    Attributes:
        box: ``[x0, y0, x1, y1]``, inclusive extremes in the original image's pixels; the whole image where no part of
            the map stands out.
        cam: The GradCAM that it was cropped from, 0 to 255, on the layer's grid.
    """

    box: Box
    cam: np.ndarray


def to_original_box(box: Sequence[int], geometry: Geometry) -> Box:
    """Map a box of the network's canvas to the original image.

    Args:
        box: Inclusive extremes on the canvas.
        geometry: How the image was prepared.

    Returns:
        The box of all original pixels that it touches.
    """
    height, width = geometry.original
    (tall, wide), (top, left) = geometry.resized, geometry.offset
    x0, y0, x1, y1 = box
    return (
        min(max(floor((x0 + left) * width / wide), 0), width - 1),
        min(max(floor((y0 + top) * height / tall), 0), height - 1),
        min(max(ceil((x1 + 1 + left) * width / wide) - 1, 0), width - 1),
        min(max(ceil((y1 + 1 + top) * height / tall) - 1, 0), height - 1),
    )


def cut_box(image: LoadedImage, box: Box, size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """Crop an image, and resize the crop without keeping its aspect, as the authors do.

    Args:
        image: The image.
        box: Inclusive extremes in its pixels.
        size: (height, width) of the result.
        interpolation: "bicubic" or "bilinear".

    Returns:
        The pixels.

    Source: FALCON, section 3.2.
    """
    x0, y0, x1, y1 = box
    return resize_image(image.pixels[y0 : y1 + 1, x0 : x1 + 1], size, interpolation)


def compute_crops(
    cams: Sequence[Float[Tensor, "_rows _columns"]], geometry: Geometry, mask_threshold: float
) -> list[Crop]:
    """Compute the crops of one image from its maps.

    Args:
        cams: GradCAMs of several units.
        geometry: How the image was prepared.
        mask_threshold: The share of a map's range from which on it is cropped, in (0, 1].

    Returns:
        A crop for each map.
    """
    boxes = find_largest_boxes(compute_masks(cams, geometry.canvas, mask_threshold).numpy())
    height, width = geometry.original
    whole = (0, 0, width - 1, height - 1)
    crops = []
    for cam, box in zip(cams, boxes.tolist(), strict=True):
        high = float(cam.max())
        levels = (cam / high * 255).round() if high > 0 else torch.zeros_like(cam)
        crops.append(Crop(whole if box[0] < 0 else to_original_box(box, geometry), levels.numpy().astype(np.uint8)))
    return crops


def compute_masks(
    cams: Sequence[Float[Tensor, "_rows _columns"]], canvas: tuple[int, int], mask_threshold: float = 0.6
) -> Bool[Tensor, "cams height width"]:
    """Find the part of each map that stands out.

    Args:
        cams: GradCAMs, which may differ in size.
        canvas: (rows, columns) of pixels that they are resized to, bilinearly.
        mask_threshold: The share of a map's range at or above which a pixel counts, in (0, 1]; 0.6 is the authors'.

    Returns:
        A mask for each map; empty for a map without a range (all zero, or all the same).

    Source: FALCON, section 3.2; the constant is that of the authors' code.
    """
    if not cams:
        return torch.zeros(0, *canvas, dtype=torch.bool)
    grow = partial(torch.nn.functional.interpolate, size=canvas, mode="bilinear", align_corners=False)
    # one by one: maps of units of several layers differ in size
    large = torch.cat([grow(cam.float()[None, None])[0] for cam in cams])
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return ((large - low) >= mask_threshold * (high - low)) & (high > low)


def find_largest_boxes(masks: Bool[np.ndarray, "masks height width"]) -> Int[np.ndarray, "masks 4"]:
    """Find the largest box of each mask.

    A pixel is active when it is true, or when both its left and its upper neighbor are active. Each active pixel
    carries the smallest column and row of those that it was reached from, from the left or from above. A box ends where
    neither the right nor the lower neighbor is active. Of equally large ones the one that ends first is taken, row by
    row.

    Args:
        masks: True where a pixel counts.

    Returns:
        ``[x0, y0, x1, y1]`` of each mask, inclusive extremes; -1 for a mask without a true pixel.

    Example:
        >>> mask = np.zeros((1, 4, 5), dtype=bool)
        >>> mask[0, 1:3, 2:5] = True
        >>> find_largest_boxes(mask).tolist()
        [[2, 1, 4, 2]]

    Source: FALCON, section 3.2, and "downright boxing" of the authors' code.
    """
    count, height, width = masks.shape
    far = max(height, width) + 1  # "not active"
    columns = np.arange(width)
    best = np.full((count, 4), -1, dtype=np.int64)
    area = np.zeros(count, dtype=np.int64)
    above = np.zeros((count, width), dtype=bool)
    above_x = np.full((count, width), far, dtype=np.int64)
    above_y = np.full((count, width), far, dtype=np.int64)
    for y in range(height):
        row = masks[:, y]
        if row.any() or above.any():
            active = _active(row, above)
            x = _carried(np.minimum(columns, above_x), active, far)
            top = _carried(np.minimum(y, above_y), active, far)
        else:
            active, x, top = above, above_x, above_y
        if y:
            _ends(above, active, above_x, above_y, y - 1, best, area)
        above, above_x, above_y = active, x, top
    if height:
        _ends(above, np.zeros_like(above), above_x, above_y, height - 1, best, area)
    return best


def _active(row: np.ndarray, above: np.ndarray) -> np.ndarray:
    """row | (left neighbor active & above), along whole rows: true since the last gap above was a true pixel."""
    columns = np.arange(row.shape[1])
    last_true = np.maximum.accumulate(np.where(row, columns, -1), axis=1)
    last_gap = np.maximum.accumulate(np.where(above, -1, columns), axis=1)
    return (last_true >= 0) & (last_true >= last_gap)


def _carried(values: np.ndarray, active: np.ndarray, far: int) -> np.ndarray:
    """The smallest value so far in each run of active pixels."""
    runs = np.cumsum(~active, axis=1)  # one number a run, rising: earlier runs must not reach into later ones
    lowest = np.minimum.accumulate(np.where(active, values, far) - runs * (far + 1), axis=1)
    return np.where(active, lowest + runs * (far + 1), far)


def _ends(
    active: np.ndarray, below: np.ndarray, x: np.ndarray, top: np.ndarray, y: int, best: np.ndarray, area: np.ndarray
) -> None:
    """Take the boxes that end in row ``y`` and are larger than the largest so far."""
    right = np.zeros_like(active)
    right[:, :-1] = active[:, 1:]
    corners = active & ~right & ~below
    if not corners.any():
        return
    columns = np.arange(active.shape[1])
    areas = np.where(corners, (columns - x + 1) * (y - top + 1), 0)
    end = areas.argmax(1)
    masks = np.arange(len(areas))
    larger = areas[masks, end] > area
    rows, ends = masks[larger], end[larger]
    best[rows] = np.stack([x[rows, ends], top[rows, ends], ends, np.full(len(rows), y)], axis=1)
    area[rows] = areas[rows, ends]
