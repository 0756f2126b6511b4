from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import encoscope
from encoscope import results
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import Geometry, read_image
from encoscope.nave.feature_colors import RANGE, find_otsu_threshold
from encoscope.nave.features import encode_images
from encoscope.nave.layers import choose_layers
from encoscope.nave.settings import NaveSettings


@pytest.fixture(scope="module")
def encoder() -> encoscope.Encoder:
    return encoscope.load("timm:resnet10t", untrained=True, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 255, (6, columns, 3), dtype=np.uint8) for columns in (6, 9, 4)]
    return [np.asarray(Image.fromarray(pixels).resize((pixels.shape[1] * 16, 96))) for pixels in coarse]


def dense_features(encoder: encoscope.Encoder, images: list[np.ndarray]) -> list[np.ndarray]:
    """The composite vectors of all cells of each image, written out."""
    settings = NaveSettings.of(encoder, "paper", size=64)
    rows = []
    for pixels in images:
        (maps,) = encode_images(encoder, [read_image(pixels)], settings)
        rows.append(maps.features(settings).dense()[0].double().numpy())
    return rows


def literal_components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, first three eigenvectors of the covariance, and their shares of the variance."""
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh(np.cov((rows - mean).T))
    axes = vectors.T[::-1][:3]
    axes = axes * np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    return mean, axes, values[::-1][:3] / values.sum()


def test_colors_are_the_first_three_components_of_all_images(encoder: Any, images: list[np.ndarray]) -> None:
    rows = dense_features(encoder, images)
    mean, axes, shares = literal_components(np.concatenate(rows))
    estimator = encoscope.FeatureColors(encoder, preset="paper", size=64, progress=False).fit(images)
    assert estimator.n_images_ == 3
    np.testing.assert_allclose(estimator.explained_, shares, rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(estimator.components_ * axes, axis=1)), 1, atol=1e-4)
    low, high = np.percentile((np.concatenate(rows) - mean) @ axes.T, RANGE, axis=0)
    for colored, vectors, pixels in zip(estimator.transform(images), rows, images, strict=True):
        assert colored.rgb.shape == pixels.shape
        values = (vectors - mean) @ axes.T
        np.testing.assert_allclose(colored.components.reshape(-1, 3), values, atol=1e-4)
        expected = ((values - low) / (high - low)).clip(0, 1)
        height, width = pixels.shape[:2]
        center = colored.rgb[height // 2, width // 2] / 255  # lies between the four cells around the middle
        rows_, columns = colored.components.shape[:2]
        around = expected.reshape(rows_, columns, 3)[
            rows_ // 2 - 1 : rows_ // 2 + 1, columns // 2 - 1 : columns // 2 + 1
        ]
        assert (center >= around.min((0, 1)) - 0.01).all() and (center <= around.max((0, 1)) + 0.01).all()


def test_the_batch_and_one_more_pass_change_nothing(encoder: Any, images: list[np.ndarray]) -> None:
    first = encoscope.colors(encoder, images, preset="paper", size=64, batch_size=1, progress=False)
    second = encoscope.colors(encoder, images, preset="paper", size=64, batch_size=3, progress=False)
    for one, other in zip(first, second, strict=True):
        assert (np.abs(one.rgb.astype(int) - other.rgb.astype(int)) <= 1).all()


@pytest.mark.parametrize("foreground", ["high", "low"])
def test_the_foreground_has_colors_of_its_own(encoder: Any, images: list[np.ndarray], foreground: str) -> None:
    rows = dense_features(encoder, images)
    everything = np.concatenate(rows)
    mean, axes, _ = literal_components(everything)
    first = (everything - mean) @ axes[0]
    inside = first > first.std() * 0.5 if foreground == "high" else first < first.std() * 0.5
    mean_inside, axes_inside, shares = literal_components(everything[inside])
    colored = encoscope.colors(
        encoder, images, preset="paper", size=64, foreground=foreground, threshold=0.5, progress=False, random_state=0
    )
    np.testing.assert_allclose(colored[0].explained, shares, rtol=1e-3)
    shown = np.concatenate([np.isfinite(item.components[..., 0]).ravel() for item in colored])
    assert (shown == inside).mean() > 0.999
    values = np.concatenate([item.components.reshape(-1, 3) for item in colored])
    np.testing.assert_allclose(
        values[shown & inside], ((everything - mean_inside) @ axes_inside.T)[shown & inside], atol=1e-3
    )
    start = 0
    for item, pixels in zip(colored, images, strict=True):  # on pixels: the component interpolated, then cut
        rows_, columns = item.components.shape[:2]
        small = torch.from_numpy(first[start : start + rows_ * columns].reshape(1, 1, rows_, columns))
        start += rows_ * columns
        settings = NaveSettings.of(encoder, size=64)
        (maps,) = encode_images(encoder, [read_image(pixels)], settings)
        large = maps.geometries[0].interpolate(small[0, 0, ..., None].numpy(), maps.grid(settings.resolution))[..., 0]
        expected = large > first.std() * 0.5 if foreground == "high" else large < first.std() * 0.5
        white = (item.rgb == 255).all(2)
        assert (white == ~expected).mean() > 0.99 and 0 < white.mean() < 1


def test_otsu_maximizes_the_variance_between_both_groups() -> None:
    values = np.random.default_rng(1).normal(size=60) + np.repeat([0.0, 4.0], [40, 20])

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return 0.0 if not len(low) or not len(high) else len(low) * len(high) * (low.mean() - high.mean()) ** 2

    threshold = find_otsu_threshold(values)
    assert between(threshold) == pytest.approx(max(between(value) for value in values))
    assert 1 < threshold < 3.5


@pytest.mark.parametrize("shape,out", [((3, 5), (12, 10)), ((4, 4), (7, 9)), ((1, 6), (5, 6))])
def test_interpolation_is_bilinear(shape: tuple[int, int], out: tuple[int, int]) -> None:
    values = np.random.default_rng(2).normal(size=(*shape, 3))
    geometry = Geometry(out, out, (0, 0), out, out)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None], size=out, mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(geometry.interpolate(values, shape), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [{}, {"weighting": "equal", "layers": "layer3"}, {"resolution": 20}, {"foreground": "high", "threshold": 0.2}],
    ids=["default", "equal", "resolution", "foreground"],
)
def test_a_segmentation_gives_the_colors_of_its_image_alone(
    encoder: Any, images: list[np.ndarray], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Of the features it was clustered by, which by default are not those that are colored for a set."""
    settings = {"layers": choose_layers(encoder), **settings}
    of_colors = {name: settings[name] for name in ("foreground", "threshold") if name in settings}
    shared = {name: value for name, value in settings.items() if name not in of_colors}
    expected = encoscope.colors(encoder, images[1], size=64, random_state=2, **settings).rgb
    alone = encoscope.segment(encoder, images[1], n_clusters=3, size=64, random_state=2, **shared)
    np.testing.assert_array_equal(alone.rgb(**of_colors), expected)
    np.testing.assert_array_equal(alone.at(2).rgb(**of_colors), expected)
    options = {"n_clusters": 2, "size": 64, "random_state": 2, "progress": False, "cache_dir": tmp_path}
    joint = encoscope.Nave(encoder, **options, **shared).fit(images[:2]).predict(images[:2])[1]
    np.testing.assert_array_equal(joint.rgb(**of_colors), expected)
    with pytest.raises(EncoscopeError, match=r"encoscope\.colors"):
        encoscope.Segmentation.load(alone.save(tmp_path / "saved")).rgb()


