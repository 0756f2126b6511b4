from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images.caltech101 import list_classes, read_caltech101
from encoscope.zoo import registry


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A registry whose folder holds one small network under a real name."""
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    file = tmp_path / "resnet-caltech101.safetensors"
    save_file({"weight": torch.ones(2, dtype=torch.float16), "count": torch.tensor([3])}, file)
    record = {
        "format": registry.FORMAT,
        "name": "resnet-caltech101",
        "library": "timm",
        "architecture": "test_resnet",
        "kwargs": {"num_classes": 2},
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "preprocess": {"size": [8, 8], "mean": [0.5], "std": [0.5], "interpolation": "bicubic", "crop": 1.0},
        "classes": ["ant", "crab"],
        "accuracy": {"top1": 0.5},
        "parameters": 2,
        "about": "A test.",
    }
    (tmp_path / "resnet-caltech101.json").write_text(json.dumps(record))
    return tmp_path


def test_an_entry_by_name_with_or_without_prefix(shelf):
    entry = registry.find_entry("zoo:resnet-caltech101")
    assert entry == registry.find_entry("resnet-caltech101")
    assert entry.preprocess["size"] == (8, 8) and entry.classes == ("ant", "crab")
    state = registry.load_weights(entry)
    assert state["weight"].dtype == torch.float32 and state["count"].item() == 3
    assert registry.list_names() == ("resnet-caltech101",)


def test_a_damaged_file_is_refused_before_it_is_used(shelf):
    entry = registry.find_entry("resnet-caltech101")
    assert entry.file is not None
    content = bytearray(entry.file.read_bytes())
    content[-1] ^= 1  # a single bit of a weight: still a valid file
    entry.file.write_bytes(bytes(content))
    with pytest.raises(
        EncoscopeError, match=r"resnet-caltech101\.safetensors are damaged: sha256 .*install encoscope again"
    ):
        registry.load_weights(entry)
    entry.file.unlink()
    with pytest.raises(MissingError, match="are not there"):
        registry.verify_weights(entry)


@pytest.mark.parametrize("content", ["{", "{}", '{"format": "encoscope.zoo/0"}', '{"format": "encoscope.zoo/1"}', "[]"])
def test_a_damaged_record_is_one_clear_line(shelf, content):
    (shelf / "resnet-caltech101.json").write_text(content)
    with pytest.raises(EncoscopeError, match=r"record .* is damaged"):
        registry.find_entry("resnet-caltech101")


def test_unknown_and_absent_names_are_told_apart(shelf):
    with pytest.raises(UsageError, match=r"has no 'resnet-caltec'.*nearest: resnet-caltech101"):
        registry.find_entry("zoo:resnet-caltec")
    with pytest.raises(MissingError, match=r"python -m encoscope\.recipes\.vit_caltech101"):
        registry.find_entry("zoo:vit-caltech101")


def test_the_list_on_the_command_line(shelf, capsys):
    from encoscope.cli.app import run

    assert run(["zoo", "list"]) == 0
    out, err = capsys.readouterr()
    assert "zoo:resnet-caltech101" in out and "0.500 top-1" in out
    assert "vit-caltech101, clip-caltech101" in err and "not in this installation: tf_efficientnet_lite0" in err
    assert run(["zoo", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["name"] == "zoo:resnet-caltech101" and entry["accuracy"] == {"top1": 0.5} and entry["bytes"] > 0


def shipped(name: str) -> registry.ZooEntry:
    if name not in registry.list_names():
        pytest.skip(f"zoo:{name} is not in this checkout yet")
    return registry.find_entry(name)


LIMITS = {"resnet-caltech101": 12e6, "vit-caltech101": 12e6, "clip-caltech101": 15e6}


def test_the_wheel_stays_small():
    """A wheel's files are those of the package; compressing float16 weights gains little."""
    package = registry.FOLDER.parents[1]
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert 30e6 < sum(path.stat().st_size for path in files) <= 60e6


@pytest.mark.parametrize("name", LIMITS)
def test_what_ships_is_whole_and_small(name):
    entry = shipped(name)
    assert registry.verify_weights(entry).stat().st_size <= LIMITS[name]
    assert entry.classes == list_classes()
    cards = registry.FOLDER.parent / "cards"
    card = (cards / f"{name}.md").read_text()
    assert entry.sha256 in card and all(f"| {folder} |" in card for folder in entry.classes)
    assert len((cards / f"{name}.tsv").read_text().splitlines()) > 10
    assert sum(value.numel() for value in registry.load_weights(entry).values()) >= entry.parameters


@pytest.mark.parametrize("name,least", [("resnet-caltech101", 0.78), ("vit-caltech101", 0.5)])
def test_classifiers_are_as_accurate_as_their_cards_say(name, least, data_root):
    from encoscope.encoder import load
    from encoscope.recipes.export import sample_indices

    entry = shipped(name)
    assert entry.accuracy["top1"] >= least
    test = read_caltech101(data_root / "caltech101", "test")
    encoder, right = load(f"zoo:{name}", device="cpu"), 0
    places = sample_indices(len(test))
    for start in range(0, len(places), 50):
        chosen = places[start : start + 50]
        logits = encoder.logits([test.paths[i] for i in chosen])
        right += int((logits.argmax(1) == torch.tensor([test.labels[i] for i in chosen])).sum())
    assert right / len(places) == pytest.approx(entry.accuracy["top1_sample"], abs=0.005)


def test_the_image_text_model_is_as_accurate_as_its_card_says(data_root):
    import numpy as np

    from encoscope import vlm
    from encoscope.recipes.contrast import compute_name_accuracies, embed_names
    from encoscope.recipes.export import sample_indices
    from encoscope.zoo.attributes import load_class_words

    entry = shipped("clip-caltech101")
    assert entry.accuracy["known"] >= 0.6
    model = vlm.load("zoo:clip-caltech101", device="cpu")
    test = read_caltech101(data_root / "caltech101", "test")
    places = sample_indices(len(test))
    images = model.embed_images([test.paths[i] for i in places]).numpy()
    names = embed_names(model.embed_texts, load_class_words())
    found, _ = compute_name_accuracies(images, np.asarray(test.labels)[places], names, test.classes)
    assert found["known"] == pytest.approx(entry.accuracy["known_sample"], abs=0.005)
