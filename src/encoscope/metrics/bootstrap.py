"""Bootstrap intervals: how much a value would change with other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval.

    Attributes:
        value: The statistic of all values.
        low: The lower end.
        high: The upper end.
        level: The confidence level, in (0, 1).
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, float]:
        """Give plain values for a result document."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}

    @classmethod
    def from_dict(cls, plain: Mapping[str, float]) -> Interval:
        """Read what ``as_dict`` gave.

        Args:
            plain: The interval in a result document.

        Returns:
            The interval.
        """
        return cls(plain["value"], plain["low"], plain["high"], plain["level"])


def bootstrap(
    values: Sequence[float] | Float[np.ndarray, " images"],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    random_state: int = RANDOM_STATE,
) -> Interval:
    """Compute the percentile interval of a statistic over values of independent images.

    Args:
        values: One value for each image; NaN (images without a value) is left out.
        statistic: A function of a 1-D array; the mean if left out.
        resamples: Number of samples with replacement. The default keeps the ends stable to about two digits.
        level: Confidence level, in (0, 1).
        random_state: Seed of the sampling.

    Returns:
        The statistic of all values and its interval.

    Raises:
        UsageError: No value is left, or ``level`` or ``resamples`` is out of range.

    Example:
        >>> bootstrap([1.0, 1.0, 1.0]).high
        1.0
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    if not data.size:
        raise UsageError("a bootstrap interval needs at least one value")
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(f"level lies between 0 and 1 and resamples is at least 1, not {level} and {resamples}")
    rng = np.random.default_rng(random_state)
    compute = np.mean if statistic is None else statistic
    samples = np.array([compute(data[rng.integers(len(data), size=len(data))]) for _ in range(resamples)])
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(compute(data)), float(low), float(high), level)


def bootstrap_difference(
    first: Sequence[float] | Float[np.ndarray, " images"],
    second: Sequence[float] | Float[np.ndarray, " images"],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    random_state: int = RANDOM_STATE,
) -> Interval:
    """Compute the interval of the mean of ``first - second``, both measured on the same images (paired).

    Args:
        first: One value for each image.
        second: One value for each of the same images, in the same order.
        resamples: As for ``bootstrap``.
        level: As for ``bootstrap``.
        random_state: As for ``bootstrap``.

    Returns:
        The mean difference and its interval.

    Raises:
        UsageError: The two have different lengths.
    """
    minuends, subtrahends = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if minuends.shape != subtrahends.shape:
        raise UsageError(f"a paired difference needs the same images in both: {len(first)} and {len(second)} values")
    return bootstrap(minuends - subtrahends, resamples=resamples, level=level, random_state=random_state)
