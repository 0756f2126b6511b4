"""Whether segments end where objects end: boundary recall, precision and F, and under-segmentation error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import distance_transform_edt

from encoscope.errors import UsageError
from encoscope.metrics.miou import count_overlap


@dataclass(frozen=True)
class BoundaryScore:
    """How well the boundaries of a segmentation and of its ground truth agree; all values in [0, 1].

    Attributes:
        recall: Share of the ground truth's boundary pixels that lie near a boundary of the segmentation.
        precision: Share of the segmentation's boundary pixels that lie near a boundary of the ground truth.
        f: The harmonic mean of the two.
    """

    recall: float
    precision: float
    f: float


def find_boundaries(labels: Integer[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Find the pixels whose right, lower or lower right neighbour has another label.

    Args:
        labels: A label for each pixel.

    Returns:
        A mask of lines that are one pixel wide.
    """
    mask = np.zeros(labels.shape, dtype=bool)
    mask[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    mask[:-1] |= labels[:-1] != labels[1:]
    mask[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return mask


def boundary_score(
    clusters: Integer[np.ndarray, "height width"],
    labels: Integer[np.ndarray, "rows columns"],
    *,
    tolerance: float = 2.0,
    void: int | None = None,
) -> BoundaryScore:
    """Compute boundary recall, boundary precision and their harmonic mean.

    Each boundary pixel looks for its nearest counterpart by itself; there is no one-to-one matching.

    Args:
        clusters: The segmentation: a label for each pixel.
        labels: The ground truth, of the same size.
        tolerance: How far apart "near" boundaries may be, in pixels (Euclidean), at least 0.
        void: The label of pixels without ground truth. Boundaries in such pixels and within the tolerance of them do
            not count.

    Returns:
        The scores. Recall is NaN without boundaries in the ground truth, precision without boundaries in the
        segmentation; f is 0 when nothing matches.

    Raises:
        UsageError: The maps have different sizes, or the tolerance is negative.

    Source: Achanta et al., 2012.
    """
    if clusters.shape != labels.shape:
        raise UsageError(f"the segmentation is {clusters.shape} pixels and the labels {labels.shape}")
    if tolerance < 0:
        raise UsageError(f"tolerance is a distance in pixels, at least 0, not {tolerance}")
    predicted, true = find_boundaries(clusters), find_boundaries(labels)
    if void is not None:
        valid = ~_near(labels == void, tolerance + 1.5)  # a line drawn on the neighbour's side counts as around it
        predicted, true = predicted & valid, true & valid
    recall, precision = _share_near(true, predicted, tolerance), _share_near(predicted, true, tolerance)
    total = recall + precision
    return BoundaryScore(recall, precision, 2 * recall * precision / total if total else total)


def undersegmentation_error(
    clusters: Integer[np.ndarray, "height width"], labels: Integer[np.ndarray, "rows columns"], void: int | None = None
) -> float:
    """Compute how much segments reach over the borders of objects.

    Each segment that touches a label adds the smaller of its areas inside and outside of the label. The measure is
    meant for segments that are smaller than objects.

    Args:
        clusters: The segmentation: a label for each pixel.
        labels: The ground truth, of the same size.
        void: The label of pixels that do not count.

    Returns:
        The sum over all labels, divided by the number of pixels: from 0, where no segment crosses a border, to 1. NaN
        where no labelled pixel is left.

    Source: Neubert and Protzel, 2012, equation 2.
    """
    table = count_overlap(clusters, labels, void=void)
    if not table.sum():
        return float("nan")
    return float(np.minimum(table, table.sum(1, keepdims=True) - table).sum() / table.sum())


def _near(mask: np.ndarray, distance: float) -> np.ndarray:
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    return np.asarray(distance_transform_edt(~mask)) <= distance


def _share_near(pixels: np.ndarray, targets: np.ndarray, tolerance: float) -> float:
    return float(_near(targets, tolerance)[pixels].mean()) if pixels.any() else float("nan")
