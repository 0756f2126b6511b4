"""CRAFT: factorisation and Sobol indices against closed forms and the literal steps; banks that come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import encoscope
from encoscope import Encoder
from encoscope.craft import (
    ConceptBank,
    compute_importances,
    compute_linear_indices,
    compute_shares,
    compute_total_indices,
    draw_designs,
    factorize,
    find_concepts,
)
from encoscope.craft import importance as importance_module
from encoscope.encoder import substitute_maps
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.units import parse_unit
from oracles import concepts as oracle
from oracles.probe import file_id
from support.probed_network import MEAN, STD, make_encoder


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cups and four trees."""
    root = tmp_path_factory.mktemp("concepts")
    generator = np.random.default_rng(1)
    for number in range(10):
        place = root / ("Cup" if number < 6 else "tree")
        place.mkdir(exist_ok=True)
        image = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        image.resize((48, 40), Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return root


def test_sobol_indices_of_the_ishigami_function() -> None:
    def ishigami(points: np.ndarray) -> np.ndarray:
        x = (points * 2 - 1) * np.pi
        return np.sin(x[..., 0]) + 7 * np.sin(x[..., 1]) ** 2 + 0.1 * x[..., 2] ** 4 * np.sin(x[..., 0])

    base, changed = draw_designs(3, 8192)
    found = compute_total_indices(ishigami(base), ishigami(changed))
    first, second, both = 0.5 * (1 + 0.1 * np.pi**4 / 5) ** 2, 49 / 8, 8 * 0.01 * np.pi**8 / 225
    expected = np.array([first + both, second, both]) / (first + second + both)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_sobol_indices_of_additive_and_constant_functions() -> None:
    slopes = np.array([[3.0, -2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    base, changed = draw_designs(4, 4096, random_state=3)
    points = np.concatenate([base, changed.reshape(-1, 4)]) @ slopes.T + 5
    found = compute_total_indices(points[:4096].T, points[4096:].reshape(4, 4096, 2).transpose(2, 0, 1))
    np.testing.assert_allclose(found, [[9 / 14, 4 / 14, 0, 1 / 14], [0, 0, 0, 0]], atol=0.01)
    np.testing.assert_allclose(compute_linear_indices(slopes), [[9 / 14, 4 / 14, 0, 1 / 14], [0, 0, 0, 0]])
    with pytest.raises(UsageError, match="samples is a power of two, from 2 on, not 30"):
        draw_designs(4, 30)


def test_factorisation_finds_planted_directions() -> None:
    generator = np.random.default_rng(0)
    planted = np.eye(3, 12) + np.roll(np.eye(3, 12), 6, axis=1) / 2
    amounts = generator.exponential(size=(80, 3)) * (generator.random((80, 3)) < 0.5)
    shares, directions = factorize(amounts @ planted, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    cosines = directions @ (planted / np.linalg.norm(planted, axis=1, keepdims=True)).T
    assert sorted(cosines.argmax(1).tolist()) == [0, 1, 2]
    assert (cosines.max(1) > 0.99).all()
    np.testing.assert_allclose(compute_shares(amounts @ planted, directions), shares, atol=0.05)


def test_shares_are_non_negative_least_squares() -> None:
    from scipy.optimize import nnls

    generator = np.random.default_rng(0)
    directions, vectors = generator.random((4, 20)), generator.random((9, 20))
    expected = [nnls(directions.T, vector)[0] for vector in vectors]
    np.testing.assert_allclose(compute_shares(vectors, directions), expected, atol=1e-10)


@pytest.mark.parametrize("layer", ["0.4", "0.2"])
def test_concepts_equal_the_literal_steps(encoder, folder, layer) -> None:
    bank = find_concepts(
        encoder, "class:cup", folder, n_concepts=3, layer=layer, patch_size=16, n_samples=8, n_crops=4, random_state=2
    )
    files = sorted((folder / "Cup").iterdir(), key=file_id)
    assert bank.images == tuple(map(file_id, files))
    activations = oracle.patch_activations(encoder.module, layer, files, 32, 16, 12, MEAN, STD)
    directions = oracle.concepts(activations, 3, 2)
    order = [int((directions @ found).argmax()) for found in bank.directions]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(bank.directions, directions[order], atol=2e-3)
    base, changed = draw_designs(3, 8, random_state=2)
    indices = []
    for file in files[:2] if layer == "0.4" else files:
        pixels = encoder.prepare(file).pixels
        if layer == "0.4":  # linear in the masks: exact, so the slopes are three differences
            logits = [
                oracle.logit_of_masked(encoder.module, layer, pixels, directions, mask, 1)
                for mask in [np.zeros(3), *np.eye(3)]
            ]
            squares = (np.array(logits[1:]) - logits[0]) ** 2
            indices.append(squares / squares.sum())
        else:

            def logit(mask, pixels=pixels):
                return oracle.logit_of_masked(encoder.module, layer, pixels, directions, mask, 1)

            indices.append(oracle.total_indices(logit, base, changed))
    found = bank.importances
    if layer == "0.4":
        pixels = torch.cat([encoder.prepare(file).pixels for file in files[:2]])
        found = compute_importances(encoder, pixels, layer, bank.directions, 1).mean(0)
    np.testing.assert_allclose(found, np.mean(indices, 0)[order], atol=5e-3)
    assert (np.diff(bank.importances) <= 0).all()
    for concept, crops in enumerate(bank.crops):
        amounts = bank.shares(activations.astype(np.float32))[:, concept].reshape(len(files), -1).max(1)
        strongest = sorted(amounts, reverse=True)[: len(crops)]
        np.testing.assert_allclose([crop.score for crop in crops], strongest, rtol=0.1, atol=0.02)
        assert len({crop.id for crop in crops}) == len(crops)


def test_the_estimate_agrees_with_the_closed_form(encoder, folder, monkeypatch) -> None:
    bank = find_concepts(encoder, "class:tree", folder, n_concepts=3, layer="0.4", patch_size=16)
    pixels = encoder.prepare(sorted((folder / "tree").iterdir())[:2]).pixels
    exact = compute_importances(encoder, pixels, "0.4", bank.directions, 2)
    monkeypatch.setattr(importance_module, "_head_alone", lambda *arguments: None)
    estimated = compute_importances(encoder, pixels, "0.4", bank.directions, 2, samples=128, batch=200)
    np.testing.assert_allclose(estimated, exact, atol=0.06)
    smaller = compute_importances(encoder, pixels, "0.4", bank.directions, 2, samples=128, batch=50)
    np.testing.assert_allclose(smaller, estimated, atol=1e-4)


def test_a_bank_comes_back_and_its_directions_are_units(encoder, folder, tmp_path) -> None:
    bank = find_concepts(encoder, "class:cup", folder, n_concepts=2, layer="0.4", patch_size=16, n_samples=4)
    bank.save(tmp_path / "bank", [{"picture": "a.png"}, {"picture": "b.png"}])
    again = ConceptBank.load(tmp_path / "bank")
    for name in ("unit", "layer", "error", "images", "model", "settings", "seed", "notes", "skipped"):
        assert getattr(again, name) == getattr(bank, name), name
    np.testing.assert_array_equal(again.directions, bank.directions)
    np.testing.assert_array_equal(again.importances, bank.importances)
    for ours, theirs in zip(bank.crops, again.crops, strict=True):
        assert [crop.box for crop in ours] == [crop.box for crop in theirs]
        assert all(Path(a.path).samefile(b.path) for a, b in zip(ours, theirs, strict=True))
    unit = parse_unit(f"0.4@{tmp_path / 'bank' / 'concept-2.npy'}", encoder)
    np.testing.assert_allclose(unit.direction, bank.as_unit(1).direction)
    again.check(encoder)
    with pytest.raises(UsageError, match="made with another model"):
        again.check(make_encoder(1))
    (tmp_path / "bank" / "concept-1.npy").unlink()
    with pytest.raises(MissingError, match=r"concept-1\.npy, which is not there"):
        ConceptBank.load(tmp_path / "bank")
    document = json.loads((tmp_path / "bank" / "result.json").read_text())
    assert [entry["picture"] for entry in document["results"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (["0.4:1"], {}, UsageError, "concepts are those of a class, such as class:0, not of 0.4:1"),
        (["class:cat"], {}, MissingError, "no image of the references is labelled 'cat'"),
        (["class:cup"], {"layer": "0.3"}, UsageError, r"layer '0\.3' gives negative activations .*ends in a ReLU"),
        (["class:cup"], {"n_concepts": 99}, EncoscopeError, "99 concepts take at least 99 patches, and there are 24"),
        (["class:cup"], {"n_concepts": 30}, EncoscopeError, "concepts are in these patches|concepts take"),
        (["class:cup"], {"n_samples": 20}, UsageError, "n_samples is a power of two"),
        (["class:cup"], {"n_images": 0}, UsageError, "n_images is a number from 1 on"),
        (["class:cup"], {"patch_size": 40}, UsageError, "larger than the network's input of 32"),
        (["class:dog"], {}, UsageError, "no class is called 'dog'"),
    ],
)
def test_wrong_questions(encoder, folder, arguments, options, error, message) -> None:
    with pytest.raises(error, match=message):
        find_concepts(encoder, *arguments, folder, **({"layer": "0.4", "patch_size": 16} | options))


def test_images_without_labels_all_count_and_bad_ones_are_listed(encoder, folder, tmp_path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"?")
    files = [*sorted((folder / "Cup").iterdir()), broken]
    bank = find_concepts(encoder, "class:1", files, n_concepts=2, layer="0.4", patch_size=16)
    assert bank.notes == ("the references have no labels: all 7 count as class:1",)
    assert [item.path for item in bank.skipped] == [str(broken)]
    assert len(bank.images) == 6
    few = find_concepts(encoder, "class:1", files[:6], n_concepts=2, layer="0.4", patch_size=16, n_images=3)
    assert len(few.images) == 3


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 4)
        self.turn = nn.Identity()

    def forward(self, x):
        x = self.turn(self.first(x).permute(0, 2, 3, 1))
        return self.head(torch.tanh(self.mix(x)).mean((1, 2)))


@pytest.mark.parametrize("which", ["channels first", "channels last", "tokens"])
def test_the_rest_of_a_network_from_other_maps(encoder, which) -> None:
    torch.manual_seed(0)
    if which == "channels first":
        network, layer = encoder, "0.2"
    elif which == "channels last":
        network, layer = Encoder(ChannelsLast(), size=32), "turn"
    else:
        network, layer = encoscope.load("timm:test_vit@untrained"), "blocks.1"
    pixels = torch.randn(2, 3, *network.preprocess.size, generator=torch.Generator().manual_seed(0))
    maps = network.activations(pixels, layer)[layer].maps
    own = network.logits(pixels)
    np.testing.assert_allclose(substitute_maps(network, pixels, layer, maps), own, atol=1e-5)
    swapped = substitute_maps(network, pixels, layer, maps.flip(0))
    if which != "tokens":  # nothing else goes on from the pixels
        np.testing.assert_allclose(swapped, own.flip(0), atol=1e-5)
    else:  # the class token is still the image's own
        assert not torch.allclose(swapped, own.flip(0), atol=1e-3)
        assert not torch.allclose(swapped, own, atol=1e-3)
    with pytest.raises(UsageError, match="cannot replace those of layer"):
        substitute_maps(network, pixels, layer, maps[:, :1])
    assert not any(module._forward_hooks for module in network.module.modules())
