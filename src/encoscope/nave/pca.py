"""Grouping by principal components (NAVE, appendix F): each pixel goes to the component it scores highest on."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse.linalg import LinearOperator, svds

from encoscope.errors import UsageError
from encoscope.nave.composite import Composite

_DENSE = 64
"""Below this many pixels or dimensions the matrix is written out: the iterative solver needs K well below both."""


def pca_labels(features: Composite, n_components: int) -> Int[torch.Tensor, "batch pixels"]:
    """Assign each pixel to the principal component that it scores highest on: argmax_k |score_k|.

    Components are ordered by explained variance; their sign does not matter.

    Args:
        features: Composite features of a batch.
        n_components: K.

    Returns:
        ``[B, pixels]``, the component of each pixel.

    Raises:
        UsageError: When there are fewer pixels or dimensions than components.

    Source: NAVE, appendix F.
    """
    if n_components > min(features.pixels, features.dim):
        raise UsageError(
            f"{n_components} principal components of {features.pixels} cells with {features.dim} features: "
            "ask for fewer"
        )
    images = torch.arange(features.batch, device=features.device).split(1)
    labels = [np.abs(_scores(features.select(image), n_components)).argmax(1) for image in images]
    return torch.from_numpy(np.stack(labels)).to(features.device)


def find_components(
    features: Composite, n_components: int
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "k dim"], Float[np.ndarray, " k"]]:
    """Find the mean of the composite features of one image, and their first principal components.

    Args:
        features: Composite features of one image, or a sample of the pixels of many.
        n_components: K.

    Returns:
        The mean; the components, of length 1, each with its sign such that its largest number is positive; and the
        share of the variance that each explains.

    Raises:
        UsageError: When there are fewer pixels or dimensions than components.
    """
    if n_components > min(features.pixels, features.dim):
        raise UsageError(
            f"{n_components} principal components of {features.pixels} cells with {features.dim} features: "
            "ask for fewer"
        )
    mean = _sums(features, np.full((features.pixels, 1), 1 / features.pixels))[:, 0]
    if min(features.pixels, features.dim) <= max(_DENSE, 2 * n_components):
        dense = features.dense()[0].double().cpu().numpy()
        _, values, right = np.linalg.svd(dense - mean, full_matrices=False)
        values, right = values[:n_components], right[:n_components]
    else:
        start = np.random.default_rng(0).standard_normal(min(features.pixels, features.dim))
        _, values, right = svds(_Centered(features, mean[:, None]), k=n_components, v0=start)
        assert right is not None
        order = np.argsort(-values)
        values, right = values[order], right[order]
    total = float(features.squared_norms.double().sum()) - features.pixels * float(mean @ mean)
    signs = np.sign(right[np.arange(n_components), np.abs(right).argmax(1)])
    return mean, right * signs[:, None], values**2 / max(total, np.finfo(float).tiny)


def _scores(features: Composite, n_components: int) -> Float[np.ndarray, "pixels k"]:
    """The centered features projected on their first right singular vectors: left singular vectors times values."""
    if min(features.pixels, features.dim) <= max(_DENSE, 2 * n_components):
        dense = features.dense()[0].double().cpu().numpy()
        left, values, _ = np.linalg.svd(dense - dense.mean(0), full_matrices=False)
        return left[:, :n_components] * values[:n_components]
    shape = (features.pixels, features.dim)
    mean = _sums(features, np.full((shape[0], 1), 1 / shape[0]))  # [dim, 1]
    centered = _Centered(features, mean)
    start = np.random.default_rng(0).standard_normal(min(shape))  # ARPACK's start; the result does not depend on it
    left, values, _ = svds(centered, k=n_components, v0=start)
    assert left is not None
    order = np.argsort(-values)
    return left[:, order] * values[order]


class _Centered(LinearOperator):
    """U minus its mean row, as products."""

    def __init__(self, features: Composite, mean: Float[np.ndarray, "dim 1"]) -> None:
        super().__init__(dtype=np.float64, shape=(features.pixels, features.dim))
        self.features, self.mean = features, mean

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        return _products(self.features, X) - self.mean.T @ X

    def _rmatmat(self, X: np.ndarray) -> np.ndarray:
        return _sums(self.features, X) - self.mean * X.sum(0)


def _products(features: Composite, vectors: Float[np.ndarray, "dim n"]) -> Float[np.ndarray, "pixels n"]:
    tensor = torch.from_numpy(vectors.T[None]).to(features.device, features.dtype)
    return features.scores(tensor)[0].T.double().cpu().numpy()


def _sums(features: Composite, weights: Float[np.ndarray, "pixels n"]) -> Float[np.ndarray, "dim n"]:
    tensor = torch.from_numpy(weights.T[None]).to(features.device, features.dtype)
    return features.sums(tensor)[0].T.double().cpu().numpy()
