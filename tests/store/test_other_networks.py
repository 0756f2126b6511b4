"""Two networks of the same weights and digest, of which one gives other outputs: none gets what is kept of the other.

The difference is a hook, which no digest knows: outputs for trial inputs alone show it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import encoscope
from encoscope import results
from encoscope.atlas import build_atlas, open_atlas
from encoscope.atlas.serving.live import UploadAnalyzer
from encoscope.craft import find_concepts
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.falcon.captions.build import embed_captions
from encoscope.user_study.images import find_saved_images
from support import described_network as world

RUN: dict[str, Any] = {"progress": False, "random_state": 0}
SYNTHESIS = RUN | {"steps": 2, "size": (32, 32), "relevance": "gradient-input", "layers": ["1"]}


def network(*, other: bool) -> Encoder:
    encoder = world.encoder()
    if other:
        encoder.module.get_submodule("see").register_forward_hook(lambda _module, _args, output: output.flip(1) * 1.2)
    return encoder


def plain_network(*, other: bool) -> Encoder:
    """One whose layers are never negative, as concepts need them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 8, 2, 2), nn.ReLU())
        body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)])
    if other:
        body[1].register_forward_hook(lambda _module, _args, output: output.flip(1) * 1.2)
    return Encoder(body, size=32, classes=world.NAMES, source="python:plain")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_images(tmp_path_factory.mktemp("images") / "colors", 36)


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return embed_captions(world.CAPTIONS, world.Reader(), tmp_path_factory.mktemp("captions") / "store")


def evaluate(encoder: Encoder, images: Path, cache: Path) -> Any:
    sizes: dict[str, Any] = {"n_clusters": 2, "runs": 2, "size": 32, "limit": 2}
    return encoscope.evaluation.stability(encoder, str(images), **sizes, cache_dir=cache, **RUN).to_dict()["results"]


PLAIN = ("visualize a class", "visualize a channel", "circuit")
VALUES: dict[str, Callable[[Encoder, Path, Any, Path], Any]] = {
    "probe": lambda encoder, images, _captions, cache: encoscope.probe(
        encoder, images, cache_dir=cache, progress=False
    ).values.tolist(),
    "probe of a layer": lambda encoder, images, _captions, cache: encoscope.probe(
        encoder, images, "see", cache_dir=cache, progress=False
    ).values.tolist(),
    "describe": lambda encoder, images, captions, cache: encoscope.describe(
        encoder, "features:0", probe=images, captions=captions, vlm=world.Reader(), cache_dir=cache, **RUN
    ).to_dict()["descriptions"],
    "visualize a class": lambda encoder, images, _captions, cache: encoscope.visualize(
        encoder, "class:1", images, cache_dir=cache, **SYNTHESIS
    ).image.tolist(),
    "visualize a channel": lambda encoder, images, _captions, cache: encoscope.visualize(
        encoder, "3:2", images, patch_size=16, cache_dir=cache, **SYNTHESIS
    ).image.tolist(),
    "circuit": lambda encoder, images, _captions, cache: encoscope.circuit(
        encoder, "class:1", images, n_channels=1, ranking="gradient-input", layer="3", cache_dir=cache, **SYNTHESIS
    ).to_dict()["visualizations"],
    "evaluate": lambda encoder, images, _captions, cache: evaluate(encoder, images, cache),
}


@pytest.mark.parametrize("method", VALUES)
def test_what_is_kept_of_one_is_not_given_to_the_other(
    method: str, images: Path, captions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "usual"))
    build = plain_network if method in PLAIN else network
    plain, other = build(other=False), build(other=True)
    assert plain.digest == other.digest

    def compute(encoder: Encoder, cache: str) -> str:
        return results.dumps({"values": VALUES[method](encoder, images, captions, tmp_path / cache)})

    first = compute(plain, "shared")
    second = compute(other, "shared")
    assert "of a network of the same weights that gives other outputs" in caplog.text
    assert second == compute(other, "own")
    assert method == "evaluate" or second != first  # what a segmentation has in common with another may be the same
    assert compute(plain, "shared") == first


def resume_atlas(encoder: Encoder, images: Path, folder: Path) -> object:
    options: dict[str, Any] = {"features": 1, "classes": 1, "describe": False, "visualize": "none"}
    return build_atlas(encoder, str(images), folder, **options, progress=False)


def make(kind: str, encoder: Encoder, images: Path, folder: Path) -> Callable[[Encoder], object]:
    """Make a result, and give what uses it with a network."""
    if kind == "concepts":
        found = find_concepts(encoder, "class:1", images, n_concepts=2, n_samples=4, patch_size=16, layer="1", **RUN)
        return encoscope.ConceptBank.load(found.save(folder)).check
    if kind == "visualizations":
        encoscope.visualize(encoder, ["class:1"], images, cache=False, **SYNTHESIS)[0].save(folder / "vital")
        return lambda network: find_saved_images(network, folder, ["vital"])
    few = world.write_images(folder.parent / "few", 6)
    resume_atlas(encoder, few, folder)

    def use_atlas(network: Encoder) -> None:
        UploadAnalyzer(open_atlas(folder), network)
        resume_atlas(network, few, folder)

    return use_atlas


@pytest.mark.parametrize("kind", ["concepts", "visualizations", "atlas"])
def test_results_are_not_used_again_with_the_other(
    kind: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "usual"))
    build = network if kind == "atlas" else plain_network
    use = make(kind, build(other=False), images, tmp_path / "made")
    use(build(other=False))
    other = build(other=True)
    with pytest.raises(UsageError, match=r"another model|gives other outputs"):
        use(other)
    if kind == "atlas":
        with pytest.raises(UsageError, match=r"gives other outputs: give another folder, or start over"):
            resume_atlas(other, tmp_path / "few", tmp_path / "made")
