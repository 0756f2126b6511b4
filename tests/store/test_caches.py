"""What methods keep between runs: in the user's own cache folder where one is named, each file with its checksum."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import encoscope
from encoscope.falcon.captions.build import embed_captions
from encoscope.nave import Nave
from encoscope.store import JournaledFolder
from encoscope.units import parse_unit
from encoscope.vital.references.patches import find_patch_references
from support import described_network as world

SMALL: dict[str, Any] = {"steps": 1, "size": (32, 32), "progress": False}


@pytest.fixture(scope="module")
def encoder() -> encoscope.Encoder:
    return encoscope.load("timm:resnet10t@untrained", input_size=64)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return embed_captions(world.CAPTIONS, world.Reader(), tmp_path_factory.mktemp("captions") / "store")


def describe(images: Path, captions: Any, cache_dir: Path) -> object:
    probe = world.write_images(cache_dir.parent / "probe", 40)
    options = {"captions": captions, "vlm": world.Reader(), "cache_dir": cache_dir, "progress": False}
    return encoscope.describe(world.encoder(), "features:1", probe=probe, **options)


def run(method: str, encoder: encoscope.Encoder, images: Path, captions: Any, cache_dir: Path) -> object:
    calls: dict[str, Callable[[], object]] = {
        "probe": lambda: encoscope.probe(encoder, images, cache_dir=cache_dir, progress=False),
        "describe": lambda: describe(images, captions, cache_dir),
        "visualize": lambda: encoscope.visualize(encoder, "class:1", images, cache_dir=cache_dir, **SMALL),
        "patches": lambda: encoscope.visualize(
            encoder, "layer4:3", images, patch_size=32, n_candidates=2, cache_dir=cache_dir, **SMALL
        ),
        "circuit": lambda: encoscope.circuit(encoder, "class:1", images, n_channels=1, cache_dir=cache_dir, **SMALL),
        "evaluate": lambda: encoscope.evaluation.stability(
            encoder, str(images), n_clusters=2, runs=2, size=32, limit=2, cache_dir=cache_dir, progress=False
        ),
        "segment": lambda: Nave(encoder, n_clusters=2, size=48, cache_dir=cache_dir, progress=False).fit([str(images)]),
    }
    return calls[method]()


@pytest.mark.parametrize("method", ["probe", "describe", "visualize", "patches", "circuit", "evaluate", "segment"])
def test_all_is_kept_in_the_users_folder_with_checksums(
    method: str, encoder: Any, images: Path, captions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "usual"))
    run(method, encoder, images, captions, tmp_path / "own")
    assert not (tmp_path / "usual").exists()
    kept = [file for file in (tmp_path / "own").rglob("*") if file.is_file()]
    assert method == "segment" or kept  # joint clustering leaves nothing when it is done
    for journal in [file for file in kept if file.name == "journal.jsonl"]:
        folder = JournaledFolder(journal.parent)
        assert folder.verify() == []
        named = {*folder.journal.checksums, "journal.jsonl", "lock"}
        kept = [file for file in kept if journal.parent not in file.parents or file.name not in named]
    assert kept == []


@pytest.fixture(scope="module")
def kept(encoder: Any, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a visualization leaves in its cache folder."""
    folder = tmp_path_factory.mktemp("kept")
    encoscope.visualize(encoder, "layer4:3", images, patch_size=32, cache_dir=folder, **SMALL)
    return folder


@pytest.mark.parametrize("damage", ["content", "journal", "truncated"])
@pytest.mark.parametrize("kind", ["ids", "patches", "prototypes"])
def test_what_is_damaged_is_computed_again(
    kind: str, damage: str, encoder: Any, images: Path, kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def visualize() -> Any:
        return encoscope.visualize(encoder, "layer4:3", images, patch_size=32, cache_dir=tmp_path, **SMALL)

    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    first = visualize()
    assert caplog.text == ""
    (folder,) = (tmp_path / kind).iterdir()
    (file,) = (file for file in folder.iterdir() if file.name != "journal.jsonl")
    if damage == "content":
        file.write_bytes(file.read_bytes()[::-1])
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        journal = folder / "journal.jsonl"
        journal.write_bytes(journal.read_bytes().replace(b"manifest", b"manifesu", 1))
    caplog.clear()
    second = visualize()
    assert "again" in caplog.text or "starting over" in caplog.text
    np.testing.assert_array_equal(first.image, second.image)
    assert JournaledFolder(folder).verify() == []
    caplog.clear()
    visualize()
    assert caplog.text == ""


def test_patches_are_not_searched_again(
    encoder: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = parse_unit("layer4:3", encoder)
    first = find_patch_references(images, encoder, [unit], count=2, patch_size=32, cache_dir=tmp_path)
    (folder,) = (tmp_path / "patches").iterdir()
    assert {patch["id"] for patch in json.loads((folder / "patches.json").read_text())}
    monkeypatch.setattr("encoscope.vital.references.patches.find_top_patches", None)  # would fail if it were called
    assert find_patch_references(images, encoder, [unit], count=2, patch_size=32, cache_dir=tmp_path) == first
