"""Regions and their boxes against the paper's algorithms taken literally."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from encoscope.errors import UsageError
from encoscope.regions import compute_inner_box, compute_outer_box, find_regions
from oracles import boxes as literal

label_maps = arrays.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(label_maps)
def test_regions_and_boxes_are_the_papers(labels: np.ndarray) -> None:
    expected = literal.components(labels)
    found = find_regions(labels)
    assert len(found) == len(expected)
    by_pixels = {mask.tobytes(): (cluster, mask) for cluster, mask in expected}
    for region in found:
        cluster, mask = by_pixels.pop(region.mask(labels.shape).tobytes())
        assert (region.cluster, region.area) == (cluster, mask.sum())
        assert region.outer_box == literal.outer_box(mask) == compute_outer_box(mask)
        assert region.inner_box == literal.inner_box(mask) == compute_inner_box(mask)
    assert not by_pixels


def test_boxes_of_a_lopsided_region() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 3:7] = True  # a body ...
    mask[7, 7:25] = True  # ... and a long tail
    assert compute_outer_box(mask) == (3, 5, 24, 8)
    # 34 pixels; median column 7.5 and row 7: the nearer extremes are 4.5 columns and 1 row away
    assert compute_inner_box(mask) == (3, 6, 12, 8)


def test_a_median_between_two_pixels() -> None:
    assert compute_inner_box(np.array([[True, True, False, False]])) == (0, 0, 1, 0)
    assert compute_inner_box(np.array([[True, False, False, True, False, True, True]])) == (
        2,
        0,
        6,
        0,
    )  # median (3 + 5) / 2
    assert compute_inner_box(np.array([[True, False, True, True, False, False, True]])) == (
        0,
        0,
        5,
        0,
    )  # median (2 + 3) / 2


def test_an_empty_mask_has_no_box() -> None:
    for box in (compute_inner_box, compute_outer_box):
        with pytest.raises(UsageError, match="empty mask"):
            box(np.zeros((3, 3), dtype=bool))


def test_regions_come_by_cluster_and_size_without_negative_labels() -> None:
    labels = np.array([[1, -1, 0, 0], [1, 1, -1, 1], [0, -1, -1, 1]])
    found = find_regions(labels)
    assert [(region.cluster, region.area) for region in found] == [(0, 2), (0, 1), (1, 3), (1, 2)]


def test_small_components_go_before_the_border_does() -> None:
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[1:6, 1:6] = 1  # 25 pixels, of which 16 are two or more away from the border
    labels[18:, 18:] = 1  # 4 pixels, all near the border
    labels[10, 10] = 2
    assert [region.area for region in find_regions(labels) if region.cluster] == [25, 4, 1]
    assert [region.area for region in find_regions(labels, min_area=4) if region.cluster] == [25]  # "more than"
    bordered = find_regions(labels, border=2)
    assert [(region.cluster, region.area) for region in bordered] == [(0, 16 * 16 - 16 - 1), (1, 16), (2, 1)]
    assert bordered[1].outer_box == (2, 2, 5, 5)
    # the area that counts against min_area is the one before the border is taken away
    assert [region.area for region in find_regions(labels, min_area=20, border=2) if region.cluster] == [16]
    assert find_regions(labels, border=10) == []
    with pytest.raises(UsageError, match="at least 0, not -1 and 0"):
        find_regions(labels, min_area=-1)


def test_many_regions_of_a_real_size() -> None:
    """Noise smoothed to blobs, hundreds of regions: areas add up and every region agrees with its mask."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((427, 640)), 4)
    labels = np.digitize(noise, np.quantile(noise, [0.2, 0.4, 0.6, 0.8]))
    found = find_regions(labels)
    assert len(found) > 400
    assert sum(region.area for region in found) == labels.size
    for region in found[::50]:
        mask = region.mask(labels.shape)
        assert (labels[mask] == region.cluster).all()
        assert region.inner_box == literal.inner_box(mask)
