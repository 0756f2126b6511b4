"""The two boxes of a region: its extremes, and the box about its median (NAVE, appendix A).

Boxes are ``[x0, y0, x1, y1]`` in pixels, inclusive extremes.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from encoscope.errors import UsageError

OuterBox: TypeAlias = tuple[int, int, int, int]
InnerBox: TypeAlias = tuple[float, float, float, float]


def compute_outer_box(mask: Bool[np.ndarray, "height width"]) -> OuterBox:
    """The extremes of a region (Algorithm 2), without a +1. UsageError for an empty mask."""
    rows, columns = _profiles(mask)
    ys, xs = np.flatnonzero(rows), np.flatnonzero(columns)
    return int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])


def compute_inner_box(mask: Bool[np.ndarray, "height width"]) -> InnerBox:
    """The box about a region's median column and row (Algorithm 3). UsageError for an empty mask.

    Along each axis it reaches from the median as far as the nearer extreme, so it lies inside the outer box and, with
    that, inside the image. Medians of evenly many pixels may be halves, so the corners may be, too.
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
    until = np.cumsum(profile)
    count = until[-1]
    low, high = np.searchsorted(until, [(count - 1) // 2, count // 2], side="right")
    median = (low + high) / 2
    ends = np.flatnonzero(profile)
    reach = min(median - ends[0], ends[-1] - median)
    return float(median - reach), float(median + reach)
