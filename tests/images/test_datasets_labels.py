"""Readers of sets with a label a photo: folders and STL-10."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.images import collect_files, is_dataset, open_dataset


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)


def test_folders_are_labels(tmp_path):
    for name in ("no_finding/2.png", "no_finding/1.png", "Pneumonia/deep/er/3.png", "no_finding/.hidden.png"):
        save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_finding" / "notes.txt").write_text("")
    found = open_dataset(tmp_path)
    assert found.classes == ("Pneumonia", "no_finding")
    assert [(path.name, found.classes[label]) for path, label in zip(found.paths, found.labels, strict=True)] == [
        ("3.png", "Pneumonia"),
        ("1.png", "no_finding"),
        ("2.png", "no_finding"),
    ]
    assert open_dataset(str(tmp_path)).paths == tuple(collect_files(tmp_path)) and not is_dataset(tmp_path)


def test_a_folder_without_labels(tmp_path):
    save(tmp_path / "1.png")
    assert (open_dataset(tmp_path).labels, open_dataset(tmp_path).classes) == ((), ())
    save(tmp_path / "other" / "2.png")
    found = open_dataset(tmp_path)
    assert len(found) == 2 and found.labels == ()
    with pytest.raises(MissingError, match="no such folder"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingError, match="no images below"):
        open_dataset(tmp_path / "bare")


def test_chest_xrays_are_such_a_folder(data_root):
    found = open_dataset(data_root / "chestxray")
    assert found.classes == ("no_finding", "pneumonia")
    assert np.bincount(found.labels).tolist() == [500, 500]


@pytest.fixture
def stl(tmp_path, monkeypatch):
    """Three random images in STL-10's binary form."""
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(256, size=(3, 96, 96, 3), dtype=np.uint8)
    home = tmp_path / "stl10_binary"
    home.mkdir()
    for split in ("train", "unlabeled"):
        pixels.transpose(0, 3, 2, 1).tofile(home / f"{split}_X.bin")
    np.array([10, 1, 3], dtype=np.uint8).tofile(home / "train_y.bin")
    return tmp_path, pixels


def test_stl10_is_unpacked_once(stl):
    root, pixels = stl
    found = open_dataset(f"stl10:{root}")
    assert [found.classes[label] for label in found.labels] == ["truck", "airplane", "car"]
    for path, expected in zip(found.paths, pixels, strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), expected)
    stamp = found.paths[0].stat().st_mtime_ns
    assert open_dataset(f"stl10:{root / 'stl10_binary'}#train") == found
    assert found.paths[0].stat().st_mtime_ns == stamp
    assert [path.name for path in found.paths[0].parent.parent.iterdir()] == [found.paths[0].parent.name]
    unlabelled = open_dataset(f"stl10:{root}#unlabeled")
    assert len(unlabelled) == 3 and unlabelled.labels == ()


def test_stl10_refusals(stl, tmp_path):
    root, _ = stl
    with pytest.raises(UsageError, match=r"no split 'training'.*nearest: train"):
        open_dataset(f"stl10:{root}#training")
    with pytest.raises(MissingError, match=r"looked for test_X.bin .*stl10_binary.tar.gz"):
        open_dataset(f"stl10:{root}#test")
    labels = root / "stl10_binary" / "train_y.bin"
    labels.write_bytes(b"\x01\x02")
    with pytest.raises(ImageError, match="2 labels for 3 images"):
        open_dataset(f"stl10:{root}")
    labels.unlink()
    with pytest.raises(MissingError, match="labels of STL-10"):
        open_dataset(f"stl10:{root}")
    images = root / "stl10_binary" / "train_X.bin"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(ImageError, match="is incomplete"):
        open_dataset(f"stl10:{root}")
    assert not (tmp_path / "cache").exists()
