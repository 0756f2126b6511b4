"""Top patches by the maps of whole images: equal to the search written out, in one pass, each patch scored once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope import Encoder
from encoscope.errors import EncoscopeError
from encoscope.probing import find_top_patches, load_patches, map_search
from encoscope.units import channel_unit, direction_unit, measure_units
from oracles import patches as oracle
from support.probed_network import MEAN, STD, make_encoder, write_images

CELLS = {"0.0": (2, 0.5), "0.3": (4, 0.5)}
"""Stride and offset of two layers: 3 x 3 convolutions of stride 2, padded by 1."""


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve photos, wide, high and square."""
    return write_images(tmp_path_factory.mktemp("patches"), 12)


@pytest.fixture
def forwards(encoder, monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of all batches that the network gets."""
    seen: list[tuple[int, ...]] = []
    observe = Encoder.observe

    def note(self, images, *args, **kwargs):
        seen.append(tuple(self._pixels(images).shape))
        return observe(self, images, *args, **kwargs)

    encoder.trial(["0.0"]), encoder.trial(["0.3"])  # not part of a search
    monkeypatch.setattr(Encoder, "observe", note)
    return seen


@pytest.mark.parametrize("patch", [8, 12, 20])
@pytest.mark.parametrize(("count", "candidates"), [(3, None), (4, 5), (12, None)])
def test_maps_equal_the_search_written_out(encoder, files, patch, count, candidates) -> None:
    units = [("0.3", 2), ("0.0", 5), ("0.3", 7)]
    found = find_top_patches(
        encoder,
        files,
        [channel_unit(*unit) for unit in units],
        count,
        patch=patch,
        scoring="maps",
        candidates=candidates,
    )
    for (layer, channel), patches in zip(units, found, strict=True):
        expected = oracle.top_by_maps(
            encoder.module, layer, channel, files, 32, patch, *CELLS[layer], count, candidates or 2 * count, MEAN, STD
        )
        assert [(each.id, *each.corner) for each in patches] == [item[:3] for item in expected]
        np.testing.assert_allclose([each.score for each in patches], [item[3] for item in expected], atol=1e-5)
        exact = measure_units(encoder, load_patches(encoder, patches), [channel_unit(layer, channel)])[:, 0]
        np.testing.assert_allclose([each.score for each in patches], exact, atol=1e-5)


def test_what_it_keeps_against_scoring_every_patch(encoder, files) -> None:
    """Nothing it keeps is better, and most of what is above any image's best is kept."""
    units = [channel_unit("0.3", channel) for channel in range(8)]

    def average(count, **options):
        found = find_top_patches(encoder, files, units, count, patch=16, **options)
        return np.array([[patch.score for patch in patches] for patches in found]).mean(1)

    every = average(len(files), scoring="stride", stride=2)  # of each image the best
    best, found = average(3, scoring="stride", stride=2), average(3, scoring="maps")
    assert (found <= best + 1e-6).all()
    assert np.median((found - every) / (best - every)) > 0.5


def test_one_pass_for_all_units_and_two_forwards_for_each_patch_kept(encoder, files, forwards) -> None:
    units = [channel_unit(layer, channel) for layer, width in (("0.3", 8), ("0.0", 6)) for channel in range(width)]
    geometry = 2  # a forward for each layer, which says where its cells look
    found = find_top_patches(encoder, files, units, 3, patch=12, scoring="maps")
    kept = sum(len(patches) for patches in found)
    assert kept == 3 * len(units)
    scored = sum(shape[0] for shape in forwards) - len(files) - geometry
    assert 0 < scored < 2 * kept  # at most two for each; some are shared
    forwards.clear()
    find_top_patches(encoder, files, [channel_unit("0.3", 1)], 3, patch=12, scoring="maps")
    assert sum(shape[0] for shape in forwards) == 1 + 6  # the pass has been made, for all channels of the layer
    forwards.clear()
    find_top_patches(encoder, files, [direction_unit("0.3", np.arange(8.0), "up")], 3, patch=12, scoring="maps")
    assert sum(shape[0] for shape in forwards) == 1 + len(files) + 6


def test_a_patch_that_units_share_is_scored_once(encoder, files, forwards) -> None:
    twins = [direction_unit("0.3", np.eye(8)[1] * factor, f"{factor} times") for factor in (1, 2)]
    found = find_top_patches(encoder, files, [channel_unit("0.3", 1), *twins], 3, patch=12, scoring="maps")
    assert sum(shape[0] for shape in forwards) == 2 + len(files) + 6  # two tables: all channels, and the directions
    places = [[(each.id, each.corner) for each in patches] for patches in found]
    assert places[1] == places[0] and places[2] == places[0]
    assert [each.score * 2 for each in found[0]] == pytest.approx([each.score for each in found[2]], rel=1e-5)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_search_that_is_stopped_is_resumed(encoder, files, monkeypatch, forwards, stop) -> None:
    monkeypatch.setattr(map_search, "_CHUNK", 2)
    monkeypatch.setattr(map_search, "_SAVE_SECONDS", 0.0)
    units = [channel_unit("0.3", channel) for channel in (0, 3)]
    read = map_search._read_batch

    def breaking(search, number):
        if number == stop:
            raise KeyboardInterrupt
        return read(search, number)

    with monkeypatch.context() as patched:
        patched.setattr(map_search, "_read_batch", breaking)
        with pytest.raises(KeyboardInterrupt):
            find_top_patches(encoder, files, units, 4, patch=12, scoring="maps")
    forwards.clear()
    found = find_top_patches(encoder, files, units, 4, patch=12, scoring="maps")
    whole = sum(shape[0] for shape in forwards if shape[0] == 1)
    assert whole <= len(files) - stop // 2 * 2 + 2
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(files[0].parent.parent / f"other{stop}"))
    assert find_top_patches(encoder, files, units, 4, patch=12, scoring="maps") == found


