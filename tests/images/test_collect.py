"""Files and folders to paths, and streams that go on past what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoscope.errors import MissingError
from encoscope.images import LoadedImage, SkippedImage, collect_files, list_images, read_image, read_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(["b.png", "a.JPG", "sub/c.tiff", "sub/deep/a.png", ".hidden.png", ".cache/x.png"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 3), (number * 20, 0, 0)).save(path, "PNG")
    (root / "notes.txt").write_text("not listed")
    (root / "sub" / "broken.jpg").write_text("not an image")
    return root


def test_a_folder_is_walked_sorted_and_without_hidden_files(folder: Path) -> None:
    found = [path.relative_to(folder).as_posix() for path in collect_files(folder)]
    assert found == ["a.JPG", "b.png", "sub/broken.jpg", "sub/c.tiff", "sub/deep/a.png"]


def test_arrays_are_the_images_of_a_folder_without_others(folder: Path, tmp_path: Path, caplog) -> None:
    for name in ("labels.npy", "sub/features.npz"):
        (folder / name).touch()
    assert not any(path.suffix.startswith(".np") for path in collect_files(folder))
    assert "2 .npy and .npz files are not read beside the images" in caplog.text
    arrays = tmp_path / "arrays" / "0"
    arrays.mkdir(parents=True)
    np.save(arrays / "b.npy", np.zeros((4, 5, 3), np.uint8))
    np.savez(arrays / "a.npz", np.ones((4, 5), np.uint8))
    assert [path.name for path in collect_files(arrays)] == ["a.npz", "b.npy"]
    assert [image.pixels.max() for image in read_images(arrays) if isinstance(image, LoadedImage)] == [1, 0]
    assert list_images(arrays.parent).classes == ("0",)


def test_the_given_order_is_kept_and_nothing_comes_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = collect_files(["b.png", "notes.txt", str(folder / "b.png"), folder / "sub", "sub/c.tiff"])
    names = [os.path.relpath(path, folder) for path in found]
    assert names == ["b.png", "notes.txt", "sub/broken.jpg", "sub/c.tiff", "sub/deep/a.png"]


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(MissingError, match=r"no such file or folder: .*nowhere"):
        collect_files([folder, folder / "nowhere"])
    (folder / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no images below .*empty .*\.png"):
        collect_files(folder / "empty")


def test_a_stream_goes_on_past_what_it_cannot_read(folder: Path) -> None:
    stream = list(read_images([folder, folder / "nowhere.png"]))
    assert [type(item) for item in stream] == [
        LoadedImage,
        LoadedImage,
        SkippedImage,
        LoadedImage,
        LoadedImage,
        SkippedImage,
    ]
    broken, missing = stream[2], stream[5]
    assert isinstance(broken, SkippedImage) and isinstance(missing, SkippedImage)
    assert broken.path == str(folder / "sub" / "broken.jpg")
    assert "not an image in a known format" in broken.reason
    assert missing == SkippedImage(str(folder / "nowhere.png"), f"no such file or folder: {folder / 'nowhere.png'}")


def test_a_stream_is_lazy(folder: Path) -> None:
    taken = []

    def paths():
        for path in collect_files(folder):
            taken.append(path)
            yield path

    stream = read_images(paths())
    next(stream)
    assert len(taken) == 1


class Labelled:
    """A map-style dataset, as torch's."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], index


def test_images_in_memory_stream_from_anything() -> None:
    images = [np.full((5, 6, 3), value, dtype=np.uint8) for value in (0, 100, 200)]
    expected = [read_image(image).id for image in images]
    stacked = np.stack(images)
    sources = {
        "list": images,
        "generator": (image for image in images),
        "batch": stacked,
        "tensor": torch.from_numpy(stacked.transpose(0, 3, 1, 2).copy()),
        "pil": [Image.fromarray(image) for image in images],
        "photos": [read_image(image) for image in images],
        "labelled": [(image, "label") for image in images],
        "dataset": Labelled(images),
    }
    for name, source in sources.items():
        assert [photo.id for photo in read_images(source) if isinstance(photo, LoadedImage)] == expected, name
    assert [photo.id for photo in read_images(images[1]) if isinstance(photo, LoadedImage)] == expected[1:2]
    assert list(read_images([np.zeros((2, 2)) + 7])) == [
        SkippedImage(
            "image 0",
            "a floating-point image must lie in [0, 1], this one spans [7, 7]: give a window, such as window=(7, 7)",
        )
    ]
