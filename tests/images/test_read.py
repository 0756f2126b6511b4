"""Every kind of image becomes an upright photo; whatever cannot be read says why in one line."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.images import read_image

RED, BLUE, WHITE = (200, 30, 40), (20, 60, 220), (255, 255, 255)


@pytest.fixture
def rgb_pixels() -> np.ndarray:
    """Two by three blocks of 8 x 8 pixels in six colours: no symmetry is left unseen."""
    colours = np.array([[RED, BLUE, (10, 200, 30)], [(250, 240, 20), (90, 90, 90), (0, 0, 0)]], dtype=np.uint8)
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def test_a_file_is_read_as_it_is_and_named_by_its_bytes(rgb_pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(rgb_pixels).save(path)
    photo = read_image(path)
    assert photo.pixels.dtype == np.uint8
    np.testing.assert_array_equal(photo.pixels, rgb_pixels)
    assert (photo.path, photo.height, photo.width) == (str(path), 16, 24)
    assert photo.id == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(rgb_pixels: np.ndarray, tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = {  # how a camera that was held so stores the upright image (EXIF 2.3, tag 274)
        1: rgb_pixels,
        2: rgb_pixels[:, ::-1],
        3: rgb_pixels[::-1, ::-1],
        4: rgb_pixels[::-1],
        5: rgb_pixels.transpose(1, 0, 2),
        6: np.rot90(rgb_pixels, 1),
        7: rgb_pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb_pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=100)
    difference = np.abs(read_image(path).pixels.astype(int) - rgb_pixels.astype(int))
    assert np.median(difference) <= 3  # JPEG and WebP bleed at the blocks' edges


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_colour(rgb_pixels: np.ndarray, mode: str) -> None:
    image = Image.fromarray(rgb_pixels).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    photo = read_image(image)
    assert photo.pixels.shape == (16, 24, 3)
    np.testing.assert_array_equal(photo.pixels, expected)


@pytest.mark.parametrize(
    ("name", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("P", "gif"), ("L", "jpg"), ("1", "tif")]
)
def test_modes_survive_their_files(rgb_pixels: np.ndarray, tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    image = Image.fromarray(rgb_pixels).convert(name)
    image.save(path)
    difference = np.abs(read_image(path).pixels.astype(int) - np.asarray(image.convert("RGB")).astype(int))
    assert np.median(difference) <= 4


def test_transparency_is_composited_on_the_background(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 4), dtype=np.uint8)
    values[..., :3] = RED
    values[0, :, 3], values[1, 0, 3], values[1, 1, 3] = 255, 0, 128
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    for background, colour in (("white", WHITE), (BLUE, BLUE), ("#143cdc", BLUE)):
        pixels = read_image(path, background=background).pixels
        np.testing.assert_array_equal(pixels[0], [RED, RED])
        np.testing.assert_array_equal(pixels[1, 0], colour)
        half = (np.array(RED) * 128 + np.array(colour) * 127) / 255
        np.testing.assert_allclose(pixels[1, 1], half, atol=1)
    as_floats = read_image(values.astype(np.float32) / 255, background=BLUE).pixels
    np.testing.assert_allclose(as_floats[1, 1], (np.array(RED) * 128 + np.array(BLUE) * 127) / 255**2, atol=1e-4)
    np.testing.assert_array_equal(read_image(values, channels=4).pixels, values)  # four channels asked for: not opacity


def test_a_palette_with_transparency_shows_the_background(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([*RED, *BLUE])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=0)
    pixels = read_image(tmp_path / "p.png").pixels
    np.testing.assert_array_equal(pixels[0, 0], WHITE)
    np.testing.assert_array_equal(pixels[1, 3], BLUE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_depth(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 1, 300], [32768, 65534, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    photo = read_image(path)
    assert photo.pixels.dtype == np.float32
    for channel in range(3):
        np.testing.assert_allclose(photo.pixels[..., channel], values / 65535, atol=1e-7)
    windowed = read_image(path, window=(300, 32768), channels=1)
    np.testing.assert_allclose(windowed.pixels[..., 0], [[0, 0, 0], [1, 1, 1]], atol=1e-7)


def test_sixteen_bit_colour_takes_a_window_in_its_own_values(tmp_path: Path) -> None:
    import tifffile

    values = np.linspace(0, 65535, 4 * 5 * 3).astype(np.uint16).reshape(4, 5, 3)
    tifffile.imwrite(tmp_path / "c.tif", values, photometric="rgb")
    np.testing.assert_allclose(read_image(tmp_path / "c.tif").pixels, values / 65535, atol=1 / 255)
    windowed = read_image(tmp_path / "c.tif", window=(10000, 30000)).pixels
    np.testing.assert_allclose(windowed, np.clip((values - 10000.0) / 20000, 0, 1), atol=257 / 20000)


def test_floating_point_files(tmp_path: Path) -> None:
    values = np.linspace(-1000, 3000, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "ct.tif")
    with pytest.raises(ImageError, match=r"spans \[-1000, 3000\]: give a window, such as window=\(-1000, 3000\)"):
        read_image(tmp_path / "ct.tif")
    photo = read_image(tmp_path / "ct.tif", window=(-1000, 1000))
    np.testing.assert_allclose(photo.pixels[..., 1], np.clip((values + 1000) / 2000, 0, 1), atol=1e-6)
    Image.fromarray(values / 8000 + 0.5).save(tmp_path / "unit.tif")
    np.testing.assert_allclose(read_image(tmp_path / "unit.tif").pixels[..., 0], values / 8000 + 0.5, atol=1e-6)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_many_channels_come_through_tifffile(tmp_path: Path, planar: str) -> None:
    import tifffile

    values = np.random.default_rng(0).random((6, 7, 5), dtype=np.float32)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "many.tif", stored, photometric="minisblack", planarconfig=planar)
    np.testing.assert_array_equal(read_image(tmp_path / "many.tif", channels=5).pixels, values)
    with pytest.raises(ImageError, match="5 channels where 3 are needed"):
        read_image(tmp_path / "many.tif")
    with pytest.raises(ImageError, match="more than the limit of 10"):
        read_image(tmp_path / "many.tif", channels=5, max_pixels=10)


def test_odd_tiffs_without_tifffile_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "f.tif", np.zeros((4, 4, 3), dtype=np.float32), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingError, match=r"f\.tif.*encoscope\[tiff\]"):
        read_image(tmp_path / "f.tif")


def test_signed_integers_need_a_window() -> None:
    values = np.array([[-1024, 0], [500, 3071]], dtype=np.int16)
    with pytest.raises(ImageError, match="int16 values have no standard value of white"):
        read_image(values)
    np.testing.assert_allclose(
        read_image(values, window=(-1024, 976)).pixels[..., 0], [[0, 0.512], [0.762, 1]], atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ImageError, match="1 values that are NaN or infinite"):
        read_image(np.array([[0.5, bad]]))


def test_arrays_and_tensors_in_either_layout(rgb_pixels: np.ndarray) -> None:
    expected = read_image(rgb_pixels)
    chw = np.ascontiguousarray(rgb_pixels.transpose(2, 0, 1))
    for source in (chw, torch.from_numpy(rgb_pixels), torch.from_numpy(chw), Image.fromarray(rgb_pixels)):
        photo = read_image(source)
        np.testing.assert_array_equal(photo.pixels, rgb_pixels)
        assert photo.id == expected.id
        assert photo.path is None
    halves = torch.from_numpy(chw).float().div(255)
    for tensor, close in ((halves, 1e-6), (halves.double(), 1e-6), (halves.bfloat16(), 1e-2)):
        photo = read_image(tensor)
        assert photo.pixels.dtype == np.float32
        np.testing.assert_allclose(photo.pixels, rgb_pixels / 255, atol=close)
    assert read_image(rgb_pixels[::-1]).id != expected.id
    narrow = np.zeros((3, 9, 3), dtype=np.uint8)
    narrow[0] = 255
    np.testing.assert_array_equal(
        read_image(narrow).pixels, narrow
    )  # both layouts fit: an array's channels come last ...
    assert read_image(torch.from_numpy(narrow)).pixels.shape == (9, 3, 3)  # ... a tensor's first


def test_a_photo_does_not_change_with_its_source(rgb_pixels: np.ndarray) -> None:
    mine = rgb_pixels.copy()
    photo = read_image(mine)
    mine[:] = 0
    np.testing.assert_array_equal(photo.pixels, rgb_pixels)
    torch.from_numpy(photo.pixels)  # writable: torch would warn about it otherwise


dtypes = ["bool", "uint8", "uint16", "uint32", "int16", "int64", "float16", "float32", "float64"]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    layers=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from(dtypes),
    channels=st.sampled_from([1, 3]),
    windowed=st.booleans(),
    seed=st.integers(0, 9),
)
def test_whatever_is_read_is_a_photo(
    height: int, width: int, layers: int | None, dtype: str, channels: int, windowed: bool, seed: int
) -> None:
    shape = (height, width) if layers is None else (height, width, layers)
    values = np.random.default_rng(seed).random(shape)
    kind = np.dtype(dtype)
    array = (values > 0.5) if dtype == "bool" else (values * (1 if kind.kind == "f" else 100)).astype(kind)
    window = (-1.5, 50) if windowed else None
    if kind.kind == "i" and not windowed:
        with pytest.raises(ImageError, match="give a window"):
            read_image(array, channels=channels)
        return
    photo = read_image(array, channels=channels, window=window)
    assert photo.pixels.shape == (height, width, channels)
    assert photo.pixels.dtype == (np.uint8 if dtype in ("bool", "uint8") and not windowed else np.float32)
    assert photo.pixels.min() >= 0 and photo.pixels.max() <= (255 if photo.pixels.dtype == np.uint8 else 1)


def test_grey_and_colour_turn_into_each_other(rgb_pixels: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(rgb_pixels).convert("L"))
    np.testing.assert_array_equal(read_image(rgb_pixels, channels=1).pixels[..., 0], grey)
    np.testing.assert_array_equal(read_image(read_image(grey), channels=1).pixels[..., 0], grey)
    np.testing.assert_allclose(read_image(rgb_pixels / 255, channels=1).pixels[..., 0], grey / 255, atol=2 / 255)
    assert read_image(np.zeros((4, 5), dtype=bool)).pixels.max() == 0
    assert read_image(np.ones((4, 5), dtype=bool)).pixels.min() == 255


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 4, 5)), "2 or 3 axes"),
        (np.zeros((5, 6, 7)), "neither 3 channels nor 1, 3 or 4"),
        (np.zeros((0, 6, 3)), "empty"),
        (np.zeros((4, 6), dtype=complex), "real numbers"),
        (object(), "object is no image"),
    ],
)
def test_what_is_no_image_is_refused(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(source)


def test_wrong_settings_are_usage_errors(rgb_pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="low < high"):
        read_image(rgb_pixels, window=(5, 5))
    transparent = np.dstack([rgb_pixels, np.zeros((16, 24), dtype=np.uint8)])
    for background in ("no such colour", (300, 0, 0)):
        with pytest.raises(UsageError, match="not a color"):
            read_image(transparent, background=background)


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "dot.png")
    np.testing.assert_array_equal(read_image(tmp_path / "dot.png").pixels, [[RED]])


def broken_files(folder: Path) -> dict[str, Path]:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    contents = {
        "empty": (b"", "empty.jpg"),
        "text": (b"this is a shopping list, whatever its name says\n" * 5, "notes.jpg"),
        "truncated": (buffer.getvalue()[:900], "cut.jpg"),
    }
    for data, name in contents.values():
        (folder / name).write_bytes(data)
    return {kind: folder / name for kind, (_, name) in contents.items()}


@pytest.mark.parametrize(
    ("kind", "message"),
    [("empty", "empty"), ("text", "not an image in a known format"), ("truncated", "truncated")],
)
def test_broken_files_say_why_in_one_line(tmp_path: Path, kind: str, message: str) -> None:
    path = broken_files(tmp_path)[kind]
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no such file: .*nowhere\.png") as caught:
        read_image(tmp_path / "nowhere.png")
    assert caught.value.exit_code == 3
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(MissingError, match="nothing is downloaded"):
        read_image("https://example.org/cat.jpg")


def huge_png(side: int) -> bytes:
    """A PNG whose header promises side x side pixels and whose data begins well."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [11_000, 30_000])  # Pillow would warn about the one and die of the other