def test_the_same_image_counts_once_and_unreadable_ones_are_left_out(encoder, files, tmp_path, caplog) -> None:
    copies = [Path(shutil.copy(files[0], tmp_path / f"{number}.png")) for number in range(3)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"?")
    (patches,) = find_top_patches(encoder, [broken, *copies, *files], ["0.3:3"], 20, patch=12, scoring="maps")
    assert len({patch.id for patch in patches}) == len(patches) == len(files)
    assert "skipped" in caplog.text
    with pytest.raises(EncoscopeError, match="none of 1 images could be read"):
        find_top_patches(encoder, [broken], ["0.3:3"], 20, patch=12, scoring="maps")


class FixedSize(nn.Module):
    """A network that takes one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
        self.head = nn.Linear(4 * 64, 2)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


@pytest.mark.parametrize("size", [(96, 32), (32, 64), (48, 40)])
def test_the_place_is_found_in_images_of_any_shape(size, tmp_path) -> None:
    """A single bright spot: the patch lies around it, in networks of any and of one size."""
    torch.manual_seed(0)
    fixed = FixedSize()
    free = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for convolution in (fixed.body[0], free[0]):
        nn.init.constant_(convolution.weight, 1.0)
        nn.init.zeros_(convolution.bias)
    pixels = np.zeros((*size, 3), np.uint8)
    row, column = size[0] * 5 // 8, size[1] * 3 // 8
    pixels[row : row + 4, column : column + 4] = 255
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    for network, layer in ((fixed, "body.0"), (free, "0")):
        encoder = Encoder(network, size=32, mean=0.0, std=1.0)
        ((patch,),) = find_top_patches(encoder, tmp_path, [f"{layer}:1"], 1, patch=12, scoring="maps")
        x0, y0, x1, y1 = patch.box
        assert x0 <= column + 1 and column + 2 <= x1
        assert y0 <= row + 1 and row + 2 <= y1


def test_features_that_are_the_mean_of_a_map_have_that_map(encoder, files, forwards) -> None:
    inside = find_top_patches(encoder, files, [f"{encoder.depths[-1]}:3"], 2, patch=12, scoring="maps")
    forwards.clear()
    assert find_top_patches(encoder, files, ["features:3"], 2, patch=12, scoring="maps") == inside
    assert sum(shape[0] for shape in forwards) == 2 + 4


def test_the_networks_own_crop(encoder, tmp_path) -> None:
    """Cut from the model's resize and crop: corners in its input, boxes in the image."""
    generator = np.random.default_rng(1)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    coarse.resize((120, 60), Image.Resampling.BICUBIC).save(tmp_path / "wide.png")
    for scoring in ("stride", "maps"):
        ((patch,),) = find_top_patches(
            encoder, tmp_path, ["0.3:1"], 1, patch=16, scoring=scoring, geometry="model", stride=16
        )
        input_pixels = encoder.prepare(tmp_path / "wide.png").pixels
        top, left = patch.corner
        cut = input_pixels[:, :, top : top + 16, left : left + 16]
        resized = torch.nn.functional.interpolate(cut, size=(32, 32), mode="bilinear", align_corners=False)
        assert torch.equal(load_patches(encoder, [patch]), resized)
        assert 0 <= patch.box[0] < patch.box[2] < 120 and 0 <= patch.box[1] < patch.box[3] < 60
        share = encoder.preprocess.crop
        assert patch.box[2] - patch.box[0] + 1 == pytest.approx(16 / 32 * 60 * share, abs=1)
