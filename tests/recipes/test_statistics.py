"""The recipe of shipped statistics: which classes, which photos, and what a file of one's own is good for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import encoscope
from encoscope.cli import app as cli
from encoscope.encoder import Encoder, load
from encoscope.errors import MissingError, UsageError
from encoscope.images import LabelledImages, open_dataset
from encoscope.images.caltech101 import list_classes, read_split
from encoscope.images.imagenet import name_imagenet_classes
from encoscope.recipes import statistics
from encoscope.recipes.shared_classes import EQUAL, NEAR, read_shared_classes
from encoscope.vital.references.compressed import CompressedPrototypes, load_compressed, save_compressed
from encoscope.vital.references.shipped import statistics_path
from encoscope.zoo.registry import DEFAULT
from support.tiny_classifier import MODEL, settle


def test_the_table_is_of_classes_that_both_have() -> None:
    numbers = name_imagenet_classes()
    assert len(EQUAL) >= 30 and len(set(EQUAL.values())) == len(EQUAL)
    assert set(EQUAL.values()) <= set(numbers)
    assert set(EQUAL) | set(NEAR) <= set(list_classes()) and not set(EQUAL) & set(NEAR)
    for folder, number in (("grand_piano", "n03452741"), ("rooster", "n01514668"), ("panda", "n02510455")):
        assert EQUAL[folder] == number
    assert {"hedgehog", "cup", "Leopards", "lobster"} <= set(NEAR)  # names that mislead


@pytest.mark.parametrize("folder", EQUAL)
def test_a_folder_has_a_word_of_its_class(folder: str) -> None:
    from timm.data.imagenet_info import ImageNetInfo

    words = str(ImageNetInfo("imagenet-22k").label_name_to_description(EQUAL[folder])).lower()
    plain = {"rooster": "cock", "cougar_body": "cougar"}.get(folder, folder.replace("_", " "))
    assert plain.rstrip("s") in words


def test_the_photos_are_those_of_the_folders(data_root: Path) -> None:
    images = read_shared_classes(data_root / "caltech101")
    listed = [entry for entry in read_split("train") if entry.split("/")[0] in EQUAL]
    assert [str(path.relative_to(path.parents[1])) for path in images.paths] == listed
    for path, label in zip(images.paths, images.labels, strict=True):
        assert images.classes[label] == EQUAL[path.parent.name]


def test_the_default_network_ships_with_statistics_that_say_where_they_are_from() -> None:
    encoder = load(DEFAULT, device="cpu")
    path = statistics_path(DEFAULT.removeprefix("zoo:"))
    assert path.stat().st_size < 10e6
    shipped = load_compressed(path)
    numbers = list(name_imagenet_classes())
    folders = {f"class:{numbers.index(number)}": folder for folder, number in EQUAL.items()}
    assert set(shipped.names) == set(folders)
    train = [entry.split("/")[0] for entry in read_split("train")]
    for name, count, ids, notes in zip(shipped.names, shipped.counts, shipped.references, shipped.notes, strict=True):
        folder = folders[name]
        assert count == len(set(ids)) <= min(statistics.NUMBER, train.count(folder))
        assert notes[0] == f"its references are {count} photos of Caltech-101's training list, folder {folder}"
    prototype = encoscope.Vital(encoder, "class:grand piano", progress=False).fit().targets_[0].prototype
    assert prototype.count == 50 and "folder grand_piano" in prototype.notes[0]
    with pytest.raises(UsageError, match=r"ships with are of 3\d classes \(.*grand piano.*\), not of class:tench"):
        encoscope.Vital(encoder, "class:tench").fit()


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """A small network of three classes, beside photos of two of them and of something else."""
    settle(tmp_path, monkeypatch, ("ant", "crab", "okapi"), ("ant", "okapi", "unknown"))
    return load(MODEL)


def test_the_classes_that_a_dataset_has_are_computed_once(encoder: Encoder) -> None:
    images = open_dataset("photos")
    sources = {name: f"a test, {name}" for name in images.classes}

    def compute(images: LabelledImages = images) -> CompressedPrototypes:
        return statistics.compute_statistics(encoder, images, number=2, sources=sources, progress=False)

    first = compute()
    assert (first.names, first.counts) == (("class:0", "class:2"), (2, 2))
    assert [notes[0] for notes in first.notes] == [
        f"its references are 2 photos of a test, {name}" for name in ("ant", "okapi")
    ]
    seen: list[int] = []
    encoder.module.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    again = compute()
    assert sum(seen) <= 4  # the seeded trial input, but no photo
    assert all(torch.equal(first.amounts[layer], again.amounts[layer]) for layer in first.curves)
    with pytest.raises(UsageError, match="no label of the images is a class of"):
        compute(replace(images, classes=("bee", "dolphin", "emu")))


def test_a_file_of_statistics_takes_the_place_of_photos(encoder: Encoder, tmp_path: Path) -> None:
    images = open_dataset("photos")
    whole = encoscope.Vital(encoder, "class:ant", progress=False).fit(images).targets_[0].prototype
    path = save_compressed(statistics.compute_statistics(encoder, images, progress=False), tmp_path / "own.safetensors")
    for source in (path, str(path)):
        read = encoscope.Vital(encoder, "class:ant", progress=False).fit(source).targets_[0].prototype
        for layer, values in whole.values.items():
            torch.testing.assert_close(read.values[layer], values, atol=0.02, rtol=0.02)
        assert read.references == whole.references
    with pytest.raises(UsageError, match=r"own\.safetensors are of 2 classes \(ant, okapi\), not of class:crab"):
        encoscope.Vital(encoder, "class:crab").fit(path)
    with pytest.raises(UsageError, match=r"own\.safetensors are of classes: for features:0"):
        encoscope.Vital(encoder, "features:0").fit(path)
    with pytest.raises(UsageError, match="are of other weights"):
        encoscope.Vital(load(MODEL, mean=[0.4], std=[0.5]), "class:ant").fit(path)
    with pytest.raises(MissingError, match=r"absent\.safetensors"):
        encoscope.Vital(encoder, "class:ant").fit(tmp_path / "absent.safetensors")
    wrongs: list[dict[str, Any]] = [{"control": "untrained"}, {"n_facets": 2}, {"method": "maco"}]
    for wrong in wrongs:
        with pytest.raises(UsageError, match="real images"):
            encoscope.visualize(encoder, "class:ant", path, **wrong)


def test_another_dataset_is_named_in_the_notes(encoder: Encoder, tmp_path: Path) -> None:
    def find(dataset: str) -> Mapping[str, str]:
        return statistics._find_images(encoder, argparse.Namespace(dataset=dataset))[1]

    assert find(str(tmp_path / "photos"))["ant"] == "photos, class ant"  # no path of this machine
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "photos" / "ant" / "0.png").rename(tmp_path / "train" / "n01440764" / "0.png")
    assert find(f"imagenet:{tmp_path}#train") == {"tench": "imagenet#train, class tench"}


def test_another_dataset_needs_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["statistics", DEFAULT, "--dataset", "imagenet:ROOT"])
    with pytest.raises(UsageError, match=r"--dataset needs --output"):
        statistics.main()
    monkeypatch.delenv("ENCOSCOPE_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["statistics", DEFAULT])
    with pytest.raises(MissingError, match="where is Caltech-101"):
        statistics.main()


def test_a_command_takes_the_default_and_its_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["visualize", "class:grand piano", "--steps", "1", "--size", "32", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert f"no model was named: {DEFAULT} is taken" in printed.err
    assert "folder grand_piano" in printed.err
    assert list(tmp_path.glob("*grand*piano*.png"))
