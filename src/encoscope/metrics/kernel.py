"""Kernel distance (KID) of two sets of features: unbiased squared MMD with the cubic polynomial kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count, check_same_width


@dataclass(frozen=True)
class KernelDistance:
    """The mean and standard deviation of the squared MMD over random subsets of ``size`` images from either set."""

    value: float
    std: float
    subsets: int
    size: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.std:.2g}"


def squared_mmd(first: Features, second: Features) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al., 2012, eq. 3) of two whole sets.

    Kernel ``(x . y / channels + 1)^3`` (Binkowski et al., 2018, section 3). In float64. About 0, and negative half of
    the time, for two samples of one distribution, whatever their sizes.

    Raises:
        UsageError: fewer than two images in a set, different numbers of channels, NaN.
    """
    one, two = _checked(first, second)
    return _squared_mmd(one, two)


def kernel_distance(
    real: Features, made: Features, *, subsets: int = 100, size: int | None = None, seed: int = 0
) -> KernelDistance:
    """KID (Binkowski et al., 2018): the mean of ``squared_mmd`` over random subsets of both sets.

    size: images a subset, drawn without replacement from either set; left out, 1,000 or as many as the smaller set has.
    subsets: how many; their spread says how sure the figure is. Where a subset takes all of both sets, one is enough,
        and one is taken.

    Always read it beside ``kernel_distance(*halves(real))``, the distance of real photos from real photos.

    Raises:
        UsageError: fewer than two images in a set or subset, a subset larger than a set, different numbers of channels.
    """
    one, two = _checked(real, made)
    fewest = min(len(one), len(two))
    size = min(1000, fewest) if size is None else size
    if not 2 <= size <= fewest:
        raise UsageError(f"a subset takes 2 to {fewest} images, as the smaller set has, not {size}")
    if subsets < 1:
        raise UsageError(f"subsets is a number of draws, at least 1, not {subsets}")
    if size == len(one) == len(two):
        subsets = 1
    rng = np.random.default_rng(seed)
    values = [
        _squared_mmd(one[rng.choice(len(one), size, replace=False)], two[rng.choice(len(two), size, replace=False)])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def split_halves(
    features: Features, seed: int = 0
) -> tuple[Float[np.ndarray, "half channels"], Float[np.ndarray, "rest channels"]]:
    """Two random halves of a set of features, for the distance of real photos from real photos."""
    array = as_float64(features, "features")
    check_count(array, 4, "a split into halves")
    order = np.random.default_rng(seed).permutation(len(array))
    middle = len(array) // 2
    return array[order[:middle]], array[order[middle:]]


def _checked(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    one, two = as_float64(first, "first features"), as_float64(second, "second features")
    check_same_width(one, two)
    check_count(one, 2, "the kernel distance")
    check_count(two, 2, "the kernel distance")
    return one, two


def _squared_mmd(one: np.ndarray, two: np.ndarray) -> float:
    return _within(one) + _within(two) - 2 * float(_kernel(one, two).mean())


def _within(features: np.ndarray) -> float:
    kernel, count = _kernel(features, features), len(features)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (one @ two.T / one.shape[1] + 1) ** 3
