"""Discovery methods: LOST and TokenCut against literal forms, boxes on the image, controls, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import encoscope
from encoscope.discovery import METHODS, get_method, make_candidates, read_attention_keys
from encoscope.discovery.lost import expand_seed
from encoscope.discovery.ncut import compute_second_eigenvector, select_foreground
from encoscope.discovery.patches import (
    extract_patches,
    objects_from_patches,
    select_component,
    select_largest_component,
)
from encoscope.discovery.simple import select_heaviest
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Geometry, LoadedImage, read_image
from encoscope.metrics import localize
from encoscope.regions import compute_inner_box, compute_outer_box, find_regions
from oracles import discovery as literal


@pytest.fixture(scope="module")
def vit():
    """A small ViT of 8 x 8 patches with class and register tokens, untrained."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, patch_size=8, depth=2, reg_tokens=2, dynamic_img_size=True, num_classes=0
    )
    return Encoder(network, size=64)


@pytest.fixture(scope="module")
def image(image_paths):
    """A part of a real image, 96 x 72."""
    pixels = read_image(image_paths["chelsea"]).pixels[40:240:3, 60:330:3]
    return read_image(np.ascontiguousarray(pixels[:66, :90]))


def features(seed, count=40, channels=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, channels)) + rng.integers(2, size=(count, 1)) * rng.normal(size=channels)


# LOST and TokenCut


@pytest.mark.parametrize("seed", range(4))
def test_lost_is_the_papers(seed):
    values, grid = features(seed), (5, 8)
    for k in (1, 7, 100):
        mask, start = expand_seed(values, grid, k)
        expected, expected_start = literal.lost(values, grid, k)
        assert start == expected_start
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("seed", range(4))
def test_tokencut_is_the_papers(seed):
    values, grid = features(seed), (5, 8)
    side, start = select_foreground(compute_second_eigenvector(values, 0.2))
    expected, expected_start = literal.tokencut(values, grid, 0.2)
    assert start == expected_start
    np.testing.assert_array_equal(select_component(side.reshape(grid), start), expected)


def _agree_on(encoder, image, size):
    found = extract_patches(encoder, image, size=size)
    centred = found.features - found.features.mean(0)  # untrained keys are all alike; without their mean they are not
    for values in (found.features, centred):
        mask, _ = expand_seed(values, found.grid)
        np.testing.assert_array_equal(mask, literal.lost(values, found.grid, 100)[0])
        # the cosine of the median pair, so that the graph is neither empty nor full
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        tau = float(np.median(unit @ unit.T))
        side, seed = select_foreground(compute_second_eigenvector(values, tau))
        np.testing.assert_array_equal(
            select_component(found.map(side), seed), literal.tokencut(values, found.grid, tau)[0]
        )


def test_lost_and_tokencut_agree_on_an_untrained_vit(vit, image):
    _agree_on(vit, image, "native")


def test_lost_and_tokencut_agree_on_zoo_features(image_paths):
    encoder = encoscope.load("zoo:resnet-caltech101")
    _agree_on(encoder, read_image(image_paths["chelsea"]), 224)


def test_the_literal_forms_find_a_planted_object():
    values = np.zeros((48, 3))
    values[:, 0] = 1
    inside = np.zeros((6, 8), dtype=bool)
    inside[2:5, 3:6] = True
    values[inside.ravel()] = (-0.2, 1, 0.1)
    for mask, seed in (expand_seed(values, (6, 8)), literal.tokencut(values, (6, 8), 0.2)):
        np.testing.assert_array_equal(mask, inside)
        assert inside.ravel()[seed]


# MaskCut, DINO-seg


class Planted(nn.Module):
    """A network whose only stage is a fixed map of features, for methods to find what was put there."""

    def __init__(self, maps):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, maps.shape[0], 8, stride=8), nn.ReLU())
        self.maps = nn.Parameter(maps, requires_grad=False)
        self.stage = _Give(self.maps)

    def forward(self, pixels):
        return self.stage(self.body(pixels)).mean((2, 3))


class _Give(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.mix = nn.Conv2d(maps.shape[0], maps.shape[0], 1)
        self.maps = maps

    def forward(self, values):
        return self.mix(values) * 0 + self.maps[None]


def planted(*areas, shape=(8, 8)):
    maps = torch.zeros(len(areas) + 1, *shape)
    maps[0] = 1
    for channel, area in enumerate(areas, start=1):
        maps[:, area[0], area[1]] = 0
        maps[channel, area[0], area[1]] = 1
    return Encoder(Planted(maps), size=64)


def blank(side=64):
    return read_image(np.zeros((side, side, 3), dtype=np.uint8))


def test_maskcut_finds_one_object_after_the_other():
    encoder = planted(np.s_[1:5, 1:4], np.s_[5:7, 5:7])
    found = get_method("maskcut", layer="stage")(encoder, blank())
    assert len(found) >= 2
    boxes = {tuple(box) for box in found.boxes.tolist()}
    assert {(8.0, 8.0, 32.0, 40.0), (40.0, 40.0, 56.0, 56.0)} <= boxes
    assert (found.masks.sum(0) <= 1).all()
    one = get_method("maskcut", layer="stage", n_objects=1)(encoder, blank())
    assert len(one) == 1


def test_a_foreground_in_the_corners_is_the_background():
    vector = np.full(36, -0.4)
    inside = np.zeros((6, 6), dtype=bool)
    inside[2:4, 2:4] = True
    vector[inside.ravel()] = 0.05
    vector[0] = -0.9  # the largest entry lies in the frame
    side, seed = select_foreground(vector)
    assert not side.reshape(6, 6)[inside].any() and seed == 0
    side, seed = select_foreground(vector, (6, 6), 2)
    np.testing.assert_array_equal(side.reshape(6, 6), inside)
    assert inside.ravel()[seed]


def test_the_heaviest_patches_hold_the_mass():
    weights = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
    np.testing.assert_array_equal(select_heaviest(weights, 0.6), [False, True, False, True, False])
    assert select_heaviest(weights, 1.0).all()
    np.testing.assert_array_equal(select_heaviest(3 * weights, 0.05), [False, True, False, False, False])


def test_parts_of_a_mask():
    mask = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], dtype=bool)
    assert select_largest_component(mask).sum() == 3 and select_largest_component(mask)[1, 2]
    assert select_component(mask, 0).sum() == 2 and not select_component(mask, 2).any()
    assert not select_largest_component(np.zeros((2, 2), bool)).any()


