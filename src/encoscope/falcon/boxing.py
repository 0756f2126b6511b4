"""The largest box of a mask by "downright boxing", for many masks at once.

The boxes of connected pixels are found by passing the first column and row of each component down and to the right.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int


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
