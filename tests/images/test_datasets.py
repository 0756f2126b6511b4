"""Dataset strings."""

from __future__ import annotations

import pytest

import encoscope
from encoscope.cli.app import run
from encoscope.errors import MissingError, UsageError
from encoscope.images import collect_files, is_dataset, open_dataset
from encoscope.images.caltech101 import list_classes, read_split


@pytest.fixture
def root(tmp_path, image_paths, monkeypatch):
    """A Caltech-101 of two photos."""
    photos = ("accordion/image_0002.jpg", "wrench/image_0001.jpg")
    for photo in photos:
        target = tmp_path / "data" / "101_ObjectCategories" / photo
        target.parent.mkdir(parents=True)
        target.write_bytes(image_paths["chelsea"].read_bytes())
    monkeypatch.setattr("encoscope.images.caltech101.read_split", lambda split: photos)
    monkeypatch.chdir(tmp_path)
    list_classes.cache_clear()
    yield tmp_path / "data"
    list_classes.cache_clear()


def test_a_dataset_is_named_by_a_string(root):
    found = open_dataset(f"caltech101:{root}#train")
    assert [found.classes[label] for label in found.labels] == ["accordion", "wrench"]
    assert collect_files(f"caltech101:{root}") == list(found.paths)
    encoder = encoscope.load("timm:resnet10t@untrained")
    assert len(encoscope.segment(encoder, f"caltech101:{root}", size=32, n_clusters=2)) == 2


def test_results_of_a_dataset_keep_its_folders(root):
    arguments = [f"caltech101:{root}#train", "--model", "timm:resnet10t@untrained", "--size", "32", "--out", "found"]
    assert run(["segment", *arguments]) == 0
    assert (root.parent / "found" / "accordion" / "image_0002.labels.png").is_file()
    assert (root.parent / "found" / "wrench" / "image_0001.labels.png").is_file()


def test_refusals(tmp_path):
    assert not is_dataset("timm:resnet50")
    assert not is_dataset(tmp_path)
    with pytest.raises(UsageError, match="nearest: caltech101"):
        open_dataset("caltech:data")
    with pytest.raises(UsageError, match="names no folder"):
        open_dataset("caltech101:")
    with pytest.raises(UsageError, match="no split"):
        open_dataset(f"caltech101:{tmp_path}#validation")
    with pytest.raises(MissingError, match="101_ObjectCategories"):
        open_dataset(f"caltech101:{tmp_path}")


def test_the_whole_lists_are_there(data_root):
    found = open_dataset(f"caltech101:{data_root / 'caltech101'}#test")
    assert len(found) == len([photo for photo in read_split("test") if not photo.startswith("BACKGROUND")])
    assert len(found.classes) == 101
