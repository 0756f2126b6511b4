"""How well values separate two groups: CoSy's AUC and MAD of a unit's activations, and the AUC of a few values."""

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
    """How well a unit's activations separate positive images from control images.

    Attributes:
        auc: AUC in [0, 1], 0.5 by chance.
        mad: Difference of the means, in standard deviations of the control.
        p: The p-value of the Mann-Whitney test.
    """

    auc: float
    mad: float
    p: float


def auc_mad(positive: Scores, control: Scores, *, alternative: Alternative = "two-sided") -> Separation:
    """Compute AUC and MAD of CoSy, with the Mann-Whitney test of the same ranks.

    AUC is the probability that a positive image activates the unit more than a control image, ties counted half. MAD is
    (mean of positives - mean of control) / standard deviation of the control (over n - 1).

    Args:
        positive: The unit's activations on images synthesized for it (VITAL) or of its label (FALCON).
        control: Its activations on control images; for VITAL the unit's own top real images, so that an AUC of 0.5
            means "as strong as the strongest real images".
        alternative: The alternative hypothesis of the test, about positives compared with control.

    Returns:
        AUC, MAD (0 where the control does not vary) and the test's p-value.

    Raises:
        UsageError: A set is empty, or a value is NaN or infinite.

    Source: CoSy (Kopf et al., 2024), section 3.2.
    """
    ones, zeros = as_float64(positive, "positive images"), as_float64(control, "control images")
    check_count(ones, 1, "AUC")
    check_count(zeros, 1, "AUC")
    test = mannwhitneyu(ones, zeros, alternative=alternative)
    p = 1.0 if np.isnan(test.pvalue) else float(test.pvalue)  # all values are equal
    # compare the values: rounding in the mean would make a standard deviation of 0 about 1e-17, and MAD huge
    constant = len(zeros) < 2 or zeros.min() == zeros.max()
    mad = 0.0 if constant else float((ones.mean() - zeros.mean()) / zeros.std(ddof=1))
    return Separation(float(test.statistic) / (len(ones) * len(zeros)), mad, p)


def auc_interval(positive: Scores, negative: Scores, *, level: float = 0.95) -> Interval:
    """Compute the AUC of a few values with an interval that stays wide where the AUC is 0 or 1.

    The interval holds all AUCs whose distance from the measured one is at most z standard deviations *at that AUC*,
    with Hanley and McNeil's variance for exponential scores. Values are taken to be independent.

    Args:
        positive: Values of the positive group.
        negative: Values of the negative group.
        level: Confidence level, in (0, 1).

    Returns:
        The probability that a positive value is larger than a negative one, ties counted half, and its interval.

    Raises:
        UsageError: A set is empty, a value is NaN or infinite, or ``level`` is not in (0, 1).

    Source: Newcombe, 2006, part 2, method 5.
    """
    ones, zeros = as_float64(positive, "positive values"), as_float64(negative, "negative values")
    check_count(ones, 1, "AUC")
    check_count(zeros, 1, "AUC")
    if not 0 < level < 1:
        raise UsageError(f"level lies between 0 and 1, not {level}")
    signs = np.sign(ones[:, None] - zeros[None])
    value, z = float((signs + 1).mean() / 2), float(norm.ppf((1 + level) / 2))
    pairs, extra = len(ones) * len(zeros), (len(ones) + len(zeros)) / 2 - 1

    def beyond(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / pairs
        return (value - theta) ** 2 - z**2 * spread

    # the function also has a root at the value itself, which is not the interval's end
    low = 0.0 if value == 0 else float(brentq(beyond, 0, value - 1e-9))  # pyright: ignore[reportArgumentType]
    high = 1.0 if value == 1 else float(brentq(beyond, value + 1e-9, 1))  # pyright: ignore[reportArgumentType]
    return Interval(value, low, high, level)
