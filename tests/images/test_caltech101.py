from __future__ import annotations

import pytest
from PIL import Image

from encoscope.errors import MissingError, UsageError
from encoscope.images.caltech101 import BACKGROUND, list_classes, read_caltech101, read_split


def test_split_lists_part_the_dataset():
    train, test = read_split("train"), read_split("test")
    assert (len(train), len(test)) == (6095, 3049)
    assert not set(train) & set(test)
    assert {entry.split("/")[0] for entry in train} == {entry.split("/")[0] for entry in test}


def test_classes_are_bytewise_sorted_without_background():
    names = list_classes()
    assert len(names) == 101 and BACKGROUND not in names
    # upper case comes first bytewise, which a locale's order would not do
    assert names[:6] == ("Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes")


def test_unknown_split_names_the_known_ones():
    with pytest.raises(UsageError, match=r"'tests'.*train, test"):
        read_split("tests")


def test_missing_folder_and_missing_photo_are_told_apart(tmp_path):
    with pytest.raises(MissingError, match="no folder 101_ObjectCategories"):
        read_caltech101(tmp_path)
    first = tmp_path / "101_ObjectCategories" / read_split("test")[0]
    first.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(first)
    with pytest.raises(MissingError, match=r"incomplete: .*accordion/image_0004"):
        read_caltech101(tmp_path, "test")


def test_real_photos_carry_their_folders_label(data_root):
    test = read_caltech101(data_root / "caltech101", "test")
    assert len(test) == 2893 == len(test.labels)
    assert all(path.parent.name == test.classes[label] for path, label in zip(test.paths, test.labels, strict=True))
    inner = read_caltech101(data_root / "caltech101" / "101_ObjectCategories", "test")
    assert inner == test
