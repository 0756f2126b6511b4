"""Kernel distance (KID) of two sets of features: unbiased squared MMD with the cubic polynomial kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count, check_same_width


@dataclass(frozen=True)
class KernelDistance:
    """The squared MMD over random subsets of two sets.

    Attributes:
        value: Mean over the subsets.
        std: Standard deviation over the subsets.
        subsets: Number of subsets.
        size: Images in a subset of either set.
    """

    value: float
    std: float
    subsets: int
    size: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.std:.2g}"


def squared_mmd(first: Features, second: Features) -> float:
    """Compute the unbiased estimate of the squared maximum mean discrepancy (MMD) of two whole sets.

    The kernel is ``(x . y / channels + 1)^3``. Computed in float64.

    Args:
        first: ``[images, channels]``, at least two images.
        second: ``[images, channels]``, at least two images.

    Returns:
        About 0, and negative half of the time, for two samples of the same distribution, whatever their sizes.

    Raises:
        UsageError: A set has fewer than two images, the numbers of channels differ, or a value is NaN or infinite.

    Source: Gretton et al., 2012, equation 3; kernel: Binkowski et al., 2018, section 3.
    """
    return _squared_mmd(*_check_features(first, second))


def kernel_distance(
    real: Features,
    generated: Features,
    *,
    subsets: int = 100,
    size: int | None = None,
    random_state: int = RANDOM_STATE,
) -> KernelDistance:
    """Compute the kernel distance (KID): the mean of ``squared_mmd`` over random subsets of both sets.

    Compare it with ``kernel_distance(*split_halves(real))``, the distance of real images from real images.

    Args:
        real: ``[images, channels]``, features of real images.
        generated: ``[images, channels]``, features of generated images from the same extractor.
        subsets: Number of subsets. Their spread shows how certain the value is. Where a subset takes all of both sets,
            a single one is computed.
        size: Images in a subset, drawn without replacement from either set; if left out, 1,000 or as many as the
            smaller set has.
        random_state: Seed of the subsets.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        UsageError: A set or a subset has fewer than two images, a subset is larger than a set, or the numbers of
            channels differ.

    Source: Binkowski et al., 2018.
    """
    features_1, features_2 = _check_features(real, generated)
    fewest = min(len(features_1), len(features_2))
    size = min(1000, fewest) if size is None else size
    if not 2 <= size <= fewest:
        raise UsageError(f"a subset takes 2 to {fewest} images, as the smaller set has, not {size}")
    if subsets < 1:
        raise UsageError(f"subsets is a number of draws, at least 1, not {subsets}")
    if size == len(features_1) == len(features_2):
        subsets = 1
    rng = np.random.default_rng(random_state)
    values = [
        _squared_mmd(
            features_1[rng.choice(len(features_1), size, replace=False)],
            features_2[rng.choice(len(features_2), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def split_halves(
    features: Features, random_state: int = RANDOM_STATE
) -> tuple[Float[np.ndarray, "half channels"], Float[np.ndarray, "rest channels"]]:
    """Split a set of features into two random halves, to compute the distance of real images from real images.

    Args:
        features: ``[images, channels]``, at least four images.
        random_state: Seed of the split.

    Returns:
        The two halves; the second has one image more where the number is odd.

    Raises:
        UsageError: There are fewer than four images.
    """
    array = as_float64(features, "features")
    check_count(array, 4, "a split into halves")
    order = np.random.default_rng(random_state).permutation(len(array))
    middle = len(array) // 2
    return array[order[:middle]], array[order[middle:]]


def _check_features(first: Features, second: Features) -> tuple[np.ndarray, np.ndarray]:
    features_1, features_2 = as_float64(first, "first features"), as_float64(second, "second features")
    check_same_width(features_1, features_2)
    check_count(features_1, 2, "the kernel distance")
    check_count(features_2, 2, "the kernel distance")
    return features_1, features_2


def _squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    return _within(first) + _within(second) - 2 * float(_kernel(first, second).mean())


def _within(features: np.ndarray) -> float:
    kernel, count = _kernel(features, features), len(features)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3
