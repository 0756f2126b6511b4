"""CorLoc with candidates: one region is chosen for each image, and its box is compared with the objects' boxes.

NAVE, and every other method that segments a whole image, gives many candidates. To choose among them by the
ground-truth boxes is an oracle, not localization. So each score here also states the number of candidates, and there is
a choice that does not use the ground truth (``select="border"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int

from encoscope.errors import UsageError

Select: TypeAlias = Literal["outer", "inner", "border"]
Score: TypeAlias = Literal["outer", "inner"]
ORACLES: tuple[Select, ...] = ("outer", "inner")


@dataclass(frozen=True, eq=False)
class Candidates:
    """The regions of an image among which one is chosen; there may be none.

    Attributes:
        outer: Outer boxes, ``[x0, y0, x1, y1]`` in the image's pixels.
        inner: Inner boxes; the outer boxes again for a method that has one box for each region.
        area: Pixels of each region.
        contact: How many of these pixels lie on the image's border.
    """

    outer: Float[np.ndarray, "regions 4"]
    inner: Float[np.ndarray, "regions 4"]
    area: Int[np.ndarray, " regions"]
    contact: Int[np.ndarray, " regions"]

    def __len__(self) -> int:
        return len(self.outer)


@dataclass(frozen=True)
class Localization:
    """The candidate that was chosen in an image.

    Attributes:
        index: Its position among the candidates; None if there are none, or no ground-truth box.
        iou: IoU of its scored box with the best ground-truth box; 0 without candidates, NaN for an image without
            ground-truth boxes.
        candidates: Number of candidates.
    """

    index: int | None
    iou: float
    candidates: int


def compute_box_ious(
    boxes: Float[np.ndarray, "boxes 4"], ground_truth: Float[np.ndarray, "objects 4"]
) -> Float[np.ndarray, "boxes objects"]:
    """Compute the intersection over union of every pair of boxes.

    Args:
        boxes: ``[x0, y0, x1, y1]`` each. The area is (x1 - x0)(y1 - y0), as in the papers' evaluation code.
        ground_truth: The boxes to compare them with.

    Returns:
        IoU in [0, 1], a row for each of ``boxes``; 0 where both boxes have no area.

    Example:
        >>> compute_box_ious(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 1], [2, 2, 3, 3]])).tolist()
        [[0.5, 0.0]]
    """
    low = np.maximum(boxes[:, None, :2], ground_truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], ground_truth[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = _areas(boxes)[:, None] + _areas(ground_truth)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def localize(
    candidates: Candidates,
    ground_truth: Float[np.ndarray, "objects 4"],
    *,
    select: Select | str = "outer",
    score: Score | str = "outer",
) -> Localization:
    """Choose one candidate of an image and score its box.

    Args:
        candidates: The regions to choose from.
        ground_truth: The boxes of the image's objects.
        select: "outer" or "inner": the candidate whose outer (inner) box has the highest IoU with any ground-truth box,
            which is an oracle; "border": the candidate with the fewest pixels on the image's border, which needs no
            ground truth. Ties go to the larger region, then to the first.
        score: Which box of the chosen candidate counts. The paper's "inner-box" can be read as "inner" for ``select``
            and ``score``, or, as in its authors' code, as ``select="inner"`` with ``score="outer"``.

    Returns:
        The chosen candidate with its IoU.

    Raises:
        UsageError: ``select`` or ``score`` is none of these words.

    Source: NAVE, section 4.2.
    """
    if select not in get_args(Select) or score not in get_args(Score):
        raise UsageError(f"select is outer, inner or border and score is outer or inner, not {select!r} and {score!r}")
    if not len(ground_truth):
        return Localization(None, float("nan"), len(candidates))
    if not len(candidates):
        return Localization(None, 0.0, 0)
    scores = {kind: compute_box_ious(getattr(candidates, kind), ground_truth).max(1) for kind in ORACLES}
    order = candidates.contact if select == "border" else -scores[select]
    index = int(np.lexsort((-candidates.area, order))[0])
    return Localization(index, float(scores[score][index]), len(candidates))


def corloc(
    ious: Sequence[float] | Float[np.ndarray, " images"], threshold: float = 0.5, *, strict: bool = True
) -> float:
    """Compute CorLoc: the share of images whose chosen box overlaps an object by more than a threshold.

    Args:
        ious: The IoU of each image's chosen box; NaN for an image without objects, which does not count.
        threshold: IoU from which an object counts as localized, in [0, 1]; 0.5 by convention.
        strict: Whether an IoU equal to the threshold does not count (NAVE: "larger than 50 %"). LOST's code counts it.

    Returns:
        A share in [0, 1]; NaN where no image has an object.

    Example:
        >>> corloc([0.7, 0.5, float("nan")])
        0.5

    Source: NAVE, section 4.2.
    """
    return float(np.nanmean(compute_hits(ious, threshold, strict=strict))) if not np.isnan(ious).all() else float("nan")


def compute_hits(
    ious: Sequence[float] | Float[np.ndarray, " images"], threshold: float = 0.5, *, strict: bool = True
) -> Float[np.ndarray, " images"]:
    """Compute for each image whether its object is localized, as ``bootstrap`` takes it.

    Args:
        ious: As for ``corloc``.
        threshold: As for ``corloc``.
        strict: As for ``corloc``.

    Returns:
        1 for an image whose object is localized, 0 for one whose object is not, NaN for an image without objects.
    """
    values = np.asarray(ious, dtype=np.float64)
    localized = values > threshold if strict else values >= threshold
    return np.where(np.isnan(values), np.nan, localized.astype(np.float64))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
