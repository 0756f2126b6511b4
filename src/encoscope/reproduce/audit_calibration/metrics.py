"""What the audit's figures are worth: do they tell networks that learned a mark from those that did not?

No figure may be judged on the marks it was chosen on, nor a threshold on the networks it was read from. So each kind of
mark is left out in turn, with all its networks; the others say which way the figure points and where its threshold is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.analysis.audit import Association, CueResponse
from encoscope.errors import UsageError
from encoscope.metrics import Interval, auc_interval

GIVEN, LABELS = "mark given", "labels only"
FIGURES = {
    "same change in all images": GIVEN,
    "size of the change": GIVEN,
    "answers that change": GIVEN,
    "rise of one answer": GIVEN,
    "segments that follow": GIVEN,
    "strongest cluster": LABELS,
    "strongest feature": LABELS,
}
"""The audit's figures, and what the audit is given."""


@dataclass(frozen=True)
class LeftOut:
    """How a figure told networks apart whose kind of mark had no part in reading it.

    auc: of their distances from the others' threshold, in the others' direction. right: how many of the networks lie on
    their side of it. directions: for each of ``kinds`` left out, 1 where the others say that a higher figure means a
    mark, -1 for a lower one; thresholds: in the same order.
    """

    auc: Interval
    right: int
    networks: int
    kinds: tuple[str, ...]
    directions: tuple[int, ...]
    thresholds: tuple[float, ...]


def leave_out(
    marked: Float[np.ndarray, " pairs"], unmarked: Float[np.ndarray, " pairs"], kinds: Sequence[str]
) -> LeftOut:
    """Judge a figure: ``marked`` and ``unmarked`` networks in pairs, each pair audited with one kind of mark.

    For each kind left out, the direction is the sign of the difference of the others' means, the threshold lies midway
    between these. No network has a part in reading its own figure. UsageError for fewer than two kinds.
    """
    names = tuple(dict.fromkeys(kinds))
    if len(names) < 2:
        raise UsageError(f"leaving a kind of mark out needs at least two kinds, not {len(names)}")
    groups = np.array([names.index(kind) for kind in kinds])
    directions, thresholds = [], []
    for group in range(len(names)):
        with_mark, without = marked[groups != group].mean(), unmarked[groups != group].mean()
        directions.append(-1 if with_mark < without else 1)
        thresholds.append(float(with_mark + without) / 2)
    way, middle = np.array(directions)[groups], np.array(thresholds)[groups]
    positive, negative = way * (marked - middle), way * (unmarked - middle)
    right = int((positive > 0).sum() + (negative <= 0).sum())
    interval = auc_interval(positive, negative)
    return LeftOut(interval, right, 2 * len(groups), names, tuple(directions), tuple(thresholds))


def figures(response: CueResponse, ranked: Sequence[Association]) -> dict[str, float]:
    """The audit's figures as numbers: excess over the control patch with a mark given, eta squared with labels only."""
    answers, control = response.answers, response.answers_control
    if answers is None or control is None or response.toward is None:
        raise UsageError("calibration needs networks that name classes")
    strongest = {kind: max(item.eta_squared for item in ranked if item.kind == kind) for kind in ("cluster", "feature")}
    values = (
        response.consistency_excess.value,
        response.size.value - response.size_control.value,
        answers.value - control.value,
        response.toward[1],
        response.follows.value - response.follows_control.value,
        strongest["cluster"],
        strongest["feature"],
    )
    return dict(zip(FIGURES, values, strict=True))
