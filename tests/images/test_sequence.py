"""A sequence of images gives the same images whether they stay in memory or are read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope.errors import EncoscopeError
from encoscope.images import read_image, read_images
from encoscope.images.sequence import ImageSequence


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (4 + number, 6, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("held", [0, 200, 10**6])
def test_images_are_the_same_however_many_are_held(files: list[Path], held: int) -> None:
    array = np.full((3, 3, 3), 7, np.uint8)
    images = ImageSequence(read_images([*files, array]), held=held)
    expected = [read_image(file).pixels for number, file in enumerate(files) if number != 2] + [array]
    assert len(images) == 5 and [item.path for item in images.skipped] == [str(files[2])]
    for _ in range(2):
        for image, pixels, identity in zip(images, expected, images.ids, strict=True):
            np.testing.assert_array_equal(image.pixels, pixels)
            assert image.id == identity
    some = images.select([4, 1])
    assert some.paths == [None, str(files[1])]
    np.testing.assert_array_equal(some[0].pixels, array)
    np.testing.assert_array_equal(some[-1].pixels, expected[1])
    assert [image.height for image in images[1:3]] == [5, 7]
    with pytest.raises(IndexError):
        images[5]


def test_a_file_that_changes_meanwhile_is_refused(files: list[Path]) -> None:
    images = ImageSequence(read_images(files[:2]), held=0)
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(EncoscopeError, match=r"1\.png changed while the images were being read"):
        images[1]
