"""Do segments end where objects end? Boundary recall, precision and F, and under-segmentation error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import distance_transform_edt

from encoscope.errors import UsageError
from encoscope.metrics.miou import count_overlap


@dataclass(frozen=True)
class BoundaryScore:
    """recall: share of true boundary pixels near a segment's. precision: the other way round. All in [0, 1]."""

    recall: float
    precision: float
    f: float


def find_boundaries(labels: Integer[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The pixels whose right, lower or lower right neighbour has another label: lines one pixel wide."""
    found = np.zeros(labels.shape, dtype=bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    found[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return found


def boundary_score(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "rows columns"],
    *,
    tolerance: float = 2.0,
    void: int | None = None,
) -> BoundaryScore:
    """Boundary recall, precision and their harmonic mean, where "near" is within ``tolerance`` pixels (Euclidean).

    Each pixel looks for its nearest counterpart by itself (as in Achanta et al., 2012), not in a one-to-one matching.
    void: a label without meaning: boundaries in and around it, within the tolerance, are not asked for.

    NaN: a recall without true boundaries, a precision without found ones; f is 0 when nothing matches.

    Raises:
        UsageError: maps of different sizes, or a negative tolerance.
    """
    if clusters.shape != labels.shape:
        raise UsageError(f"the segmentation is {clusters.shape} pixels and the labels {labels.shape}")
    if tolerance < 0:
        raise UsageError(f"tolerance is a distance in pixels, at least 0, not {tolerance}")
    found, true = find_boundaries(clusters), find_boundaries(labels)
    if void is not None:
        clear = ~_near(labels == void, tolerance + 1.5)  # a line drawn on the neighbour's side counts as around it
        found, true = found & clear, true & clear
    recall, precision = _share(true, found, tolerance), _share(found, true, tolerance)
    both = recall + precision
    return BoundaryScore(recall, precision, 2 * recall * precision / both if both else both)


def undersegmentation_error(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """How much segments leak over objects' borders (Neubert and Protzel, 2012, eq. 2): 0 none, 1 all of the image.

    For each label, every segment that touches it leaks by the smaller of its parts inside and outside; over the number
    of pixels. Meant for segments smaller than objects. NaN where no labelled pixel is left.
    """
    table = count_overlap(clusters, labels, void=void)
    if not table.sum():
        return float("nan")
    return float(np.minimum(table, table.sum(1, keepdims=True) - table).sum() / table.sum())


def _near(mask: np.ndarray, distance: float) -> np.ndarray:
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    return np.asarray(distance_transform_edt(~mask)) <= distance


def _share(asked: np.ndarray, there: np.ndarray, tolerance: float) -> float:
    return float(_near(there, tolerance)[asked].mean()) if asked.any() else float("nan")
