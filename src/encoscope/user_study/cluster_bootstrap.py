"""Intervals for answers that are not independent: whole participants are drawn again, not single answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.metrics import Interval

Table = Float[np.ndarray, "participants questions"]
Rows = Int[np.ndarray, "draws participants"]
Statistic = Callable[[np.ndarray], np.ndarray]
"""A number for each draw of participants. A draw is their rows ([draws, participants]), some of them more than once."""
_CHUNK = 100  # draws computed at a time, to bound the memory


def bootstrap_participants(
    strata: Sequence[int] | Int[np.ndarray, " participants"],
    statistic: Statistic,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    random_state: int = RANDOM_STATE,
) -> Interval:
    """Compute the percentile bootstrap interval of a statistic, with participants drawn again inside each stratum.

    With a single participant in every stratum the interval has no width and says nothing.

    Args:
        strata: The stratum of each participant. Those who saw the same subset share one, so that every draw has an
            answer wherever the sample has one.
        statistic: Gives the statistic of each draw.
        resamples: The number of draws.
        level: The share of the draws inside the interval, 0 to 1.
        random_state: The seed of the draws.

    Returns:
        The statistic of the sample with its interval.

    Raises:
        UsageError: If there is no participant.
    """
    groups = np.asarray(strata)
    if not groups.size:
        raise UsageError("an interval needs at least one participant")
    rng = np.random.default_rng(random_state)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    values = []
    for first in range(0, resamples, _CHUNK):
        number = min(_CHUNK, resamples - first)
        draws = [rows[rng.integers(len(rows), size=(number, len(rows)))] for rows in members]
        values.append(statistic(np.concatenate(draws, 1)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(np.arange(len(groups))[None])[0]), float(low), float(high), level)


def mean_statistic(values: Table) -> Statistic:
    """Make the statistic that is the mean of all answers of the participants drawn.

    Args:
        values: An answer of each participant to each question; NaN where there is none.

    Returns:
        The statistic.
    """
    totals, counts = np.nansum(values, 1), (~np.isnan(values)).sum(1)
    return lambda rows: totals[rows].sum(1) / counts[rows].sum(1)


def median_statistic(values: Table) -> Statistic:
    """Make the statistic that is the median of all answers of the participants drawn.

    Args:
        values: An answer of each participant to each question; NaN where there is none.

    Returns:
        The statistic.
    """
    counts = (~np.isnan(values)).sum(1)

    def statistic(rows: np.ndarray) -> np.ndarray:
        ordered = np.sort(values[rows].reshape(len(rows), -1), axis=1)  # NaNs come last
        number = counts[rows].sum(1)
        middle = np.stack([(number - 1) // 2, number // 2], 1)
        return np.take_along_axis(ordered, middle, 1).mean(1)

    return statistic


def compute_question_means(values: Table, rows: Rows) -> Float[np.ndarray, "draws questions"]:
    """Compute the mean of each question over the participants drawn.

    Args:
        values: An answer of each participant to each question; NaN where there is none.
        rows: The participants of each draw.

    Returns:
        The means; NaN where no participant of the draw has an answer.
    """
    counts = (~np.isnan(values))[rows].sum(1)
    totals = np.nan_to_num(values)[rows].sum(1)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def compute_difference(
    first: Table,
    second: Table,
    strata: Sequence[int] | Int[np.ndarray, " participants"],
    random_state: int = RANDOM_STATE,
) -> tuple[Interval | None, int]:
    """Compute by how much the answers to one method exceed those to another, question by question.

    It is the mean, over the questions that both have answers to, of the difference of their means. So neither method
    gains by easier questions or by a subset that more people saw.

    Args:
        first: An answer of each participant to each question about the first method; NaN where there is none.
        second: The same about the second method.
        strata: The stratum of each participant, as in `bootstrap_participants`.
        random_state: The seed of the draws.

    Returns:
        The difference with its interval, None where no question has answers to both; and the number of questions.
    """
    everyone = np.arange(len(first))[None]
    both = ~np.isnan(compute_question_means(first, everyone)[0] - compute_question_means(second, everyone)[0])
    if not both.any():
        return None, 0
    minuend, subtrahend = first[:, both], second[:, both]

    def statistic(rows: np.ndarray) -> np.ndarray:
        return (compute_question_means(minuend, rows) - compute_question_means(subtrahend, rows)).mean(1)

    return bootstrap_participants(strata, statistic, random_state=random_state), int(both.sum())
