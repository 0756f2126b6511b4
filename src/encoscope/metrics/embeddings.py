"""What embeddings of a unit's images say about it: clear or mixed, its own or another's too."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.cluster import KMeans

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64, check_count


def clarity(embeddings: Features) -> float:
    """How alike a unit's images are: the mean cosine over all pairs of different images, in [-1, 1].

    Vectors may have any length but 0. This is also FALCON's test of a group ("interpretable" above 0.8). Raises
    UsageError for fewer than two images or a vector of zeros.
    """
    unit = _unit(embeddings)
    check_count(unit, 2, "a mean over pairs")
    count = len(unit)
    return float(((unit.sum(0) ** 2).sum() - count) / (count * (count - 1)))


def redundancy(concepts: Features) -> Float[np.ndarray, " units"]:
    """For each unit the largest cosine of its concept's vector with another unit's; their mean is a layer's redundancy.

    concepts: one vector per unit, such as the mean embedding of its images. Raises UsageError for fewer than two units.
    """
    unit = _unit(concepts)
    check_count(unit, 2, "redundancy")
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.max(1)


def polysemanticity(embeddings: Features, *, seed: int = 0) -> float:
    """How far apart the two halves of a unit's meaning lie: 1 - cosine of the means of two k-means clusters, in [0, 2].

    Raises UsageError for fewer than two images. Of images that are all alike, 0.
    """
    unit = _unit(embeddings)
    check_count(unit, 2, "two clusters")
    if np.allclose(unit, unit[0]):
        return 0.0
    fitted = KMeans(2, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = fitted.fit_predict(unit)
    one, two = (_unit(unit[labels == k].mean(0, keepdims=True))[0] for k in (0, 1))
    return float(1 - one @ two)


def _unit(embeddings: Features) -> np.ndarray:
    array = as_float64(embeddings, "embeddings")
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if not lengths.all():
        raise UsageError(f"embedding {int(np.flatnonzero(lengths == 0)[0])} is all zeros: it has no direction")
    return array / lengths