# Back on the image


def test_boxes_end_at_the_outer_edge_of_the_last_patch_and_at_the_photos():
    cells = np.zeros((3, 4), dtype=bool)
    cells[1:, 2:] = True
    native = Geometry((40, 60), (40, 60), (0, 0), (40, 60), (48, 64))  # padded to patches of 16
    found = objects_from_patches([cells, np.zeros_like(cells)], native)
    np.testing.assert_array_equal(found.boxes, [[32, 16, 60, 40]])
    assert found.regions[0].outer_box == (32, 16, 59, 39)
    assert found.masks.shape == (1, 40, 60) and found.masks[0, 16:, 32:].all() and found.masks.sum() == 24 * 28
    squashed = Geometry((90, 60), (48, 64), (0, 0), (48, 64), (48, 64))
    np.testing.assert_allclose(objects_from_patches([cells], squashed).boxes, [[30, 30, 60, 90]])


def test_candidates_of_regions():
    labels = np.zeros((6, 8), dtype=np.int64)
    labels[2:4, 3:6] = 1
    found = make_candidates(find_regions(labels), labels.shape)
    assert found.area.tolist() == [42, 6] and found.contact.tolist() == [24, 0]
    np.testing.assert_array_equal(found.outer, [[0, 0, 7, 5], [3, 2, 5, 3]])
    assert localize(found, np.array([[0.0, 0, 7, 5]]), select="border").index == 1
    assert len(make_candidates([], (4, 4))) == 0


@pytest.mark.parametrize("name", ["lost", "tokencut", "maskcut", "dino-seg", "pca"])
def test_methods_of_a_network(name, vit, image):
    before = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vit.module.modules()]
    found = get_method(name)(vit, image)
    assert len(found) >= 1 and (found.height, found.width) == (image.height, image.width)
    for box, mask in zip(found.boxes, found.masks, strict=True):
        assert (box >= 0).all() and box[2] <= image.width and box[3] <= image.height
        ys, xs = np.nonzero(mask)
        assert box[0] <= xs.min() and xs.max() < box[2] and box[1] <= ys.min() and ys.max() < box[3]
    again = get_method(name)(vit, image)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    assert len(found.candidates) == len(found)
    assert before == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vit.module.modules()]


@pytest.mark.parametrize("name", ["slic", "felzenszwalb", "random", "grid"])
def test_methods_without_a_network_part_the_photo(name, image):
    if name in ("slic", "felzenszwalb"):
        pytest.importorskip("skimage")
    found = METHODS[name](None, image)
    assert (found.masks.sum(0) == 1).all()
    np.testing.assert_array_equal(found.boxes, [compute_outer_box(mask) for mask in found.masks])
    for region, mask in zip(found.regions, found.masks, strict=True):
        assert region.inner_box == compute_inner_box(mask) and region.area == mask.sum()
    if name != "felzenszwalb":
        assert 2 <= len(found) <= 9
        assert len(METHODS[name](None, image, n_segments=20)) > len(found)
    else:
        assert len(METHODS[name](None, image, scale=10.0)) > len(found)


def test_random_segments_depend_on_the_photo_and_the_seed_only(image):
    one = METHODS["random"](None, image)
    np.testing.assert_array_equal(METHODS["random"](None, image).boxes, one.boxes)
    other = LoadedImage(image.pixels, None, "f" * 64)
    for changed in (METHODS["random"](None, image, random_state=1), METHODS["random"](None, other)):
        assert changed.boxes.shape != one.boxes.shape or (changed.boxes != one.boxes).any()
    grid = METHODS["grid"](None, image, n_segments=6)
    assert sorted(region.area for region in grid.regions) == [990] * 6


def test_refusals(vit, image):
    with pytest.raises(UsageError, match=r"unknown method 'tokkencut' .nearest: tokencut"):
        get_method("tokkencut")
    with pytest.raises(UsageError, match=r"lost has no setting 'kk'.*it has layer, size, k"):
        get_method("lost", kk=3)
    with pytest.raises(UsageError, match="n_segments is a number"):
        get_method("grid", n_segments=0)(vit, image)
    with pytest.raises(UsageError, match="no attention"):
        get_method("dino-seg")(encoscope.load("timm:resnet10t@untrained"), image)
    with pytest.raises(UsageError, match=r"nearest: blocks.1"):
        get_method("lost", layer="block.1")(vit, image)
    with pytest.raises(UsageError, match="holds 2 attention modules, not one"):
        read_attention_keys(vit, vit.prepare(image), "blocks")
