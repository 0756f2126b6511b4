from __future__ import annotations

import itertools

import numpy as np
import pytest

from encoscope.errors import UsageError
from encoscope.falcon.crops import find_largest_boxes
from encoscope.falcon.feature_groups import find_groups
from encoscope.falcon.selection import DescriptionOutcome, select_images
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import compute_thresholds
from encoscope.probing import Probe
from encoscope.units import Unit
from oracles import falcon as oracle


def representation(images: int = 80, channels: int = 12, seed: int = 0) -> np.ndarray:
    """Sparse and non-negative, as after a ReLU, with a few strong entries."""
    rng = np.random.default_rng(seed)
    raw = rng.exponential(size=(images, channels)) * (rng.random((images, channels)) < 0.6)
    raw[rng.random((images, channels)) < 0.04] += 12
    return Probe.from_arrays(raw).normalize()


def feature(*channels: int) -> Unit:
    return Unit(f"features:{','.join(map(str, channels))}", "features", channels=channels)


def ids(count: int) -> list[str]:
    return [f"{i:04d}" for i in range(count)]


SETTINGS = FalconSettings.from_preset(alpha_stds=2.0, min_images=1)
TOGETHER = FalconSettings.from_preset(alpha_stds=0.8)  # low enough for several features of one image


def test_highs_and_lows_are_those_of_equation_2():
    h = representation()
    limits = compute_thresholds(h, SETTINGS)
    assert limits.alpha == pytest.approx(h.mean() + 2 * h.std(ddof=1), rel=1e-5)
    found = select_images(h, [feature(i) for i in range(h.shape[1])], SETTINGS, limits, ids(len(h)))
    counts = set()
    for i, selection in enumerate(found):
        high = oracle.highs(h, i, limits.alpha)
        assert sorted(selection.high) == high and selection.outcome is DescriptionOutcome.EXPLAINED
        assert list(h[selection.high, i]) == sorted(h[high, i], reverse=True)
        assert list(selection.low) == oracle.counterfactuals(h, i, limits.alpha, limits.epsilon, 0.3, 10)
        counts.add(len(selection.low))
    assert len(counts) > 2  # some have fewer than ten


def test_the_order_of_the_images_does_not_matter_even_for_ties():
    h = np.repeat(representation(20), 3, axis=0)
    names = ids(len(h))
    order = np.random.default_rng(1).permutation(len(h))
    settings = FalconSettings.from_preset(alpha_stds=2.0, max_images=4, n_counterfactuals=4)
    limits = compute_thresholds(h, settings)
    before = select_images(h, [feature(2)], settings, limits, names)[0]
    after = select_images(h[order], [feature(2)], settings, limits, [names[i] for i in order])[0]
    assert [names[i] for i in before.high] == [names[order[i]] for i in after.high]
    assert [names[i] for i in before.low] == [names[order[i]] for i in after.low]


def test_an_empty_set_is_replaced_by_the_strongest_and_a_dead_feature_is_told():
    h = representation()
    h[:, 3] = 0
    h[:5, 4] = h[:5, 4] * 0 + 0.01
    h[5:, 4] = 0
    h[:, 5] = np.linspace(0.1, 0.2, len(h))
    limits = compute_thresholds(h, FalconSettings())
    dead, rare, weak = select_images(h, [feature(3), feature(4), feature(5)], FalconSettings(), limits, ids(len(h)))
    assert dead.outcome is DescriptionOutcome.NEVER_ACTIVATES and len(dead.high) == 0 and len(dead.low) == 0
    # not the images where it is off
    assert rare.outcome is DescriptionOutcome.TOP_K and sorted(rare.high) == [
        0,
        1,
        2,
        3,
        4,
    ]  # not the images where it is off
    assert weak.outcome is DescriptionOutcome.TOP_K and list(weak.high) == list(range(79, 69, -1))
    (strict,) = select_images(h, [feature(5)], FalconSettings.from_preset(top_k_if_empty=0), limits, ids(len(h)))
    assert strict.outcome is DescriptionOutcome.TOO_FEW_IMAGES and len(strict.high) == 0


