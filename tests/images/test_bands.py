"""All bands of files at full depth: what is read equals the array that was written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, features
from torch import nn

from encoscope.encoder import Encoder
from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.images import read_image

WHITES = {"u1": 255, "u2": 65535}


def draw(shape: tuple[int, ...], kind: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WHITES[kind], shape, endpoint=True).astype(kind)


def assert_stored(read: np.ndarray, written: np.ndarray, kind: str) -> None:
    """Equal to the last bit: bytes as they are, words divided by their white."""
    if kind == "u1":
        np.testing.assert_array_equal(read, written)
    else:
        np.testing.assert_array_equal(read, written.astype(np.float32) / np.float32(WHITES[kind]))


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("photometric", "extra"),
    [
        ("rgb", []),
        ("rgb", ["unspecified"]),
        ("rgb", ["assocalpha"]),
        ("rgb", ["unassalpha"]),
        ("rgb", ["unassalpha", "unspecified"]),
        ("rgb", [0] * 10),
        ("minisblack", [0] * 3),
        ("minisblack", [0] * 12),
        ("minisblack", ["unassalpha"]),
    ],
)
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_every_band_of_a_tiff_as_it_is_stored(tmp_path, kind, order, planar, compression, photometric, extra, tile):
    bands = (3 if photometric == "rgb" else 1) + len(extra)
    values = draw((19, 37, bands), kind)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    options = {"photometric": photometric, "planarconfig": planar, "extrasamples": extra, "compression": compression}
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, stored.astype(f"{order}{kind}"), byteorder=order, tile=tile, **options)
    assert_stored(read_image(file, channels=bands).pixels, values, kind)
    if bands == 3:
        assert_stored(read_image(file).pixels, values, kind)
    elif not ({*extra} <= {"assocalpha", "unassalpha"}):
        with pytest.raises(ImageError, match=rf"{bands} channels where 3 are needed, and .* neither color nor opacity"):
            read_image(file)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 3])
def test_opacity_is_composited_as_it_is_stored(tmp_path, kind, alpha, photometric, planar, channels) -> None:
    colors = 3 if photometric == "rgb" else 1
    values = draw((9, 11, colors + 1), kind)
    white, background = WHITES[kind], np.array([20, 60, 220]) / 255
    values[0, :, -1], values[1, :, -1] = 0, white
    if alpha == "assocalpha":  # color is never stronger than its opacity
        values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, stored, photometric=photometric, planarconfig=planar, extrasamples=[alpha])
    color, share = values[..., :-1] / white, values[..., -1:] / white
    if channels == 3 or colors == 3:
        color = np.broadcast_to(color, (9, 11, 3))
    expected = (color if alpha == "assocalpha" else color * share) + (1 - share) * background
    if channels == 1:
        expected = expected @ [[0.299], [0.587], [0.114]]
    pixels = read_image(file, channels=channels, background=(20, 60, 220)).pixels
    scaled = pixels / 255 if pixels.dtype == np.uint8 else pixels
    np.testing.assert_allclose(scaled, expected, atol=1.01 / 255 if kind == "u1" else 1e-5)


def png(values: np.ndarray, *, interlaced: bool = False, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits, written here: filter 1 (differences to the left) in every row."""
    height, width, bands = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def rows(part: np.ndarray) -> bytes:
        lines = np.ascontiguousarray(part.astype(">u2")).view(np.uint8).reshape(len(part), -1)
        left = np.pad(lines, ((0, 0), (2 * bands, 0)))[:, : lines.shape[1]]
        return b"".join(b"\1" + (line - before).tobytes() for line, before in zip(lines, left, strict=True))

    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    parts = [values[a::b, c::d] for a, b, c, d in passes] if interlaced else [values]
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, interlaced)
    data = b"".join(rows(part) for part in parts if part.size)
    told = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + told + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (13, 10), (40, 33)])
def test_png_of_16_bits(tmp_path: Path, bands: int, interlaced: bool, size: tuple[int, int]) -> None:
    values = draw((*size, bands), "u2")
    file = tmp_path / "x.png"
    file.write_bytes(png(values, interlaced=interlaced))
    if bands in (1, 3):
        assert_stored(read_image(file, channels=bands).pixels, values, "u2")
        with Image.open(file) as image:
            assert_stored(read_image(image, channels=bands).pixels, values, "u2")
        return
    assert_stored(read_image(file, channels=bands).pixels, values, "u2")
    share, color = values[..., -1:] / 65535, values[..., :-1] / 65535
    expected = np.broadcast_to(color * share + (1 - share), (*size, 3))
    np.testing.assert_allclose(read_image(file).pixels, expected, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 3])
def test_the_clear_color_of_a_png_is_compared_at_full_depth(tmp_path: Path, bands: int) -> None:
    values = np.full((2, 2, bands), 0x1234, np.uint16)
    values[0, 0] = 0x1235  # the same high byte
    (tmp_path / "x.png").write_bytes(png(values, clear=(0x1234,) * bands))
    pixels = read_image(tmp_path / "x.png").pixels
    np.testing.assert_allclose(pixels[0, 0], 0x1235 / 65535, atol=1e-7)
    np.testing.assert_array_equal(pixels[1:], 1)  # white


