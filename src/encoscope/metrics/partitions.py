"""Agreement of two partitions of the same pixels, from the table of pixels they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from encoscope.metrics.miou import count_overlap


def ari(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """The adjusted Rand index (Hubert and Arabie, 1985): 1 the same partition, about 0 by chance.

    A negative cluster is a part of its own; pixels labelled ``void`` do not count. NaN where no pixel is left.
    """
    return table_ari(count_overlap(clusters, labels, void=void))


def foreground_ari(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "rows columns"],
    background: int = 0,
    void: int | None = None,
) -> float:
    """The adjusted Rand index over the pixels of objects only; ``background`` is the label of all others.

    It does not see where objects end: a segmentation of the whole image into one part of each object scores 1 whatever
    it does with the background. NaN where there is no object.
    """
    left_out = labels == background
    if void is not None:
        left_out |= labels == void
    return table_ari(count_overlap(clusters, np.where(left_out, -1, labels), void=-1))


def nmi(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """Mutual information over the mean of the two entropies, in [0, 1]; not adjusted for chance. NaN without pixels."""
    return table_nmi(count_overlap(clusters, labels, void=void))


def table_ari(table: Integer[np.ndarray, "clusters labels"]) -> float:
    """The adjusted Rand index of an ``overlap`` table, or of a sum of them."""
    counts = table.astype(np.float64)
    total = counts.sum()
    if not total:
        return float("nan")
    together, rows, columns = (_pairs(n).sum() for n in (counts, counts.sum(1), counts.sum(0)))
    expected = rows * columns / max(total * (total - 1) / 2, 1.0)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def table_nmi(table: Integer[np.ndarray, "clusters labels"]) -> float:
    """Normalised mutual information of an ``overlap`` table, or of a sum of them."""
    counts = table.astype(np.float64)
    total = counts.sum()
    if not total:
        return float("nan")
    joint = counts / total
    rows, columns = joint.sum(1), joint.sum(0)
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    if entropy == 0:  # both are one part
        return 1.0
    return min(1.0, max(0.0, (_entropy(rows) + _entropy(columns) - _entropy(joint.ravel())) / entropy))


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) / 2


def _entropy(shares: np.ndarray) -> float:
    kept = shares[shares > 0]
    return float(-(kept * np.log(kept)).sum())
