"""What the audit's figures are worth: do they tell networks that learned a cue from those that did not?

A figure must not be judged on the cues that it was chosen on, nor a threshold on the networks that it was read from. So
each kind of cue is left out in turn, with all its networks; the others say in which direction the figure points and
where its threshold is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.analysis.associations import Association
from encoscope.analysis.cue_response import CueResponse
from encoscope.errors import UsageError
from encoscope.metrics import Interval, auc_interval

WITH_CUE, WITH_LABELS = "mark given", "labels only"
FIGURES = {
    "same change in all images": WITH_CUE,
    "size of the change": WITH_CUE,
    "answers that change": WITH_CUE,
    "rise of one answer": WITH_CUE,
    "segments that follow": WITH_CUE,
    "strongest cluster": WITH_LABELS,
    "strongest feature": WITH_LABELS,
}
"""The audit's figures, and what the audit is given."""


@dataclass(frozen=True)
class LeftOut:
    """How a figure told networks apart whose kind of cue had no part in reading it.

    Attributes:
        auc: AUC of their distances from the others' threshold, in the others' direction.
        right: number of networks that lie on their side of it.
        networks: number of networks.
        kinds: kinds of cues, in the order of the next two.
        directions: for each kind left out, 1 where the others say that a higher figure means a cue, -1 for a lower one.
        thresholds: the others' threshold for each kind left out.
    """

    auc: Interval
    right: int
    networks: int
    kinds: tuple[str, ...]
    directions: tuple[int, ...]
    thresholds: tuple[float, ...]


def leave_out(
    with_cue: Float[np.ndarray, " pairs"], without: Float[np.ndarray, " pairs"], kinds: Sequence[str]
) -> LeftOut:
    """Judge a figure with each kind of cue left out in turn; no network has a part in reading its own figure.

    For each kind left out, the direction is the sign of the difference of the others' means, and the threshold lies
    midway
    between these.

    Args:
        with_cue: the figure of the networks with a cue, one for each pair.
        without: the figure of the networks without, one for each pair.
        kinds: the kind of cue that each pair is audited with.

    Returns:
        The judgement.

    Raises:
        UsageError: for fewer than two kinds.
    """
    names = tuple(dict.fromkeys(kinds))
    if len(names) < 2:
        raise UsageError(f"leaving a kind of cue out needs at least two kinds, not {len(names)}")
    groups = np.array([names.index(kind) for kind in kinds])
    directions, thresholds = [], []
    for group in range(len(names)):
        high, low = with_cue[groups != group].mean(), without[groups != group].mean()
        directions.append(-1 if high < low else 1)
        thresholds.append(float(high + low) / 2)
    direction, threshold = np.array(directions)[groups], np.array(thresholds)[groups]
    positive, negative = direction * (with_cue - threshold), direction * (without - threshold)
    right = int((positive > 0).sum() + (negative <= 0).sum())
    interval = auc_interval(positive, negative)
    return LeftOut(interval, right, 2 * len(groups), names, tuple(directions), tuple(thresholds))


def collect_figures(response: CueResponse, ranked: Sequence[Association]) -> dict[str, float]:
    """Collect the audit's figures: excess over the control patch with the cue known, eta squared with labels only.

    Args:
        response: the audit with the cue known.
        ranked: the audit with labels only.

    Returns:
        Values by the names of ``FIGURES``.

    Raises:
        UsageError: for a network without classes.
    """
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