@pytest.mark.parametrize("white", [256, 1000, 4095, 65535])
@pytest.mark.parametrize("is_text", [False, True])
def test_ppm_of_more_than_8_bits(tmp_path: Path, white: int, is_text: bool) -> None:
    values = np.random.default_rng(0).integers(0, white, (4, 5, 3), endpoint=True)
    head = f"P{3 if is_text else 6}\n# a comment\n5 4\n{white}\n".encode()
    body = " ".join(map(str, values.ravel())).encode() if is_text else values.astype(">u2").tobytes()
    (tmp_path / "x.ppm").write_bytes(head + body)
    np.testing.assert_allclose(read_image(tmp_path / "x.ppm").pixels, values / white, atol=1e-7)
    (tmp_path / "x.ppm").write_bytes(head + body[: len(body) // 2])
    with pytest.raises(ImageError, match=r"x\.ppm"):
        read_image(tmp_path / "x.ppm")


@pytest.mark.parametrize("dtype", ["i1", "u4", "f4", "f8"])
@pytest.mark.parametrize("bands", [1, 3, 7])
def test_other_numbers(tmp_path: Path, dtype: str, bands: int) -> None:
    values = (np.random.default_rng(1).random((6, 5, bands)) * 100).astype(dtype)
    photometric = "rgb" if bands == 3 else "minisblack"
    stored, planar = (values[..., 0], None) if bands == 1 else (values, "contig")
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric=photometric, planarconfig=planar)
    pixels = read_image(tmp_path / "x.tif", channels=bands, window=(0, 100)).pixels
    np.testing.assert_allclose(pixels, values / 100, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bands", [3, 4, 6])
def test_tiffs_are_turned_upright(tmp_path: Path, orientation: int, bands: int) -> None:
    values = draw((4, 6, bands), "u2")
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", planarconfig="contig", extratags=tag,
                     extrasamples=[0] * (bands - 3))  # fmt: skip
    grid = np.arange(24).reshape(4, 6)  # TIFF 6.0, Orientation: where row 0 and column 0 lie
    upright = {1: grid, 2: grid[:, ::-1], 3: grid[::-1, ::-1], 4: grid[::-1], 5: grid.T, 6: np.rot90(grid, -1),
               7: grid[::-1, ::-1].T, 8: np.rot90(grid)}[orientation]  # fmt: skip
    expected = values.reshape(24, bands)[upright]
    assert_stored(read_image(tmp_path / "x.tif", channels=bands).pixels, expected, "u2")


@pytest.mark.parametrize("bands", [2, 4, 13])
def test_a_stack_of_pages_is_one_image_for_a_network_of_as_many_channels(tmp_path: Path, bands: int) -> None:
    values = draw((8, 9, bands), "u2")
    tifffile.imwrite(tmp_path / "x.tif", values.transpose(2, 0, 1), photometric="minisblack")
    assert_stored(read_image(tmp_path / "x.tif", channels=bands).pixels, values, "u2")
    assert_stored(read_image(tmp_path / "x.tif", channels=1).pixels, values[..., :1], "u2")  # the first of several
    with pytest.raises(ImageError, match=f"{bands} channels where 5 are needed"):
        read_image(tmp_path / "x.tif", channels=5)


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (6, (4, 5, 6)), (6, (6, 4, 5)), (3, (4, 5, 3))])
def test_npy_files_are_images(tmp_path: Path, channels: int, shape: tuple[int, ...]) -> None:
    values = draw(shape, "u1")
    np.save(tmp_path / "x.npy", values)
    expected = read_image(values, channels=channels).pixels
    read = read_image(tmp_path / "x.npy", channels=channels)
    np.testing.assert_array_equal(read.pixels, expected)
    assert read.path == str(tmp_path / "x.npy")
    with pytest.raises(ImageError, match="limit of 10"):
        read_image(tmp_path / "x.npy", channels=channels, max_pixels=10)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"o\.npy"):
        read_image(tmp_path / "o.npy")


def test_a_codec_that_is_missing_is_named(tmp_path: Path) -> None:
    try:
        import imagecodecs  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        Image.fromarray(draw((8, 8, 3), "u1")).save(tmp_path / "x.tif", compression="tiff_lzw")
        assert read_image(tmp_path / "x.tif").channels == 3
        with pytest.raises(MissingError, match=r"x\.tif.*LZW.*imagecodecs"):
            read_image(tmp_path / "x.tif", channels=4)


def compress_lzw(data: bytes) -> bytes:
    """LZW as TIFF has it, written without a table: each byte as a code of 9 bits, cleared before codes grow."""
    codes = [256]
    for number, byte in enumerate(data):
        codes += [byte] if number % 200 else [256, byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [(), (0,), (1,), (2,)])
