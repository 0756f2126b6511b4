"""A network with the weights of another, but another forward pass, is never shown the other's values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import encoscope
from encoscope import Encoder
from encoscope.errors import EncoscopeError
from encoscope.probing import from_array
from encoscope.probing import load as load_probe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            pixels = drawn.integers(0, 255, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.block(self.stem(x))))

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Largest(Base):
    def pool(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


class Hidden(Base):
    """Its pooling is found by no inspection of code."""

    def pool(self, x: Tensor) -> Tensor:
        return x.sub(x.mul(0)).flatten(2).sort(2).values[:, :, -1]


class Cut(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x)
        return self.head(self.pool(self.block(x)))


def make(cls: Callable[[], nn.Module]) -> Encoder:
    return Encoder(cls(), size=32, classes=["one", "two"])


def visualize(encoder: Encoder, folder: Path, cache: Path) -> encoscope.Visualization:
    return encoscope.visualize(
        encoder, "class:one", references=str(folder), layers=["block"], steps=2, cache_dir=cache, progress=False
    )


def true_activation(encoder: Encoder, folder: Path) -> float:
    return float(np.mean([float(encoder.logits(path)[0, 0]) for path in sorted((folder / "one").iterdir())]))


@pytest.mark.parametrize("other", [Largest, Hidden])
def test_another_pooling_gets_its_own_reference_activation(other, folder: Path, tmp_path: Path) -> None:
    shown = {cls: visualize(make(cls), folder, tmp_path / "cache") for cls in (Base, other)}
    for cls, visualization in shown.items():
        assert visualization.reference_activation == pytest.approx(true_activation(make(cls), folder), abs=1e-4)
    assert abs(shown[Base].reference_activation - shown[other].reference_activation) > 0.01


def test_an_equal_digest_does_not_suffice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the code could not be seen: the outputs of the trial tell the networks apart."""
    monkeypatch.setattr(Encoder, "digest", "0" * 64)
    for cls in (Base, Largest, Base):
        visualization = visualize(make(cls), folder, tmp_path / "cache")
        assert visualization.reference_activation == pytest.approx(true_activation(make(cls), folder), abs=1e-4)
        probe = encoscope.probe(make(cls), str(folder), "logits", cache_dir=tmp_path / "cache")
        truth = np.concatenate([make(cls).logits(path).numpy() for path in probe.paths])
        assert np.abs(probe.values - truth).max() < 1e-5
    assert all("anew" in record.getMessage() or "starting over" in record.getMessage() for record in caplog.records)
    assert len({record.getMessage() for record in caplog.records}) >= 3


@pytest.mark.parametrize("same_digest", [False, True])
def test_a_network_without_gradients_is_refused_after_a_plain_one(
    same_digest: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if same_digest:
        monkeypatch.setattr(Encoder, "digest", "0" * 64)
    visualize(make(Base), folder, tmp_path / "cache")
    with pytest.raises(EncoscopeError, match="gradient"):
        visualize(make(Cut), folder, tmp_path / "cache")


def test_values_from_elsewhere_never_pass_for_the_network_s_own(folder: Path, tmp_path: Path) -> None:
    encoder, cache = make(Base), tmp_path / "cache"
    given = np.random.default_rng(1).random((8, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", given)
    imported = from_array(encoder, str(folder), tmp_path / "x.npy", cache_dir=cache)
    assert np.array_equal(imported.values, given) and imported.imported.startswith("x.npy (sha256 ")
    own = encoscope.probe(encoder, str(folder), cache_dir=cache)
    truth = np.concatenate([encoder.features(path).numpy() for path in own.paths])
    assert np.abs(own.values - truth).max() < 1e-5 and own.imported == "" and own.path != imported.path
    again = load_probe(imported.path)
    assert again.imported == imported.imported and np.array_equal(again.values, given)
    told = encoscope.probe(encoder, imported.path)  # told so
    assert told.imported == imported.imported
    other = from_array(encoder, str(folder), given + 1, cache_dir=cache)
    assert other.path != imported.path