def test_a_set_of_too_few_images_counts_as_empty():
    h = representation()
    limits = compute_thresholds(h, SETTINGS)
    sizes = [int((h[:, i] > limits.alpha).sum()) for i in range(h.shape[1])]
    needed = sorted(sizes)[6]
    strict = FalconSettings.from_preset(alpha_stds=2.0, min_images=needed)
    found = select_images(h, [feature(i) for i in range(h.shape[1])], strict, limits, ids(len(h)))
    assert [selection.outcome is DescriptionOutcome.TOP_K for selection in found] == [size < needed for size in sizes]
    assert (
        FalconSettings.from_preset("authors").min_images == 11 and FalconSettings.from_preset("paper").min_images == 1
    )


def test_a_group_needs_all_its_members_and_exact_no_other():
    h = representation(400, 8)
    limits = compute_thresholds(h, TOGETHER)
    above = h > limits.alpha
    (both,) = select_images(h, [feature(1, 4)], TOGETHER, limits, ids(len(h)))
    assert sorted(both.high) == np.flatnonzero(above[:, 1] & above[:, 4]).tolist() != []
    assert (h[both.low][:, [1, 4]] < limits.epsilon).all()
    exact = FalconSettings.from_preset(mode="exact", alpha_stds=0.8)
    (single,) = select_images(h, [feature(1)], exact, limits, ids(len(h)))
    assert sorted(single.high) == np.flatnonzero(above[:, 1] & (above.sum(1) == 1)).tolist()
    np.testing.assert_allclose(feature(1, 4).activation(h), h[:, 1] + h[:, 4])


def test_a_direction_along_a_channel_is_that_channel():
    h = representation()
    limits = compute_thresholds(h, SETTINGS)
    along = Unit("features@d.npy", "features", direction=tuple(3.0 * np.eye(12)[6]))
    one, other = select_images(h, [feature(6), along], SETTINGS, limits, ids(len(h)))
    assert list(one.high) == list(other.high) and list(one.low) == list(other.low)


def test_exact_groups_are_the_identical_sets():
    h = representation(500, 6, seed=2)
    alpha = compute_thresholds(h, TOGETHER).alpha
    wanted = oracle.exact_groups(h, alpha, 3)
    found = {group.members: group.images.tolist() for group in find_groups(h, alpha, mode="exact", more_than=3)}
    assert found == wanted and any(len(members) > 1 for members in found)


@pytest.mark.parametrize("closed", [False, True])
def test_threshold_groups_are_all_sets_that_enough_images_share(closed):
    h = representation(500, 7, seed=3)
    h[:40, [0, 2, 5]] = 0.9  # always together
    alpha = compute_thresholds(h, TOGETHER).alpha
    above = h > alpha
    wanted = {
        members: np.flatnonzero(above[:, members].all(1)).tolist()
        for size in (2, 3, 4)
        for members in itertools.combinations(range(7), size)
    }
    wanted = {members: images for members, images in wanted.items() if len(images) > 10}
    if closed:
        wanted = {
            members: images
            for members, images in wanted.items()
            if not any(set(members) < set(more) and images == others for more, others in wanted.items())
        }
    found = find_groups(h, alpha, closed=closed)
    assert {group.members: group.images.tolist() for group in found} == wanted and wanted
    assert [len(group.images) for group in found] == sorted((len(g.images) for g in found), reverse=True)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match=r"no setting 'alfa' \(nearest: alpha"):
        FalconSettings.from_preset(alfa=1)
    with pytest.raises(UsageError, match="preset is one of default, paper, authors"):
        FalconSettings.from_preset("mine")
    with pytest.raises(UsageError, match="score is one of cosine, softmax, not 'dot'"):
        FalconSettings.from_preset(score="dot")
    with pytest.raises(UsageError, match="mask_threshold lies in"):
        FalconSettings.from_preset(mask_threshold=1.5)
    authors = FalconSettings.from_preset("authors")
    assert authors.spurious_threshold == 0.1 and authors.mode == "exact"


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.6, 0.95])
def test_boxes_are_those_of_the_literal_passes(density):
    rng = np.random.default_rng(int(density * 100))
    masks = rng.random((60, 9, 13)) < density
    masks[0] = False
    masks[1] = True
    blobs = rng.random((20, 5, 4)) < density
    masks[40:, 2:7, 4:8] = blobs
    masks[40:, :2] = masks[40:, 7:] = masks[40:, :, :4] = masks[40:, :, 8:] = False
    found = find_largest_boxes(masks)
    for mask, box in zip(masks, found, strict=True):
        assert (None if box[0] < 0 else box.tolist()) == oracle.downright_box(mask)
