"""How well a unit's activations tell images made (or chosen) for it from control images: CoSy's AUC and MAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.stats import mannwhitneyu

from encoscope.metrics._arrays import Scores, at_least, float64

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
    one, zero = float64(made, "made images"), float64(control, "control images")
    at_least(one, 1, "AUC")
    at_least(zero, 1, "AUC")
    test = mannwhitneyu(one, zero, alternative=alternative)
    p = 1.0 if np.isnan(test.pvalue) else float(test.pvalue)  # all values equal: nothing tells them apart
    # a spread of zero is seen from the values: rounding in the mean would make it 1e-17, and MAD huge
    constant = len(zero) < 2 or zero.min() == zero.max()
    mad = 0.0 if constant else float((one.mean() - zero.mean()) / zero.std(ddof=1))
    return Separation(float(test.statistic) / (len(one) * len(zero)), mad, p)
