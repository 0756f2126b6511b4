"""Agreement of two partitions of the same pixels, from the table of pixels they share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from encoscope.metrics.miou import count_overlap


def ari(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """Compute the adjusted Rand index of two partitions.

    Args:
        clusters: One partition: a number for each pixel. All negative numbers count as one cluster.
        labels: The other partition: a number from 0 for each pixel.
        void: The label of pixels that do not count.

    Returns:
        1 for the same partition, about 0 by chance; NaN where no pixel is left.

    Raises:
        UsageError: The maps have different sizes, or a label is negative and not ``void``.

    Source: Hubert and Arabie, 1985.
    """
    return table_ari(count_overlap(clusters, labels, void=void))


def foreground_ari(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "rows columns"],
    background: int = 0,
    void: int | None = None,
) -> float:
    """Compute the adjusted Rand index over the pixels of objects alone.

    It does not measure where objects end: a segmentation with one cluster for each object scores 1, whatever these
    clusters cover of the background.

    Args:
        clusters: The segmentation, as for ``ari``.
        labels: The ground truth: a number from 0 for each pixel.
        background: The label of all pixels that belong to no object.
        void: The label of other pixels that do not count.

    Returns:
        As from ``ari``; NaN where there is no object.

    Raises:
        UsageError: The maps have different sizes, or a label is negative and not ``void``.
    """
    ignored = labels == background
    if void is not None:
        ignored |= labels == void
    return table_ari(count_overlap(clusters, np.where(ignored, -1, labels), void=-1))


def nmi(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """Compute normalized mutual information: mutual information over the mean of the two entropies.

    Args:
        clusters: One partition, as for ``ari``.
        labels: The other partition, as for ``ari``.
        void: The label of pixels that do not count.

    Returns:
        A value in [0, 1], not adjusted for chance; NaN where no pixel is left.

    Raises:
        UsageError: The maps have different sizes, or a label is negative and not ``void``.
    """
    return table_nmi(count_overlap(clusters, labels, void=void))


def table_ari(table: Integer[np.ndarray, "clusters labels"]) -> float:
    """Compute the adjusted Rand index from a table of shared pixels.

    Args:
        table: From ``count_overlap``, or a sum of such tables.

    Returns:
        As from ``ari``.

    Example:
        >>> table_ari(np.array([[4, 0], [0, 4]]))
        1.0
    """
    counts = table.astype(np.float64)
    total = counts.sum()
    if not total:
        return float("nan")
    together, rows, columns = (_pairs(n).sum() for n in (counts, counts.sum(1), counts.sum(0)))
    expected = rows * columns / max(total * (total - 1) / 2, 1.0)
    maximum = (rows + columns) / 2
    return 1.0 if maximum == expected else float((together - expected) / (maximum - expected))


def table_nmi(table: Integer[np.ndarray, "clusters labels"]) -> float:
    """Compute normalized mutual information from a table of shared pixels.

    Args:
        table: From ``count_overlap``, or a sum of such tables.

    Returns:
        As from ``nmi``.
    """
    counts = table.astype(np.float64)
    total = counts.sum()
    if not total:
        return float("nan")
    joint = counts / total
    rows, columns = joint.sum(1), joint.sum(0)
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    if entropy == 0:  # both partitions have one cluster
        return 1.0
    return min(1.0, max(0.0, (_entropy(rows) + _entropy(columns) - _entropy(joint.ravel())) / entropy))


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) / 2


def _entropy(shares: np.ndarray) -> float:
    kept = shares[shares > 0]
    return float(-(kept * np.log(kept)).sum())