def test_huge_images_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(huge_png(side))
    with pytest.raises(
        ImageError, match=f"{side} x {side} is {side * side:,} pixels.*limit of 100,000,000.*max_pixels"
    ):
        read_image(path)
    limit = Image.MAX_IMAGE_PIXELS
    small = tmp_path / "small.png"
    Image.new("L", (30, 20)).save(small)
    with pytest.raises(ImageError, match="30 x 20 is 600 pixels, more than the limit of 599"):
        read_image(small, max_pixels=599)
    assert read_image(small, max_pixels=600).width == 30
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_can_be_raised_past_pillows_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").width == 30


def test_decoders_warnings_never_leak(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "exif.jpg"
    Image.new("RGB", (8, 8), RED).save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\xff\x01\x12\x00\x03")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_image(path).width == 8
    assert [str(warning.message) for warning in caught] == []
    assert list(warnings.filters) == before
    assert capfd.readouterr() == ("", "")


def test_threads_decode_side_by_side_and_leave_nothing_changed(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((300, 300, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    failures = []

    def work() -> None:
        for _ in range(20):
            try:
                assert read_image(tmp_path / "a.png").width == 300
                time.sleep(0.0005)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(warnings.filters) == before
    assert limit == Image.MAX_IMAGE_PIXELS
