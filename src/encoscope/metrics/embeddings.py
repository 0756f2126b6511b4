"""What the embeddings of a unit's images say about the unit: clarity, redundancy, polysemanticity."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.cluster import KMeans

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count


def clarity(embeddings: Features) -> float:
    """Compute how similar a unit's images are.

    FALCON calls a group of features interpretable if this is above 0.8.

    Args:
        embeddings: ``[images, channels]``, one vector for each image, of any length but 0.

    Returns:
        The mean cosine over all pairs of different images, in [-1, 1].

    Raises:
        UsageError: There are fewer than two images, or a vector is all zeros.

    Example:
        >>> clarity(np.array([[1.0, 0.0], [2.0, 0.0]]))
        1.0
    """
    vectors = _normalize(embeddings)
    check_count(vectors, 2, "a mean over pairs")
    count = len(vectors)
    return float(((vectors.sum(0) ** 2).sum() - count) / (count * (count - 1)))


def redundancy(concepts: Features) -> Float[np.ndarray, " units"]:
    """Compute how similar each unit's concept is to that of the most similar other unit.

    Args:
        concepts: ``[units, channels]``, one vector for each vectors, such as the mean embedding of its images.

    Returns:
        For each unit the largest cosine with another unit, in [-1, 1]. The mean over a layer's units is the layer's
        redundancy.

    Raises:
        UsageError: There are fewer than two units, or a vector is all zeros.
    """
    vectors = _normalize(concepts)
    check_count(vectors, 2, "redundancy")
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.max(1)


def polysemanticity(embeddings: Features, *, random_state: int = RANDOM_STATE) -> float:
    """Compute how different the two halves of a unit's images are.

    Args:
        embeddings: ``[images, channels]``, one vector for each image.
        random_state: Seed of k-means.

    Returns:
        1 - cosine of the means of two k-means clusters, in [0, 2]; 0 for images that are all the same.

    Raises:
        UsageError: There are fewer than two images, or a vector is all zeros.
    """
    vectors = _normalize(embeddings)
    check_count(vectors, 2, "two clusters")
    if np.allclose(vectors, vectors[0]):
        return 0.0
    fitted = KMeans(2, n_init=10, random_state=random_state)  # pyright: ignore[reportArgumentType]
    labels = fitted.fit_predict(vectors)
    mean_1, mean_2 = (_normalize(vectors[labels == k].mean(0, keepdims=True))[0] for k in (0, 1))
    return float(1 - mean_1 @ mean_2)


def _normalize(embeddings: Features) -> np.ndarray:
    array = as_float64(embeddings, "embeddings")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not lengths.all():
        raise UsageError(f"embedding {int(np.flatnonzero(lengths == 0)[0])} is all zeros: it has no direction")
    return array / lengths
