"""Frechet distance of two sets of features, exact for any number of images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count, check_same_width


def frechet_distance(real: Features, generated: Features) -> float:
    """Compute ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` of the means and covariances of two sets of features.

    Computed in float64. The trace of the root is the sum of singular values of ``A1^T A2``, where ``S = A A^T`` and A
    holds the centred features, so no matrix root is taken and rounding makes no eigenvalue negative.

    Args:
        real: ``[images, channels]``, features of real images; at least two images.
        generated: ``[images, channels]``, features of generated images from the same extractor; at least two.

    Returns:
        The distance, at least 0; 0 for equal sets. With fewer images than channels it is exact for the sample, but far
        from the value for more images: use ``kernel_distance`` there. Values of different extractors, or of different
        numbers of images, cannot be compared.

    Raises:
        UsageError: A set has fewer than two images, the numbers of channels differ, or a value is NaN or infinite.

    Source: Heusel et al., 2017, equation 6.
    """
    features_1, features_2 = as_float64(real, "real features"), as_float64(generated, "features of generated images")
    check_same_width(features_1, features_2)
    check_count(features_1, 2, "a covariance")
    check_count(features_2, 2, "a covariance")
    (mean1, root1), (mean2, root2) = _moments(features_1), _moments(features_2)
    shared = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    return _distance(mean1, mean2, float((root1**2).sum()), float((root2**2).sum()), shared)


def frechet_from_moments(
    mean1: Float[np.ndarray, " channels"],
    covariance1: Float[np.ndarray, "channels channels"],
    mean2: Float[np.ndarray, " channels"],
    covariance2: Float[np.ndarray, "channels channels"],
) -> float:
    """Compute the Frechet distance from means and covariances, for features that do not fit into memory.

    Args:
        mean1: Mean of the first set.
        covariance1: Covariance of the first set.
        mean2: Mean of the second set.
        covariance2: Covariance of the second set.

    Returns:
        The distance, as from ``frechet_distance``.

    Raises:
        UsageError: A covariance is not symmetric or not positive semidefinite.
    """
    root1, root2 = _root(as_float64(covariance1, "covariance1")), _root(as_float64(covariance2, "covariance2"))
    shared = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    traces = float(np.trace(covariance1)), float(np.trace(covariance2))
    return _distance(as_float64(mean1, "mean1"), as_float64(mean2, "mean2"), *traces, shared)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a matrix R of few rows with R^T R the covariance."""
    mean = features.mean(0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    return mean, np.linalg.qr(centred).R if len(centred) > centred.shape[1] else centred


def _root(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    size = max(float(np.abs(values).max(initial=0)), np.finfo(np.float64).tiny)
    if np.abs(covariance - covariance.T).max(initial=0) > 1e-8 * size or values.min(initial=0) < -1e-8 * size:
        raise UsageError("a covariance is symmetric, without negative eigenvalues; this matrix is not")
    return vectors * np.sqrt(np.maximum(values, 0))


def _distance(mean1: np.ndarray, mean2: np.ndarray, trace1: float, trace2: float, shared: float) -> float:
    return max(0.0, float(((mean1 - mean2) ** 2).sum() + trace1 + trace2 - 2 * shared))
