"""How far a figure would move with other images: percentile bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Sequence[float] | Float[np.ndarray, " images"],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic over values of independent images.

    values: one per image; NaNs (images without a value) are left out. statistic: of a 1-D array; the mean by default.

    Raises:
        UsageError: no value is left, or a level outside (0, 1).
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    if not data.size:
        raise UsageError("a bootstrap interval needs at least one value")
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(f"level lies between 0 and 1 and resamples is at least 1, not {level} and {resamples}")
    rng = np.random.default_rng(seed)
    of = np.mean if statistic is None else statistic
    drawn = np.array([of(data[rng.integers(len(data), size=len(data))]) for _ in range(resamples)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(of(data)), float(low), float(high), level)


def bootstrap_difference(
    first: Sequence[float] | Float[np.ndarray, " images"],
    second: Sequence[float] | Float[np.ndarray, " images"],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of ``first - second``, where both were measured on the same images (paired).

    Raises:
        UsageError: the two have different lengths.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise UsageError(f"a paired difference needs the same images in both: {len(one)} and {len(two)} values")
    return bootstrap(one - two, resamples=resamples, level=level, seed=seed)
