"""CorLoc with candidates: one region chosen per image, and whether its box finds an object.

NAVE, and anything else that parts a whole image, offers many candidates; choosing among them with the true boxes at
hand is an oracle, not localisation. So each score here stands beside the number of candidates and a choice made without
the truth (``select="border"``).
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
    """The regions of one image among which one is chosen; N may be 0.

    outer, inner: ``[x0, y0, x1, y1]`` in the image's pixels; a method with one box a region gives it twice. area:
    pixels of each. contact: how many of them lie on the image's border.
    """

    outer: Float[np.ndarray, "regions 4"]
    inner: Float[np.ndarray, "regions 4"]
    area: Int[np.ndarray, " regions"]
    contact: Int[np.ndarray, " regions"]

    def __len__(self) -> int:
        return len(self.outer)


@dataclass(frozen=True)
class Localization:
    """What was chosen in one image.

    index: of the candidate; None without candidates. iou: of its scored box with the best true box, 0 without
    candidates, NaN for an image without true boxes. candidates: how many there were.
    """

    index: int | None
    iou: float
    candidates: int


def compute_box_ious(
    boxes: Float[np.ndarray, "boxes 4"], truth: Float[np.ndarray, "objects 4"]
) -> Float[np.ndarray, "boxes objects"]:
    """Intersection over union of every pair, areas being (x1 - x0)(y1 - y0) as in the evaluation code of the papers.

    0 where both have no area.
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = _areas(boxes)[:, None] + _areas(truth)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def localize(
    candidates: Candidates,
    truth: Float[np.ndarray, "objects 4"],
    *,
    select: Select | str = "outer",
    score: Score | str = "outer",
) -> Localization:
    """Choose one candidate of an image and score its box.

    select: "outer" and "inner", with the truth at hand, the candidate whose outer (inner) box has the highest IoU with
    any true box (NAVE, section 4.2: an oracle); "border", without it, the candidate that touches the image's border
    with the fewest pixels. Ties go to the larger region, then to the first.
    score: the box of the chosen candidate that counts. The paper's "inner-box" can be read as select and score "inner",
    or, as its authors' code does, select "inner" and score "outer".

    Raises:
        UsageError: another word for select or score.
    """
    if select not in get_args(Select) or score not in get_args(Score):
        raise UsageError(f"select is outer, inner or border and score is outer or inner, not {select!r} and {score!r}")
    if not len(truth):
        return Localization(None, float("nan"), len(candidates))
    if not len(candidates):
        return Localization(None, 0.0, 0)
    scores = {kind: compute_box_ious(getattr(candidates, kind), truth).max(1) for kind in ORACLES}
    order = candidates.contact if select == "border" else -scores[select]
    index = int(np.lexsort((-candidates.area, order))[0])
    return Localization(index, float(scores[score][index]), len(candidates))


def corloc(
    ious: Sequence[float] | Float[np.ndarray, " images"], threshold: float = 0.5, *, strict: bool = True
) -> float:
    """The share of images whose chosen box overlaps an object by more than ``threshold``; NaNs are left out.

    strict: "larger than 50 %", as NAVE's paper says; False counts exactly 0.5 as well, as LOST's code does. NaN where
    no image has an object.
    """
    return float(np.nanmean(compute_hits(ious, threshold, strict=strict))) if not np.isnan(ious).all() else float("nan")


def compute_hits(
    ious: Sequence[float] | Float[np.ndarray, " images"], threshold: float = 0.5, *, strict: bool = True
) -> Float[np.ndarray, " images"]:
    """1 for each image found, 0 for the others, NaN for those without objects: what intervals are drawn over."""
    values = np.asarray(ious, dtype=np.float64)
    found = values > threshold if strict else values >= threshold
    return np.where(np.isnan(values), np.nan, found.astype(np.float64))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
