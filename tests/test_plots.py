"""Pictures: colors that can be told apart, outlines that can be seen, labels that survive the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoscope import plots
from encoscope.errors import UsageError
from encoscope.images import read_image


def least_distance(colors: np.ndarray, blind: np.ndarray | None = None) -> float:
    seen = plots.to_oklab(colors.astype(float), blind)
    distance = np.linalg.norm(seen[:, None] - seen, axis=-1)
    return float(distance[~np.eye(len(colors), dtype=bool)].min())


def test_oklab_is_ottossons() -> None:
    # the reference values of Ottosson's article for white and the sRGB primaries
    colors = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=float)
    expected = [[1, 0, 0], [0.628, 0.225, 0.126], [0.866, -0.234, 0.179], [0.452, -0.032, -0.312]]
    np.testing.assert_allclose(plots.to_oklab(colors), expected, atol=1e-3)


def test_the_palette_can_be_told_apart() -> None:
    colors = plots.palette(256)
    assert len(np.unique(colors, axis=0)) == 256
    assert least_distance(colors) > 0.04  # OKLab; about two just noticeable differences
    assert least_distance(colors[:20]) > 0.12
    for blind in plots._BLIND:
        assert least_distance(colors[:20], blind) > 0.06
    np.testing.assert_array_equal(plots.palette(5), colors[:5])
    with pytest.raises(UsageError, match="1 to 256 colors, not 257"):
        plots.palette(257)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_outlines_are_seen_on_any_photo(tone: int) -> None:
    photo = np.full((40, 60, 3), tone, dtype=np.uint8)
    labels = np.zeros((40, 60), dtype=np.int64)
    labels[10:30, 20:40] = 1
    picture = plots.draw_overlay(photo, labels, alpha=0.0)
    ring = picture[20, 15:26]
    assert {tuple(pixel) for pixel in ring} >= {(0, 0, 0), (255, 255, 255)}
    np.testing.assert_array_equal(picture[:5], photo[:5])
    np.testing.assert_array_equal(plots.draw_overlay(photo, labels, alpha=0.0, outlines=False), photo)


def test_colours_are_the_labels_and_none_where_there_is_no_label(image_paths: dict[str, Path]) -> None:
    photo = read_image(image_paths["chelsea"])
    labels = np.arange(photo.height * photo.width).reshape(photo.height, photo.width) // 40_000
    labels[:50] = -1
    opaque = plots.draw_overlay(photo, labels, alpha=1.0, outlines=False)
    np.testing.assert_array_equal(opaque[:50], photo.pixels[:50])
    np.testing.assert_array_equal(opaque[50:], plots.palette(8)[labels[50:]])
    with pytest.raises(UsageError, match="do not fit an image"):
        plots.draw_overlay(photo, labels[:-1])


def test_boundaries_lie_between_labels() -> None:
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    expected = [[False, True, False], [True, True, True], [False, False, False]]
    np.testing.assert_array_equal(plots.find_boundaries(labels), expected)


@pytest.mark.parametrize(("colored", "mode"), [(False, "L"), (True, "P")])
def test_a_label_image_holds_the_labels(tmp_path: Path, colored: bool, mode: str) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (7, 9))
    plots.draw_label_image(labels, colored=colored).save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), labels)
        shown = np.asarray(image.convert("RGB"))
    if colored:
        np.testing.assert_array_equal(shown, plots.palette(256)[labels])
    for wrong in (labels + 1, labels - 1):
        with pytest.raises(UsageError, match="do not fit an image of 256 colors"):
            plots.draw_label_image(wrong)


def test_a_contact_sheet_shows_every_image_once() -> None:
    colors = plots.palette(5)
    images = [np.full((20, 10 + 10 * index, 3), colour, dtype=np.uint8) for index, colour in enumerate(colors)]
    sheet = plots.draw_contact_sheet(
        images, ["a caption that is far too long for its cell and then some"] * 5, 3, cell=60
    )
    assert sheet.shape[1] == 3 * 60 + 4 * 4
    for image, colour in zip(images, colors, strict=True):
        count = int((sheet == colour).all(axis=-1).sum())
        height, width = image.shape[:2]
        scale = 60 / max(height, width)
        assert count == round(height * scale) * round(width * scale)
    bare = plots.draw_contact_sheet(images, columns=3, cell=60)
    assert bare.shape[0] < sheet.shape[0]
    titled = plots.draw_contact_sheet(
        images, columns=3, cell=60, title=["a title that is too long for its sheet", "second"]
    )
    above = titled.shape[0] - bare.shape[0]
    assert above > 20
    assert (titled[above + 4 :] == bare[4:]).all()
    assert (titled[:above] < 128).any()
    assert (titled[:, -4:] == 255).all()
    with pytest.raises(UsageError, match="at least one"):
        plots.draw_contact_sheet([])
    with pytest.raises(UsageError, match="1 captions for 5 images"):
        plots.draw_contact_sheet(images, ["one"])


def test_captions_fit_their_cells() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    for caption in (
        "short",
        "several words that need two lines",
        "x" * 300,
        "a/very/long/path/without/any/space.png",
        "",
    ):
        lines = plots._lines(caption, font, 120)
        assert len(lines) <= 2
        assert all(font.getlength(line) <= 120 for line in lines)
        lost = "".join(lines).replace(" ", "") != caption.replace(" ", "")
        assert lost == bool(lines and lines[-1].endswith("…"))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_pixels_can_be_shown(channels: int) -> None:
    values = np.linspace(0, 1, 4 * 5 * channels, dtype=np.float32).reshape(4, 5, channels)
    shown = plots.to_rgb(values)
    wanted = values[..., :3] if channels >= 3 else values[..., :1].repeat(3, axis=2)
    np.testing.assert_allclose(shown / 255, wanted, atol=1 / 255)
