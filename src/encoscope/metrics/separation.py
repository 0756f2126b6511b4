"""How well values tell two groups apart: CoSy's AUC and MAD of a unit's activations, and the AUC of a few values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.stats import mannwhitneyu, norm

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Scores, as_float64, check_count
from encoscope.metrics.bootstrap import Interval

Alternative: TypeAlias = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True)
class Separation:
    """auc: in [0, 1], 0.5 by chance. mad: in standard deviations of the control. p: Mann-Whitney's."""

    auc: float
    mad: float
    p: float


def auc_mad(made: Scores, control: Scores, *, alternative: Alternative = "two-sided") -> Separation:
    """AUC and MAD of CoSy (Kopf et al., 2024, section 3.2), with the Mann-Whitney test of the same ranks.

    made: a unit's activations on images made for it (VITAL) or of its label (FALCON): the positives. control: on
    control images; for VITAL the unit's own top real images, so that 0.5 means "as strong as the strongest photos".

    AUC is the chance that a made image activates the unit more than a control image, ties counted half. MAD is
    (mean made - mean control) / standard deviation of the control, over n - 1; 0 where that is 0. alternative: the
    test's, of made against control.

    Raises:
        UsageError: an empty set, or NaN.
    """
    one, zero = as_float64(made, "made images"), as_float64(control, "control images")
    check_count(one, 1, "AUC")
    check_count(zero, 1, "AUC")
    test = mannwhitneyu(one, zero, alternative=alternative)
    p = 1.0 if np.isnan(test.pvalue) else float(test.pvalue)  # all values equal: nothing tells them apart
    # a spread of zero is seen from the values: rounding in the mean would make it 1e-17, and MAD huge
    constant = len(zero) < 2 or zero.min() == zero.max()
    mad = 0.0 if constant else float((one.mean() - zero.mean()) / zero.std(ddof=1))
    return Separation(float(test.statistic) / (len(one) * len(zero)), mad, p)


def auc_interval(positive: Scores, negative: Scores, *, level: float = 0.95) -> Interval:
    """The AUC of a few values with an interval that does not shrink to a point where it is 0 or 1.

    The chance that a positive value is larger than a negative one, ties counted half; its interval is Newcombe's (2006,
    part 2, method 5): all AUCs whose distance from this one is at most z standard deviations *at that AUC*, with Hanley
    and McNeil's variance for exponential scores. Values are taken to be independent.

    Raises:
        UsageError: an empty set, NaN, or a level outside (0, 1).
    """
    one, zero = as_float64(positive, "positive values"), as_float64(negative, "negative values")
    check_count(one, 1, "AUC")
    check_count(zero, 1, "AUC")
    if not 0 < level < 1:
        raise UsageError(f"level lies between 0 and 1, not {level}")
    signs = np.sign(one[:, None] - zero[None])
    value, z = float((signs + 1).mean() / 2), float(norm.ppf((1 + level) / 2))
    pairs, extra = len(one) * len(zero), (len(one) + len(zero)) / 2 - 1

    def beyond(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / pairs
        return (value - theta) ** 2 - z**2 * spread

    # the end at the value itself is no root that is looked for
    low = 0.0 if value == 0 else float(brentq(beyond, 0, value - 1e-9))  # pyright: ignore[reportArgumentType]
    high = 1.0 if value == 1 else float(brentq(beyond, value + 1e-9, 1))  # pyright: ignore[reportArgumentType]
    return Interval(value, low, high, level)
