"""Partitions, boundaries and CorLoc, against scikit-learn and literal loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from encoscope._torchvision import ensure_torchvision
from encoscope.errors import UsageError
from encoscope.metrics import (
    Candidates,
    ari,
    boundary_score,
    compute_box_ious,
    compute_hits,
    corloc,
    count_overlap,
    find_boundaries,
    foreground_ari,
    localize,
    nmi,
    table_ari,
    undersegmentation_error,
)


def maps(seed, clusters=4, labels=3, shape=(9, 8)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(labels, size=shape)
    return np.where(rng.random(shape) < 0.5, truth, rng.integers(-1, clusters, size=shape)), truth


@pytest.mark.parametrize("seed", range(5))
def test_ari_and_nmi_agree_with_scikit_learn(seed):
    clusters, labels = maps(seed)
    kept = labels != 2
    for ours, theirs in ((ari, adjusted_rand_score), (nmi, normalized_mutual_info_score)):
        assert ours(clusters, labels) == pytest.approx(theirs(labels.ravel(), clusters.ravel()))
        assert ours(clusters, labels, void=2) == pytest.approx(theirs(labels[kept], clusters[kept]))
    inside = labels != 0
    assert foreground_ari(clusters, labels) == pytest.approx(adjusted_rand_score(labels[inside], clusters[inside]))
    inside &= kept
    assert foreground_ari(clusters, labels, void=2) == pytest.approx(
        adjusted_rand_score(labels[inside], clusters[inside])
    )


def test_partitions_of_one_part_and_of_none():
    one, split = np.zeros((3, 3), int), np.arange(9).reshape(3, 3)
    assert ari(one, one) == nmi(one, one) == 1
    assert ari(one, split) == nmi(one, split) == 0
    for measure in (ari, nmi):
        assert np.isnan(measure(one, one, void=0))
    assert np.isnan(foreground_ari(split, one))
    assert ari(one[:1, :1], one[:1, :1]) == 1


def test_tables_of_images_give_the_ari_of_both():
    (a, x), (b, y) = maps(0), maps(1)
    a, b = abs(a), abs(b)
    both = count_overlap(a, x, (4, 3)) + count_overlap(b, y, (4, 3))
    assert table_ari(both) == pytest.approx(adjusted_rand_score(np.r_[x, y].ravel(), np.r_[a, b].ravel()))


def literal_share(mask, other, tolerance):
    """The share of points of one mask with a point of the other within the tolerance."""
    points = np.argwhere(other)
    near = [any(np.hypot(*(p - q)) <= tolerance for q in points) for p in np.argwhere(mask)]
    return np.mean(near) if near else np.nan


def blobs(seed):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).random((20, 24)), 3)
    return np.digitize(noise, np.quantile(noise, [0.3, 0.6]))


@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_boundary_recall_and_precision_are_the_literal_ones(tolerance):
    found, true = blobs(0), blobs(1)
    score = boundary_score(found, true, tolerance=tolerance)
    recall = literal_share(find_boundaries(true), find_boundaries(found), tolerance)
    precision = literal_share(find_boundaries(found), find_boundaries(true), tolerance)
    assert (score.recall, score.precision) == pytest.approx((recall, precision))
    assert score.f == pytest.approx(2 * recall * precision / (recall + precision))


def test_boundaries_are_lines_one_pixel_wide():
    labels = np.zeros((4, 6), int)
    labels[:, 3:] = 1
    assert find_boundaries(labels).sum() == 4 and find_boundaries(labels)[:, 2].all()
    perfect = boundary_score(labels, labels, tolerance=0)
    assert (perfect.recall, perfect.precision, perfect.f) == (1, 1, 1)
    shifted = np.roll(labels, 1, axis=1)
    shifted[:, 0] = 0
    assert boundary_score(shifted, labels, tolerance=0).f == 0
    assert boundary_score(shifted, labels, tolerance=1).f == 1
    without = boundary_score(np.zeros_like(labels), labels)
    assert without.recall == 0 and np.isnan(without.precision)


def test_void_takes_no_part_in_boundaries():
    labels = np.zeros((6, 12), int)
    labels[:, 8:] = 255
    clusters = np.where(np.arange(12) < 2, 1, 0) * np.ones((6, 1), int)
    score = boundary_score(clusters, labels, tolerance=0, void=255)
    assert np.isnan(score.recall) and score.precision == 0  # the rim of void is no boundary to be found
    rim = boundary_score((labels == 255).astype(int), labels, tolerance=0, void=255)
    assert np.isnan(rim.precision)
    with pytest.raises(UsageError, match="at least 0, not -1"):
        boundary_score(clusters, labels, tolerance=-1)
    with pytest.raises(UsageError, match="the labels"):
        boundary_score(clusters[1:], labels)


def test_undersegmentation_error_is_the_literal_one():
    clusters, labels = maps(3)
    clusters = abs(clusters)
    leak = 0
    for label in np.unique(labels):
        for cluster in np.unique(clusters):
            inside = ((clusters == cluster) & (labels == label)).sum()
            leak += min(inside, ((clusters == cluster) & (labels != label)).sum())
    assert undersegmentation_error(clusters, labels) == pytest.approx(leak / labels.size)
    assert undersegmentation_error(labels, labels) == 0
    assert np.isnan(undersegmentation_error(labels, labels * 0, void=0))


# CorLoc


def literal_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def boxes(seed, count):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    return np.hstack([corner, corner + rng.uniform(1, 40, (count, 2))])


def test_box_ious_are_the_literal_ones():
    import torch

    ensure_torchvision()
    from torchvision.ops import box_iou

    one, two = boxes(0, 6), boxes(1, 5)
    found = compute_box_ious(one, two)
    np.testing.assert_allclose(found, [[literal_iou(a, b) for b in two] for a in one])
    np.testing.assert_allclose(found, box_iou(torch.from_numpy(one), torch.from_numpy(two)).numpy())
    point = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert compute_box_ious(point, point) == 0


@pytest.fixture
def candidates():
    """Three regions: one whose outer box fits, one whose inner box fits, one in the middle."""
    return Candidates(
        outer=np.array([[0, 0, 10, 10], [0, 0, 40, 40], [50, 50, 60, 60]], dtype=float),
        inner=np.array([[4, 4, 6, 6], [0, 0, 11, 10], [52, 52, 58, 58]], dtype=float),
        area=np.array([80, 900, 70]),
        contact=np.array([20, 80, 0]),
    )


def test_selection_and_score_are_apart(candidates):
    truth = np.array([[0, 0, 10, 10], [90, 90, 99, 99]], dtype=float)
    outer = localize(candidates, truth)
    assert (outer.index, outer.iou, outer.candidates) == (0, 1.0, 3)
    inner = localize(candidates, truth, select="inner", score="inner")
    assert inner.index == 1 and inner.iou == pytest.approx(10 / 11)
    authors = localize(candidates, truth, select="inner", score="outer")
    assert authors.index == 1 and authors.iou == pytest.approx(100 / 1600)
    border = localize(candidates, truth, select="border")
    assert (border.index, border.iou) == (2, 0.0)
    with pytest.raises(UsageError, match="'median' and 'outer'"):
        localize(candidates, truth, select="median")


def test_ties_go_to_the_larger_region(candidates):
    nowhere = np.array([[70, 0, 80, 10]], dtype=float)
    assert localize(candidates, nowhere).index == 1


def test_corloc_counts_images_with_objects(candidates):
    none = Candidates(np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    truth = np.array([[0, 0, 10, 10]], dtype=float)
    assert localize(none, truth).iou == 0 and localize(none, truth).index is None
    unlabelled = localize(candidates, np.zeros((0, 4)))
    assert np.isnan(unlabelled.iou) and unlabelled.candidates == 3
    values = [1.0, 0.5, 0.2, unlabelled.iou]
    assert corloc(values) == pytest.approx(1 / 3)
    assert corloc(values, strict=False) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(compute_hits(values), [1, 0, 0, np.nan])
    assert np.isnan(corloc([np.nan]))