def test_a_result_is_saved_and_loaded(encoder: Any, images: list[np.ndarray], tmp_path: Path) -> None:
    colored = encoscope.colors(encoder, images[0], preset="paper", size=64, foreground="high")
    loaded = encoscope.ColoredImage.load(colored.save(tmp_path / "one"))
    np.testing.assert_array_equal(loaded.rgb, colored.rgb)
    np.testing.assert_array_equal(loaded.components, colored.components)
    assert loaded.explained == colored.explained and loaded.settings == colored.settings
    assert loaded.to_dict()["model"] == colored.to_dict()["model"]
    assert "%" in str(colored) and colored.plot().axes
    (tmp_path / "one" / "components.npy").unlink()
    with pytest.raises(MissingError, match="not whole"):
        encoscope.ColoredImage.load(tmp_path / "one")


def test_wrong_use_is_said(encoder: Any, images: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r"foregroun.*nearest: foreground"):
        encoscope.colors(encoder, images, foregroun="high")
    with pytest.raises(UsageError, match="not fitted"):
        encoscope.FeatureColors(encoder).transform(images)
    with pytest.raises(UsageError, match="no pixel of the images is foreground"):
        encoscope.colors(encoder, images, preset="paper", size=64, foreground="high", threshold=1e6)
    with pytest.raises(EncoscopeError, match="no image"):
        encoscope.colors(encoder, [])


def test_the_command_draws_a_sheet_with_the_control(images: list[np.ndarray], tmp_path: Path) -> None:
    from encoscope.cli.app import run

    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    out = tmp_path / "out"
    flags = ["--model", "timm:resnet10t", "--untrained", "--size", "64", "--control", "untrained", "--out", str(out)]
    assert run(["colors", str(tmp_path), *flags]) == 0
    document = results.read(out / "result.json", "feature-colors")
    assert [entry["colors"] for entry in document["images"]] == ["0.colors.png", "1.colors.png", "2.colors.png"]
    assert len(document["settings"]["control"]["untrained"]["explained"]) == 3
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 6 * 240
    assert (
        run(
            [
                "colors",
                str(tmp_path),
                "--model",
                "timm:resnet10t",
                "--untrained",
                "--foreground",
                "high",
                "--threshold",
                "x",
            ]
        )
        == 2
    )
