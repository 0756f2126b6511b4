"""Intervals for answers that are not independent: whole participants are drawn again, not single answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from encoscope.errors import UsageError
from encoscope.metrics import Interval

Table = Float[np.ndarray, "participants questions"]
Rows = Int[np.ndarray, "draws participants"]
Statistic = Callable[[np.ndarray], np.ndarray]
"""A number for each draw of participants, given by their rows ([draws, participants]), some of them more than once."""
_CHUNK = 100  # draws made at once: what they take in memory stays small


def clustered(
    strata: Sequence[int] | Int[np.ndarray, " participants"],
    statistic: Statistic,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of a statistic, with participants drawn again inside each stratum.

    strata: of each participant; those who saw the same subset share one, so that every draw has an answer wherever the
    sample has one. With a single participant in every stratum the interval has no width: it says nothing.

    Raises:
        UsageError: no participant.
    """
    groups = np.asarray(strata)
    if not groups.size:
        raise UsageError("an interval needs at least one participant")
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    drawn = []
    for first in range(0, resamples, _CHUNK):
        number = min(_CHUNK, resamples - first)
        parts = [rows[rng.integers(len(rows), size=(number, len(rows)))] for rows in members]
        drawn.append(statistic(np.concatenate(parts, 1)))
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(np.arange(len(groups))[None])[0]), float(low), float(high), level)


def mean_of(values: Table) -> Statistic:
    """The mean of all answers of the participants drawn; NaNs are no answers."""
    totals, counts = np.nansum(values, 1), (~np.isnan(values)).sum(1)
    return lambda rows: totals[rows].sum(1) / counts[rows].sum(1)


def median_of(values: Table) -> Statistic:
    """The median of all answers of the participants drawn; NaNs are no answers."""
    counts = (~np.isnan(values)).sum(1)

    def statistic(rows: np.ndarray) -> np.ndarray:
        ordered = np.sort(values[rows].reshape(len(rows), -1), axis=1)  # NaNs come last
        number = counts[rows].sum(1)
        middle = np.stack([(number - 1) // 2, number // 2], 1)
        return np.take_along_axis(ordered, middle, 1).mean(1)

    return statistic


def question_means(values: Table, rows: Rows) -> Float[np.ndarray, "draws questions"]:
    """The mean of each question over the participants drawn; NaN where none of them has an answer."""
    counts = (~np.isnan(values))[rows].sum(1)
    totals = np.nan_to_num(values)[rows].sum(1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def difference(
    one: Table, other: Table, strata: Sequence[int] | Int[np.ndarray, " participants"], seed: int = 0
) -> tuple[Interval | None, int]:
    """By how much one method's answers exceed another's, question by question, and over how many questions.

    The mean over the questions that both have answers to of the difference of their means, so that neither method gains
    by easier questions or by a subset that more people saw. None where no question has both.
    """
    everyone = np.arange(len(one))[None]
    both = ~np.isnan(question_means(one, everyone)[0] - question_means(other, everyone)[0])
    if not both.any():
        return None, 0
    first, second = one[:, both], other[:, both]
    found = clustered(
        strata, lambda rows: (question_means(first, rows) - question_means(second, rows)).mean(1), seed=seed
    )
    return found, int(both.sum())
