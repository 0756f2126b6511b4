"""Photos become what timm and torchvision would feed the network, and every pixel knows its mapped back."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoscope._torchvision import ensure_torchvision
from encoscope.errors import ImageError, UsageError
from encoscope.images import Geometry, LoadedImage, Preprocess, make_batch, read_image, resize_image

PLAIN = Preprocess(size=(32, 32), mean=(0.0,), std=(1.0,), interpolation="nearest")


def make_image(height: int, width: int, seed: int = 0) -> LoadedImage:
    return read_image(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("size", "crop"), [((224, 224), 0.875), ((224, 224), 0.9), ((96, 160), 0.95), ((299, 299), 1.0)]
)
def test_the_models_geometry_is_timms_bit_for_bit(
    image_paths: dict[str, Path], size: tuple[int, int], crop: float, interpolation: str
) -> None:
    ensure_torchvision()
    from timm.data.transforms_factory import transforms_imagenet_eval

    preprocess = Preprocess(size=size, crop=crop, interpolation=interpolation)
    timms = transforms_imagenet_eval(
        img_size=size, crop_pct=crop, interpolation=interpolation, mean=preprocess.mean, std=preprocess.std
    )
    for path in (image_paths["chelsea"], image_paths["flower"]):
        batch = make_batch([read_image(path)], preprocess)
        with Image.open(path) as image:
            assert torch.equal(batch.pixels[0], timms(image.convert("RGB")))


def test_whole_keeps_the_aspect_and_pads_with_the_mean() -> None:
    batch = make_batch([make_image(300, 451)], Preprocess(size=(64, 64)), geometry="whole", multiple=(32, 16))
    mapped = batch.geometries[0]
    assert mapped == Geometry((300, 451), (64, 96), (0, 0), (64, 96), (64, 96))
    batch = make_batch([make_image(300, 470)], Preprocess(size=(60, 80)), geometry="whole", multiple=16)
    mapped = batch.geometries[0]
    assert (mapped.resized, mapped.valid, mapped.canvas) == ((60, 94), (60, 94), (64, 96))
    assert batch.pixels.shape == (1, 3, 64, 96)
    assert batch.pixels[:, :, 60:].abs().max() == 0
    assert batch.pixels[:, :, :, 94:].abs().max() == 0
    assert batch.pixels[:, :, :60, :94].abs().mean() > 0.1


def test_native_squashed_and_own_sizes() -> None:
    tall = make_image(50, 20)
    assert make_batch([tall], PLAIN, geometry="whole", size="native", multiple=16).geometries[0].canvas == (64, 32)
    squashed = make_batch([tall], Preprocess(size=(24, 48)), geometry="whole", multiple=32, fixed=True).geometries[0]
    assert squashed == Geometry((50, 20), (24, 48), (0, 0), (24, 48), (24, 48))
    assert make_batch([tall], PLAIN, geometry="whole", size=40).geometries[0].resized == (100, 40)
    assert make_batch([tall], PLAIN, size=16, multiple=14).geometries[0] == Geometry(
        (50, 20), (40, 16), (12, 0), (16, 16), (28, 28)
    )
    assert make_batch([tall], PLAIN, multiple=14).geometries[0].canvas == (32, 32)  # its own size is never padded


def test_unlike_photos_share_a_canvas_and_keep_their_values() -> None:
    wide, tall = make_image(30, 60), make_image(60, 30, seed=1)
    together = make_batch([wide, tall], PLAIN, geometry="whole", multiple=8)
    assert together.pixels.shape == (2, 3, 64, 64)
    assert [mapped.valid for mapped in together.geometries] == [(32, 64), (64, 32)]
    assert [mapped.canvas for mapped in together.geometries] == [(64, 64), (64, 64)]
    for index, alone in enumerate((wide, tall)):
        single = make_batch([alone], PLAIN, geometry="whole", multiple=8)
        rows, columns = single.pixels.shape[2:]
        assert torch.equal(together.pixels[index, :, :rows, :columns], single.pixels[0])
        assert together.pixels[index, :, rows:].abs().sum() + together.pixels[index, :, :, columns:].abs().sum() == 0


def test_values_are_normalised_and_channels_fit() -> None:
    grey = Preprocess(size=(8, 8), mean=(0.5,), std=(0.25,), channels=1)
    half = read_image(np.full((8, 8, 3), 51, dtype=np.uint8))
    assert torch.allclose(make_batch([half], grey).pixels, torch.full((1, 1, 8, 8), (0.2 - 0.5) / 0.25))
    deep = read_image(np.full((9, 12), 13107, dtype=np.uint16), channels=1)
    assert torch.allclose(
        make_batch([deep], Preprocess((8, 8), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))).pixels[0, :, 0, 0],
        torch.tensor([0.2, 0.0, -0.2]),
        atol=1e-6,
    )
    five = read_image(np.random.default_rng(0).random((8, 8, 5), dtype=np.float32), channels=5)
    many = Preprocess((8, 8), (0.0,), (1.0,), channels=5)
    assert torch.equal(make_batch([five], many).pixels[0], torch.from_numpy(five.pixels).permute(2, 0, 1))
    with pytest.raises(ImageError, match="5 channels where 3"):
        make_batch([five], PLAIN)
    with pytest.raises(UsageError, match="mean has 3 values for 5 channels"):
        make_batch([five], Preprocess((8, 8), channels=5))


def test_float_photos_are_resized_like_bytes(image_paths: dict[str, Path]) -> None:
    image = read_image(image_paths["coffee"]).pixels
    small, floats = resize_image(image, (50, 75)), resize_image((image / 255).astype(np.float32), (50, 75))
    assert np.abs(small / 255 - floats).max() < 2 / 255  # bytes are rounded twice, after each axis
    assert floats.min() >= 0 and floats.max() <= 1
    with pytest.raises(UsageError, match=r"bicubik.*nearest: bicubic"):
        resize_image(image, (5, 5), "bicubik")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"geometry": "squash"}, "geometry is 'model' or 'whole'"),
        ({"size": "huge"}, "size is 'model', 'native' or a number"),
        ({"size": 0}, "at least 1, not 0"),
        ({"size": "native"}, "goes with geometry='whole'"),
        ({"size": 64, "fixed": True, "geometry": "whole"}, "takes images of 32 x 32 only"),
        ({"size": "native", "fixed": True, "geometry": "whole"}, "takes images of 32 x 32 only"),
    ],
)
def test_contradicting_settings(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inspect.unwrap(make_batch)([make_image(8, 8)], PLAIN, **settings)  # as without the tests' own type checks


def test_an_empty_batch_and_an_endless_strip() -> None:
    with pytest.raises(UsageError, match="at least one image"):
        make_batch([], PLAIN)
    with pytest.raises(ImageError, match="100000 x 1 would become 3200000 x 32"):
        make_batch([make_image(1, 100_000)], PLAIN, geometry="whole")
    assert make_batch([make_image(1, 1)], PLAIN, geometry="whole").pixels.shape == (1, 3, 32, 32)


def test_a_batch_moves_and_counts() -> None:
    batch = make_batch([make_image(8, 8), make_image(8, 9)], PLAIN)
    assert len(batch.to("cpu")) == 2
    assert batch.to("meta").pixels.device.type == "meta"


sides = st.integers(1, 90)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=sides,
    width=sides,
    geometry=st.sampled_from(["model", "whole"]),
    size=st.sampled_from(["model", "native", 17, 48]),
    multiple=st.sampled_from([1, 14, 32]),
    cell=st.sampled_from([1, 4, 16]),
)
def test_labels_find_the_pixels_they_came_from(
    height: int, width: int, geometry: str, size: int | str, multiple: int, cell: int
) -> None:
    """A pixel of the original takes the cell whose centre, brought back to the original, is at most one cell away."""
    if geometry == "model" and size == "native":
        size = "model"
    shape = Preprocess(size=(32, 48), mean=(0.0,), std=(1.0,))
    mapped = make_batch([make_image(height, width)], shape, geometry=geometry, size=size, multiple=multiple).geometries[
        0
    ]
    grid = (max(1, mapped.canvas[0] // cell), max(1, mapped.canvas[1] // cell))
    rows, columns = mapped.valid_cells(grid)
    for axis, valid in ((0, rows), (1, columns)):
        assert 1 <= valid <= grid[axis]
        # where the centre of each valid cell lies in the original, pixels
        centre = (np.arange(valid) + 0.5) * mapped.canvas[axis] / grid[axis] + mapped.offset[axis]
        centre = centre * mapped.original[axis] / mapped.resized[axis]
        found = mapped.cells_of_pixels(grid)[axis]
        assert found.shape == (mapped.original[axis],)
        assert found.min() >= 0 and found.max() <= valid - 1
        here = np.arange(mapped.original[axis]) + 0.5
        ends = (mapped.offset[axis] + np.array([0, mapped.valid[axis]])) * mapped.original[axis] / mapped.resized[axis]
        inside = (here >= ends[0]) & (here <= ends[1])
        pitch = mapped.canvas[axis] / grid[axis] * mapped.original[axis] / mapped.resized[axis]
        # half a cell, or a whole one at the edge, where the last cell may be mostly padding and is not valid
        distance = np.abs(centre[found] - here)[inside]
        assert (distance <= pitch + 1e-9).all()
        assert (np.diff(found) >= 0).all()


def test_a_marked_cell_comes_back_on_the_right_pixels() -> None:
    """A white square in a black photo: the cells that see it map back onto it, whatever the geometry."""
    image = np.zeros((120, 200, 3), dtype=np.uint8)
    image[40:80, 100:140] = 255
    square = image[..., 0] > 0
    for settings_ in (
        {"geometry": "model"},
        {"geometry": "whole"},
        {"geometry": "whole", "multiple": 14},
        {"geometry": "whole", "size": "native", "multiple": 32},
        {"geometry": "whole", "fixed": True},
    ):
        batch = make_batch([read_image(image)], Preprocess((64, 64), (0.0,), (1.0,)), **settings_)
        mapped = batch.geometries[0]
        cells = (mapped.canvas[0] // 2, mapped.canvas[1] // 2)
        seen = torch.nn.functional.adaptive_avg_pool2d(batch.pixels, cells)[0, 0] > 0.5
        rows, columns = mapped.valid_cells(cells)
        back = mapped.to_original(seen[:rows, :columns].numpy().astype(np.int64), cells) > 0
        overlap = (back & square).sum() / (back | square).sum()
        assert overlap > 0.8, (settings_, overlap)