def test_lzw_needs_no_further_package_for_up_to_four_bands(tmp_path: Path, kind: str, order: str, extra) -> None:
    values, bands = draw((9, 14, 3 + len(extra)), kind), 3 + len(extra)
    data = compress_lzw(values.astype(f"{order}{kind}").tobytes())
    bits = 8 * values.itemsize

    def entry(tag: int, numbers: list[int], size: int = 2) -> tuple[int, int, list[int]]:
        return tag, size, numbers

    entries = [
        entry(256, [14]), entry(257, [9]), entry(258, [bits] * bands), entry(259, [5]), entry(262, [2]),
        entry(273, [8], 4), entry(277, [bands]), entry(278, [9]), entry(279, [len(data)], 4), entry(284, [1]),
        *([entry(338, list(extra))] if extra else []),
    ]  # fmt: skip
    start = 8 + len(data) + len(data) % 2
    further = start + 2 + 12 * len(entries) + 4
    table, after = struct.pack(f"{order}H", len(entries)), b""
    for tag, size, numbers in entries:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if size == 2 else 'I'}", *numbers)
        if len(packed) > 4:
            offset, after = further + len(after), after + packed
            packed = struct.pack(f"{order}I", offset)
        table += struct.pack(f"{order}HHI", tag, 3 if size == 2 else 4, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    file = tmp_path / "x.tif"
    file.write_bytes(head + data + b"\0" * (len(data) % 2) + table + b"\0" * 4 + after)
    assert_stored(read_image(file, channels=bands).pixels, values, kind)


@pytest.mark.parametrize("bands", [(4, 3, 2), (1,), (13, 1, 13, 7), (2, 1, 3)])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_the_bands_that_are_named(tmp_path: Path, bands: tuple[int, ...], kind: str) -> None:
    values = draw((19, 23, 13), kind)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", planarconfig="contig", extrasamples=[0] * 10)
    np.save(tmp_path / "rows.npy", values)
    np.save(tmp_path / "planes.npy", values.transpose(2, 0, 1))
    np.savez_compressed(tmp_path / "one.npz", image=values)
    tensor = torch.from_numpy(values.transpose(2, 0, 1).copy())
    files = [tmp_path / name for name in ("x.tif", "rows.npy", "planes.npy", "one.npz")]
    for source in [*files, values, tensor]:
        image = read_image(source, channels=bands)
        assert_stored(image.pixels, values[..., np.array(bands) - 1], kind)
        assert read_image(image, channels=bands) is image
    with pytest.raises(ImageError, match="the image has 13 bands, and band 14 of it is requested"):
        read_image(files[0], channels=(1, 14, 2))


@pytest.mark.parametrize(("mode", "bands"), [("RGB", (3, 2, 1)), ("RGBA", (4, 1)), ("L", (1, 1, 1)), ("LA", (2,))])
def test_the_named_bands_of_a_png(tmp_path: Path, mode: str, bands: tuple[int, ...]) -> None:
    values = draw((7, 9, len(mode)), "u1")
    image = Image.fromarray(values if len(mode) > 1 else values[..., 0], mode)
    image.save(tmp_path / "x.png")
    for source in (tmp_path / "x.png", image):
        np.testing.assert_array_equal(read_image(source, channels=bands).pixels, values[..., np.array(bands) - 1])


def test_a_network_reads_its_bands_everywhere(tmp_path: Path) -> None:
    values = draw((32, 32, 13), "u1")
    np.save(tmp_path / "x.npy", values)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    plain, chosen = Encoder(network, size=32), Encoder(network, size=32, bands=(4, 3, 2))
    expected = plain.prepare(values[..., [3, 2, 1]]).pixels
    for source in (tmp_path / "x.npy", values, read_image(values, channels=(4, 3, 2))):
        assert torch.equal(chosen.prepare(source).pixels, expected)
    assert chosen.digest != plain.digest
    assert chosen.record_preprocess()["bands"] == [4, 3, 2] and "bands" not in plain.record_preprocess()
    with pytest.raises(UsageError, match="2 bands for a network of 3 channels: name a band for each channel"):
        Encoder(network, size=32, bands=(1, 2))
    with pytest.raises(UsageError, match="bands are numbers from 1 on"):
        Encoder(network, size=32, bands=(0, 1, 2))


def test_a_npz_that_is_no_image_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 4)), b=np.zeros((4, 4)))
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4 nothing")
    np.savez(tmp_path / "objects.npz", np.array([{}]))
    for name, match in (("two", "holds 2 arrays where an image is one"), ("broken", "no .npz"), ("objects", "no .npz")):
        with pytest.raises(ImageError, match=match):
            read_image(tmp_path / f"{name}.npz")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize(("flag", "bits"), [(0, None), (0x40, 10), (0x60, 12)])
def test_avif_of_more_than_8_bits_is_refused(tmp_path: Path, flag: int, bits: int | None) -> None:
    file = tmp_path / "x.avif"
    Image.fromarray(draw((16, 16, 3), "u1")).save(file)
    data = bytearray(file.read_bytes())
    place = data.index(b"av1C") + 6
    data[place] = data[place] & 0x9F | flag
    file.write_bytes(data)
    if bits is None:
        assert read_image(file).pixels.shape == (16, 16, 3)
        return
    with pytest.raises(ImageError, match=f"AVIF color of {bits} bits is not read at full depth"):
        read_image(file)
