"""Maps brought to a higher resolution by a function of the user; here by a guided filter, which takes edges from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import encoscope
from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import read_image
from encoscope.nave.controls import color_control
from encoscope.nave.feature_cache import FeatureCache
from encoscope.nave.features import encode_images
from encoscope.nave.settings import NaveSettings

GUIDED = """
import torch
from torch.nn import functional

RADIUS, EPS = 8, 1e-3

def box(values):
    return functional.avg_pool2d(values, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False)

def guided(maps, image):
    guide = image.mean(1, keepdim=True)
    large = functional.interpolate(maps, image.shape[2:], mode="bilinear", align_corners=False)
    mean, mean_guide = box(large), box(guide)
    slope = (box(guide * large) - mean_guide * mean) / (box(guide * guide) - mean_guide**2 + EPS)
    return box(slope) * guide + box(mean - slope * mean_guide)

def double(maps, image):
    return functional.interpolate(maps, scale_factor=2, mode="nearest")
"""
"""He, Sun and Tang (2010), with a grey guide; and a plain enlargement."""


class Stages(nn.Module):
    """Two coarse stages of patches that do not overlap: without padding, a color has the same features everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(6, 8, 2, 2), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.stage2(self.stage1(pixels)).mean((2, 3)))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(3)
    return Encoder(Stages(), size=48)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user that holds the functions above."""
    name = f"upsamplers_{abs(hash(tmp_path.name))}"
    (tmp_path / f"{name}.py").write_text(GUIDED)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def halves() -> tuple[np.ndarray, np.ndarray]:
    """An image of two sides with a slanted edge between them, and the side of each pixel."""
    y, x = np.mgrid[:48, :64]
    side = x + 0.37 * y > 37.5
    pixels = np.where(side[..., None], (214, 180, 90), (40, 70, 120)).astype(np.uint8)
    return pixels, side


def agreement(labels: np.ndarray, side: np.ndarray) -> float:
    same = float((labels.astype(bool) == side).mean())
    return max(same, 1 - same)


def function_of(module: str, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    import importlib

    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", ["guided", "double"])
@pytest.mark.parametrize("weighting", ["paper", "equal"])
def test_composite_features_stand_on_the_upsampled_maps(
    encoder: Encoder, module: str, halves: Any, name: str, weighting: str
) -> None:
    image = read_image(halves[0])
    settings = NaveSettings.of(
        encoder, "paper", layers="stage1,stage2", upsampler=f"py:{module}:{name}", weighting=weighting
    )
    (maps,) = encode_images(encoder, [image], settings)
    batch = encoder.prepare(image, geometry="whole", size="model")
    plain = encoder.activations(batch, settings.layers)
    upsampled = [function_of(module, name)(plain[layer].maps, batch.pixels) for layer in settings.layers]
    grid = tuple(upsampled[0].shape[2:])
    parts = []
    for layer in upsampled:
        large = layer
        if tuple(layer.shape[2:]) != grid:
            large = functional.interpolate(layer, grid, mode="bicubic", align_corners=False)
        vectors = large[0].flatten(1).T.double().detach().numpy()
        factor = 1 / (1 + vectors.shape[1]) if weighting == "paper" else len(upsampled) ** -0.5
        parts.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) * factor)
    features = maps.features(settings)
    assert features.grid == grid and grid[0] > plain[settings.layers[0]].maps.shape[2]
    np.testing.assert_allclose(features.dense()[0].numpy(), np.concatenate(parts, axis=1), atol=1e-4)


def test_edges_come_from_the_image(encoder: Encoder, module: str, halves: Any) -> None:
    pixels, side = halves
    coarse = encoscope.segment(encoder, pixels, preset="paper", n_clusters=2)
    fine = encoscope.segment(encoder, pixels, preset="paper", n_clusters=2, upsampler=f"py:{module}:guided")
    assert agreement(fine.labels, side) > max(0.97, agreement(coarse.labels, side))
    control = color_control(read_image(pixels), fine)  # on the same fine grid, from colors alone
    assert control.grid_labels.shape == fine.grid_labels.shape == (48, 64)
    assert agreement(control.labels, side) > 0.97
    same = encoscope.segment(encoder, pixels, preset="paper", n_clusters=2, upsampler=function_of(module, "guided"))
    np.testing.assert_array_equal(same.labels, fine.labels)
    assert same.settings["upsampler"]["digest"] == fine.settings["upsampler"]["digest"]


def test_the_batch_changes_nothing(encoder: Encoder, module: str, halves: Any) -> None:
    images = [halves[0], halves[0][::-1].copy(), halves[0][:, ::-1].copy()]
    options = {"n_clusters": 3, "upsampler": f"py:{module}:guided", "progress": False}
    alone = encoscope.segment(encoder, images, preset="paper", batch_size=1, **options)
    together = encoscope.segment(encoder, images, preset="paper", batch_size=3, **options)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
    first = encoscope.colors(
        encoder, images, preset="paper", upsampler=options["upsampler"], batch_size=1, progress=False
    )
    again = encoscope.colors(
        encoder, images, preset="paper", upsampler=options["upsampler"], batch_size=3, progress=False
    )
    assert all(np.abs(a.rgb.astype(int) - b.rgb).max() <= 1 for a, b in zip(first, again, strict=True))
    assert first[0].components.shape == (48, 64, 3)
    assert first[0].settings["upsampler"]["name"] == options["upsampler"]


def fail(maps: Tensor, image: Tensor) -> Tensor:
    raise ValueError("no such\nsize")


WRONG: dict[str, tuple[Any, str]] = {
    "channels": (lambda maps, image: image[:, :2].repeat(1, 2, 1, 1), r"gave shape \(1, 4, 48, 64\) .* must keep"),
    "smaller": (lambda maps, image: maps[:, :, ::2, ::2], "at least as many rows"),
    "images": (lambda maps, image: maps.repeat(2, 1, 1, 1), "must keep the images"),
    "axes": (lambda maps, image: maps[0], "must keep the images"),
    "nan": (lambda maps, image: maps * float("nan"), "no finite numbers"),
    "infinite": (lambda maps, image: maps / 0, "no finite numbers"),
    "whole numbers": (lambda maps, image: maps.long(), "no finite numbers"),
    "array": (lambda maps, image: maps.numpy(), "gave ndarray .* must return a tensor"),
    "nothing": (lambda maps, image: None, "gave NoneType"),
    "error": (fail, r"fail failed on maps of shape \(1, 8, 6, 8\): ValueError: no such size"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_maps_are_refused_in_one_line(encoder: Encoder, halves: Any, what: str) -> None:
    function, said = WRONG[what]
    with pytest.raises(EncoscopeError, match=said) as raised:
        encoscope.segment(encoder, halves[0], preset="paper", upsampler=function)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["bilinear", "module:function", "py:encoscope", nn.Module])
def test_what_is_no_upsampler_is_refused_before_the_network(value: Any) -> None:
    with pytest.raises(UsageError, match="py:module:function"):
        encoscope.segment("zoo:no-such-network", "no-such-image.png", upsampler=value)


def test_an_upsampler_is_part_of_cache_keys(encoder: Encoder, module: str, tmp_path: Path) -> None:
    def folder(upsampler: Any) -> Path:
        settings = NaveSettings.of(encoder, upsampler=upsampler)
        return FeatureCache(encoder, settings, "fp32", cache_dir=tmp_path / "cache").store.path

    other = "other" + module
    (tmp_path / f"{other}.py").write_text(GUIDED.replace("1e-3", "1e-2"))
    folders = [folder(name) for name in (None, f"py:{module}:guided", f"py:{module}:double", f"py:{other}:guided")]
    assert len(set(folders)) == 4
    keys = [NaveSettings.of(encoder, upsampler=f"py:{name}:guided").as_key()["upsampler"] for name in (module, other)]
    assert keys[0]["digest"] != keys[1]["digest"]


def test_a_joint_fit_keeps_its_upsampler(encoder: Encoder, module: str, halves: Any, tmp_path: Path) -> None:
    options = {"n_clusters": 2, "cache_dir": tmp_path / "cache", "progress": False}
    nave = encoscope.Nave(
        encoder, preset="paper", upsampler=f"py:{module}:guided", feature_cache="fp32", **options
    ).fit([halves[0]])
    (found,) = nave.predict([halves[0]])
    assert found.grid_labels.shape == (48, 64)
    loaded = encoscope.Nave.load(nave.save(tmp_path / "nave"), encoder)
    np.testing.assert_array_equal(loaded.predict([halves[0]])[0].labels, found.labels)
    with pytest.raises(EncoscopeError, match="computes something else"):
        encoscope.Nave.load(tmp_path / "nave", encoder, upsampler=function_of(module, "double"))


def test_on_the_command_line(module: str, halves: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from encoscope.cli.app import run

    Image.fromarray(halves[0]).save(tmp_path / "a.png")
    model = ["--model", "timm:resnet10t", "--untrained", "--size", "32", "--layers", "layer1,layer2"]
    shared = [str(tmp_path / "a.png"), *model, "--upsampler", f"py:{module}:double", "--out"]
    assert run(["segment", *shared, str(tmp_path / "s"), "--clusters", "2", "--control", "color"]) == 0
    assert run(["colors", *shared, str(tmp_path / "c")]) == 0
    assert run(["similar", *shared, str(tmp_path / "w"), "--at", "5,5"]) == 0
    for folder, kind in {"s": "segmentation", "c": "feature-colors", "w": "similarity"}.items():
        document = results.read(tmp_path / folder / "result.json", kind)
        assert document["settings"]["upsampler"]["name"] == f"py:{module}:double"
    capsys.readouterr()
    for text in (f"py:{module}:gided", "py:no_such_module:f", "py:x", "bilinear"):
        assert run(["segment", str(tmp_path / "a.png"), *model, "--upsampler", text]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_function_gets_copies(encoder: Encoder, halves: Any) -> None:
    def spoil(maps: Tensor, image: Tensor) -> Tensor:
        image.zero_()
        return maps.zero_() + 1

    before = encoscope.segment(encoder, halves[0], preset="paper", n_clusters=2).labels
    encoscope.segment(encoder, halves[0], preset="paper", n_clusters=1, upsampler=spoil)
    np.testing.assert_array_equal(encoscope.segment(encoder, halves[0], preset="paper", n_clusters=2).labels, before)
