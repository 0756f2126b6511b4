"""Top patches: one pass, batched and shared by units, equals every patch alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.probing import find_top_patches, load_patches, probe
from encoscope.units import channel_unit, measure_units
from oracles import patches as oracle
from support.probed_network import MEAN, STD, make_encoder, write_images


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight photos, wide, high and square."""
    return write_images(tmp_path_factory.mktemp("patches"), 8)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_stride_scoring_equals_every_patch_alone(encoder, files, batch) -> None:
    units = ["0.3:2", channel_unit("0.0", 5), "0.3:7"]
    found = find_top_patches(encoder, files, units, 5, patch=12, batch_size=batch)
    for (layer, channel), patches in zip((("0.3", 2), ("0.0", 5), ("0.3", 7)), found, strict=True):
        expected = oracle.top(encoder.module, layer, channel, files, 32, 12, 9, 5, MEAN, STD)
        assert [(patch.id, *patch.corner) for patch in patches] == [item[:3] for item in expected]
        np.testing.assert_allclose([patch.score for patch in patches], [item[3] for item in expected], atol=1e-5)
        assert len({patch.id for patch in patches}) == 5  # one an image


def test_preselection_looks_into_the_strongest_images_only(encoder, files, tmp_path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"?")
    units = [channel_unit("0.3", 1), channel_unit("0.3", 4)]
    found = find_top_patches(encoder, [broken, *files], units, 9, patch=10, scoring="preselect", candidates=3)
    for unit, patches in zip(units, found, strict=True):
        channel = unit.index
        peaks = {
            file: oracle.maps(encoder.module, "0.3", oracle.whole_padded(file, 32, MEAN, STD, 4))[channel].max()
            for file in files
        }
        strongest = sorted(files, key=lambda file: -peaks[file])[:3]
        # the patches of 32 // 32 + 1 columns: preselection strides by 32
        expected = oracle.top(encoder.module, "0.3", channel, strongest, 32, 10, 32, 9, MEAN, STD)
        assert [(patch.id, *patch.corner) for patch in patches] == [item[:3] for item in expected]
    all_of_them = find_top_patches(encoder, files, units, 2, patch=10, scoring="preselect")  # too few to choose from
    assert [[patch.corner for patch in patches] for patches in all_of_them] == [
        [item[1:3] for item in oracle.top(encoder.module, "0.3", unit.index, files, 32, 10, 32, 2, MEAN, STD)]
        for unit in units
    ]


def test_loaded_patches_are_what_was_scored(encoder, files) -> None:
    unit = channel_unit("0.3", 6)
    (patches,) = find_top_patches(encoder, files, [unit], 4, patch=16)
    pixels = load_patches(encoder, patches)
    assert pixels.shape == (4, 3, 32, 32)
    np.testing.assert_allclose(
        measure_units(encoder, pixels, [unit])[:, 0], [patch.score for patch in patches], atol=1e-6
    )


def test_boxes_are_in_the_original_image(encoder, tmp_path) -> None:
    Image.fromarray(np.zeros((96, 160, 3), np.uint8)).save(tmp_path / "black.png")
    ((patch,),) = find_top_patches(encoder, tmp_path, ["0.3:0"], patch=16, stride=16)
    # resized to 32 x 53 (height x width); all patches of a black image are alike, so the first counts
    assert (patch.corner, patch.side) == ((0, 0), 16)
    assert patch.box == (0, 0, 47, 47)


def test_the_same_image_counts_once_and_ties_go_by_id(encoder, files, tmp_path) -> None:
    copies = [shutil.copy(files[0], tmp_path / f"{number}.png") for number in range(3)]
    colours = []
    for number in range(3):  # images of other bytes and equal values
        colours.append(tmp_path / f"grey{number}.png")
        Image.new("RGB", (32 + number, 32), (90, 90, 90)).save(colours[-1])
    (patches,) = find_top_patches(encoder, [*copies, *colours, files[0]], ["0.3:3"], 10, patch=16)
    assert len(patches) == 4
    grey = [patch.id for patch in patches if "grey" in patch.path]
    assert grey == sorted(grey)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 33}, "a patch of 33 pixels is larger than the network's input of 32"),
        ({"count": 0}, "count is a number from 1 on, not 0"),
        ({"units": ["0.3:8"]}, "out of range"),
        ({"units": []}, "no units given"),
    ],
)
def test_wrong_questions(encoder, files, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        find_top_patches(encoder, files, **({"units": ["0.3:1"], "patch": 16} | options))


def test_images_that_are_not_there_or_change(encoder, files, tmp_path, caplog) -> None:
    with pytest.raises(EncoscopeError, match="none of 1 images could be read; the first: no such file"):
        find_top_patches(encoder, [tmp_path / "nothing.png"], ["0.3:1"], patch=16)
    assert "skipped: no such file" in caplog.text
    copy = Path(shutil.copy(files[1], tmp_path / "copy.png"))
    (patches,) = find_top_patches(encoder, [copy], ["0.3:1"], patch=16)
    shutil.copy(files[2], copy)
    with pytest.raises(EncoscopeError, match="has changed since its patches were chosen"):
        load_patches(encoder, patches)
    copy.write_bytes(b"?")
    with pytest.raises(ImageError):
        load_patches(encoder, patches)
    assert probe(encoder, files, "0.3").values.shape == (8, 8)  # nothing is left hooked
    assert not any(module._forward_hooks for module in encoder.module.modules())
    assert torch.is_grad_enabled()
