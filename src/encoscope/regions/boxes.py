"""The two boxes of a region: its extremes, and the box about its median (NAVE, appendix A).

Boxes are ``[x0, y0, x1, y1]`` in pixels; both extremes are inside the box.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from encoscope.errors import UsageError

OuterBox: TypeAlias = tuple[int, int, int, int]
InnerBox: TypeAlias = tuple[float, float, float, float]


def compute_outer_box(mask: Bool[np.ndarray, "height width"]) -> OuterBox:
    """Compute the box of a region's extremes.

    Args:
        mask: True for the pixels of the region.

    Returns:
        The first and last column and row of the region, in pixels; nothing is added to the last ones.

    Raises:
        UsageError: The mask is empty.

    Example:
        >>> compute_outer_box(np.array([[False, True, True], [False, False, True]]))
        (1, 0, 2, 1)

    Source: NAVE, appendix A, algorithm 2.
    """
    rows, columns = _profiles(mask)
    ys, xs = np.flatnonzero(rows), np.flatnonzero(columns)
    return int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])


def compute_inner_box(mask: Bool[np.ndarray, "height width"]) -> InnerBox:
    """Compute the box about a region's median column and row.

    Along each axis the box extends from the median by the distance to the nearer extreme, so it lies inside the outer
    box.

    Args:
        mask: True for the pixels of the region.

    Returns:
        The box in pixels. The median of an even number of pixels may end in .5, and so may the corners.

    Raises:
        UsageError: The mask is empty.

    Source: NAVE, appendix A, algorithm 3.
    """
    rows, columns = _profiles(mask)
    (x0, x1), (y0, y1) = _about_median(columns), _about_median(rows)
    return x0, y0, x1, y1


def _profiles(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in each row and in each column."""
    rows, columns = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    if not rows.any():
        raise UsageError("an empty mask has no box")
    return rows, columns


def _about_median(profile: np.ndarray) -> tuple[float, float]:
    # the median coordinate of the pixels, from how many of them lie at each coordinate: no list of pixels, no sort
    cumulated = np.cumsum(profile)
    count = cumulated[-1]
    low, high = np.searchsorted(cumulated, [(count - 1) // 2, count // 2], side="right")
    median = (low + high) / 2
    ends = np.flatnonzero(profile)
    reach = min(median - ends[0], ends[-1] - median)
    return float(median - reach), float(median + reach)
