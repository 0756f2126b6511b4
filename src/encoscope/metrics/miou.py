"""Mean intersection over union of an unnamed segmentation with labelled regions.

Clusters have no names, so each is first given a label: by majority (many-to-one), or one to one (Hungarian). Done image
by image with that image's own labels at hand this is an oracle, and an upper bound; done once over a summed overlap
table it is the usual unsupervised score.
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
    """Pixels that each cluster shares with each label; tables of many images can be added when ``sizes`` is given.

    clusters, labels: numbers from 0. A negative cluster means "no cluster" and a pixel of label ``void`` counts for
    nothing. sizes: rows and columns of the table; the largest numbers plus one otherwise.

    Raises:
        UsageError: the maps have different sizes, a label is negative and not ``void``, or a number exceeds the table.
    """
    if clusters.shape != labels.shape:
        raise UsageError(
            f"the segmentation is {clusters.shape} pixels and the labels {labels.shape}; bring them to one size"
        )
    counted = np.ones(labels.shape, dtype=bool) if void is None else labels != void
    found, wanted = clusters[counted].astype(np.int64), labels[counted].astype(np.int64)
    if wanted.size and wanted.min() < 0:
        raise UsageError(f"label {wanted.min()} is negative; name it as void or number labels from 0")
    top = (int(found.max(initial=-1)) + 1, int(wanted.max(initial=-1)) + 1)
    rows, columns = sizes or top
    if top[0] > rows or top[1] > columns:
        raise UsageError(f"cluster {top[0] - 1} or label {top[1] - 1} does not fit in a table of {rows} x {columns}")
    # pixels without a cluster still count in their label's union: a last row that is no cluster
    flat = np.where(found < 0, rows, found) * columns + wanted
    table = np.bincount(flat, minlength=(rows + 1) * columns).reshape(rows + 1, columns)
    return table if (found < 0).any() else table[:rows]


def assign_many_to_one(table: Integer[np.ndarray, "clusters labels"]) -> Int64[np.ndarray, " clusters"]:
    """The label that each cluster shares most pixels with (the lower at a tie); -1 for an empty cluster."""
    return np.where(table.sum(1) > 0, table.argmax(1), -1).astype(np.int64)


def assign_hungarian(table: Integer[np.ndarray, "clusters labels"]) -> Int64[np.ndarray, " clusters"]:
    """The one-to-one assignment with the largest sum of IoUs; -1 for a cluster left over or without overlap."""
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
    """IoU of each label with the union of the clusters assigned to it; NaN for a label that has no pixel."""
    labels = table.shape[1]
    given = np.zeros((labels, labels), dtype=np.int64)
    kept = assigned >= 0
    np.add.at(given, assigned[kept], table[kept])  # row: label given, column: label there
    inside, there = np.diag(given), table.sum(0)
    union = given.sum(1) + there - inside
    return np.where(there > 0, inside / np.maximum(union, 1), np.nan)


def image_miou(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "height width"],
    assignment: Assignment | str = "many-to-one",
    void: int | None = None,
) -> float:
    """The mean IoU over the labels of one image, its clusters named with that image's labels at hand (an oracle).

    In [0, 1]; NaN where no labelled pixel is left. Few large labels are easy: always compare with a control.
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
