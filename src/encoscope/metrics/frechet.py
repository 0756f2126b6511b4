"""Frechet distance of two sets of features (Heusel et al., 2017, eq. 6), exact for any number of images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count, check_same_width


def frechet_distance(real: Features, made: Features) -> float:
    """``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` of the means and covariances of two sets of features.

    In float64; 0 for equal sets. With fewer images than channels the covariances are rank-deficient: the value is still
    exact for the sample, but far from that of more images; use ``kernel_distance`` there. Figures of different
    extractors, or of different numbers of images, do not compare.

    The trace of the root is the sum of singular values of ``A1^T A2``, where ``S = A A^T`` and A holds the centred
    features: no matrix root, no eigenvalue that rounding makes negative.

    Raises:
        UsageError: fewer than two images in a set, different numbers of channels, NaN.
    """
    one, two = as_float64(real, "real features"), as_float64(made, "features of made images")
    check_same_width(one, two)
    check_count(one, 2, "a covariance")
    check_count(two, 2, "a covariance")
    (mean1, root1), (mean2, root2) = _moments(one), _moments(two)
    shared = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    return _distance(mean1, mean2, float((root1**2).sum()), float((root2**2).sum()), shared)


def frechet_from_moments(
    mean1: Float[np.ndarray, " channels"],
    covariance1: Float[np.ndarray, "channels channels"],
    mean2: Float[np.ndarray, " channels"],
    covariance2: Float[np.ndarray, "channels channels"],
) -> float:
    """The same from means and covariances, for features that were streamed.

    Raises UsageError for covariances that are not symmetric or not positive semidefinite.
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
