from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from encoscope.errors import UsageError
from encoscope.metrics import (
    assign_hungarian,
    assign_many_to_one,
    bootstrap,
    bootstrap_difference,
    compute_ious,
    count_overlap,
    image_miou,
)


def literal_iou(a, b):
    return (a & b).sum() / (a | b).sum()


def literal_miou(clusters, labels, assignment, void):
    """Name every cluster, then compare the union of those with each name to the label's pixels, all by masks."""
    counted = labels != void
    present = [label for label in np.unique(labels) if label != void]
    found = [cluster for cluster in np.unique(clusters[counted]) if cluster >= 0]
    masks = {label: (labels == label) for label in present}
    parts = {cluster: (clusters == cluster) & counted for cluster in found}
    if assignment == "many-to-one":
        name = {c: max(present, key=lambda label: (parts[c] & masks[label]).sum()) for c in found}
    else:
        spare = [None] * max(0, len(found) - len(present))
        ways = permutations([*present, *spare], len(found))
        name = max(
            (dict(zip(found, way, strict=True)) for way in ways),
            key=lambda way: sum(literal_iou(parts[c], masks[k]) for c, k in way.items() if k is not None),
        )
    united = {
        label: np.any([parts[c] for c in found if name[c] == label] or [np.zeros_like(counted)], axis=0)
        for label in present
    }
    return np.mean([literal_iou(united[label], masks[label]) for label in present])


@pytest.mark.parametrize("assignment", ["many-to-one", "hungarian"])
@pytest.mark.parametrize("clusters_count,labels_count", [(2, 4), (4, 2), (3, 3), (5, 4)])
def test_image_miou_is_the_literal_one(assignment, clusters_count, labels_count):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels = rng.integers(labels_count, size=(6, 7))
        # clusters that follow the labels in part, so that ties do not decide
        clusters = np.where(
            rng.random((6, 7)) < 0.6, labels % clusters_count, rng.integers(clusters_count, size=(6, 7))
        )
        labels = np.where(rng.random((6, 7)) < 0.1, 255, labels)
        clusters = np.where(rng.random((6, 7)) < 0.1, -1, clusters)
        got = image_miou(clusters, labels, assignment, void=255)
        assert got == pytest.approx(literal_miou(clusters, labels, assignment, 255))


def test_perfect_segmentation_scores_one_whatever_its_numbers():
    labels = np.array([[184, 184, 18], [184, 7, 18]])
    clusters = np.array([[2, 2, 0], [2, 1, 0]])
    assert image_miou(clusters, labels) == 1.0
    assert image_miou(clusters, labels, "hungarian") == 1.0


def test_many_to_one_forgives_splitting_and_hungarian_does_not():
    labels = np.array([[0, 0, 0, 0, 1, 1]])
    clusters = np.array([[0, 0, 0, 1, 2, 2]])
    assert image_miou(clusters, labels) == 1.0
    assert image_miou(clusters, labels, "hungarian") == pytest.approx((0.75 + 1) / 2)


def test_tables_of_images_add_up_to_the_table_of_both():
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(3, size=(2, 5, 5)), rng.integers(4, size=(2, 5, 5))
    both = count_overlap(np.hstack(clusters), np.hstack(labels), sizes=(3, 4))
    added = sum(count_overlap(clusters[k], labels[k], sizes=(3, 4)) for k in range(2))
    np.testing.assert_array_equal(both, added)
    assert both.sum() == 50


def test_labels_without_pixels_do_not_count():
    table = np.array([[5, 0, 0], [0, 0, 5]])
    found = compute_ious(table, assign_many_to_one(table))
    assert found[0] == found[2] == 1 and np.isnan(found[1])
    np.testing.assert_array_equal(assign_hungarian(np.array([[0, 0], [3, 1]])), [-1, 0])


def test_an_image_without_labels_has_no_score():
    assert np.isnan(image_miou(np.zeros((2, 2), int), np.full((2, 2), -1), void=-1))


def test_overlap_refuses_what_it_cannot_count():
    square = np.zeros((2, 2), int)
    with pytest.raises(UsageError, match="bring them to one size"):
        count_overlap(square, np.zeros((2, 3), int))
    with pytest.raises(UsageError, match="label -3 is negative"):
        count_overlap(square, square - 3)
    with pytest.raises(UsageError, match="cluster 4"):
        count_overlap(square + 4, square, sizes=(3, 3))
    with pytest.raises(UsageError, match="'greedy'"):
        image_miou(square, square, "greedy")


def test_bootstrap_of_the_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(1).normal(0.4, 0.1, size=400)
    found = bootstrap(values, resamples=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.0015)
    assert bootstrap(values, resamples=50) == bootstrap(values, resamples=50)
    assert bootstrap(values, resamples=50) != bootstrap(values, resamples=50, random_state=1)


def test_bootstrap_takes_a_statistic_and_leaves_out_images_without_value():
    found = bootstrap([1.0, np.nan, 2.0, 9.0], statistic=lambda sample: float(np.median(sample)), resamples=200)
    assert found.value == 2.0 and found.low == 1.0 and found.high == 9.0


def test_a_paired_difference_is_narrower_than_two_intervals():
    easy = np.random.default_rng(2).random(100)
    found = bootstrap_difference(easy + 0.05, easy)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(0.05)
    with pytest.raises(UsageError, match="same images"):
        bootstrap_difference([1.0, 2.0], [1.0])
    with pytest.raises(UsageError, match="at least one value"):
        bootstrap([np.nan])
    with pytest.raises(UsageError, match="level"):
        bootstrap([1.0], level=1.0)
