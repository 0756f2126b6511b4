"""Mean intersection over union of a segmentation without names with labelled regions.

Clusters have no names, so each is first assigned a label: by majority (many-to-one), or one to one (Hungarian). If this
is done for each image with the image's own labels, it is an oracle and an upper bound; if it is done once over the sum
of all overlap tables, it is the usual unsupervised score.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int64, Integer
from scipy.optimize import linear_sum_assignment

from encoscope.errors import UsageError

Assignment: TypeAlias = Literal["many-to-one", "hungarian"]


def count_overlap(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "rows columns"],
    sizes: tuple[int, int] | None = None,
    void: int | None = None,
) -> Int64[np.ndarray, "clusters labels"]:
    """Count the pixels that each cluster shares with each label.

    Args:
        clusters: The segmentation: a number from 0 for each pixel; a negative number means "no cluster".
        labels: The ground truth: a number from 0 for each pixel.
        sizes: Rows and columns of the table; the largest numbers plus one if left out. Tables of many images can be
            added if it is given.
        void: The label of pixels that do not count.

    Returns:
        Numbers of pixels. If some pixels have no cluster, a last row counts them.

    Raises:
        UsageError: The maps have different sizes, a label is negative and not ``void``, or a number exceeds the table.

    Example:
        >>> count_overlap(np.array([[0, 0, 1]]), np.array([[0, 1, 1]])).tolist()
        [[1, 1], [0, 1]]
    """
    if clusters.shape != labels.shape:
        raise UsageError(
            f"the segmentation is {clusters.shape} pixels and the labels {labels.shape}; bring them to one size"
        )
    counted = np.ones(labels.shape, dtype=bool) if void is None else labels != void
    cluster, label = clusters[counted].astype(np.int64), labels[counted].astype(np.int64)
    if label.size and label.min() < 0:
        raise UsageError(f"label {label.min()} is negative; name it as void or number labels from 0")
    largest = (int(cluster.max(initial=-1)), int(label.max(initial=-1)))
    rows, columns = sizes or (largest[0] + 1, largest[1] + 1)
    if largest[0] >= rows or largest[1] >= columns:
        raise UsageError(f"cluster {largest[0]} or label {largest[1]} does not fit in a table of {rows} x {columns}")
    # pixels without a cluster still count in their label's union: a last row that is no cluster
    flat = np.where(cluster < 0, rows, cluster) * columns + label
    table = np.bincount(flat, minlength=(rows + 1) * columns).reshape(rows + 1, columns)
    return table if (cluster < 0).any() else table[:rows]


def assign_many_to_one(table: Integer[np.ndarray, "clusters labels"]) -> Int64[np.ndarray, " clusters"]:
    """Assign to each cluster the label that it shares most pixels with.

    Args:
        table: Shared pixels, from ``count_overlap``.

    Returns:
        A label for each cluster, the lower one at a tie; -1 for an empty cluster.
    """
    return np.where(table.sum(1) > 0, table.argmax(1), -1).astype(np.int64)


def assign_hungarian(table: Integer[np.ndarray, "clusters labels"]) -> Int64[np.ndarray, " clusters"]:
    """Assign labels to clusters one to one, with the largest sum of IoUs (Hungarian method).

    Args:
        table: Shared pixels, from ``count_overlap``.

    Returns:
        A label for each cluster; -1 for a cluster that is left over or overlaps no label.
    """
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = table / np.maximum(union, 1)
    chosen = np.full(len(table), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    used = iou[rows, columns] > 0
    chosen[rows[used]] = columns[used]
    return chosen


def compute_ious(
    table: Integer[np.ndarray, "clusters labels"], assigned: Int64[np.ndarray, " clusters"]
) -> Float[np.ndarray, " labels"]:
    """Compute the IoU of each label with the union of the clusters that are assigned to it.

    Args:
        table: Shared pixels, from ``count_overlap``.
        assigned: A label for each cluster, -1 for none.

    Returns:
        IoU in [0, 1] for each label; NaN for a label that has no pixel.
    """
    labels = table.shape[1]
    confusion = np.zeros((labels, labels), dtype=np.int64)
    kept = assigned >= 0
    np.add.at(confusion, assigned[kept], table[kept])  # row: assigned label, column: true label
    shared, true = np.diag(confusion), table.sum(0)
    union = confusion.sum(1) + true - shared
    return np.where(true > 0, shared / np.maximum(union, 1), np.nan)


def image_miou(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "height width"],
    assignment: Assignment | str = "many-to-one",
    void: int | None = None,
) -> float:
    """Compute the mean IoU over the labels of an image; clusters get their labels from the image itself (an oracle).

    Few large labels are easy: compare with a control.

    Args:
        clusters: The segmentation: a number from 0 for each pixel; a negative number means "no cluster".
        labels: The ground truth, of the same size.
        assignment: How clusters get labels: "many-to-one" by majority, or "hungarian", one to one.
        void: The label of pixels that do not count.

    Returns:
        Mean IoU in [0, 1]; NaN where no labelled pixel is left.

    Raises:
        UsageError: The maps have different sizes, or ``assignment`` is neither word.
    """
    counted = labels != void if void is not None else np.ones(labels.shape, dtype=bool)
    present, compact = np.unique(labels[counted], return_inverse=True)
    if not len(present):
        return float("nan")
    dense = np.full(labels.shape, -1, dtype=np.int64)
    dense[counted] = compact
    table = count_overlap(clusters, dense, void=-1)
    named = table[: int(clusters[counted].max(initial=-1)) + 1]
    if assignment not in ("many-to-one", "hungarian"):
        raise UsageError(f"assignment is 'many-to-one' or 'hungarian', not {assignment!r}")
    chosen = assign_many_to_one(named) if assignment == "many-to-one" else assign_hungarian(named)
    rest = np.full(len(table) - len(named), -1, dtype=np.int64)
    return float(np.nanmean(compute_ious(table, np.concatenate([chosen, rest]))))
