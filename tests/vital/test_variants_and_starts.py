"""Several pictures of a unit, from a photo, above the network's size, on their way, and on a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from encoscope.cli.app import run
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.results import ModelRecord
from encoscope.vital import Visualization, Vital, make_sprite_map, visualize
from encoscope.vital.sprite_map import arrange_units
from encoscope.vital.synthesis.random import make_generators
from encoscope.vital.synthesis.transforms import Beside, Roll, WholeOrPart
from encoscope.vital.terms import GramDiversity, KeepImage

SETTINGS: dict[str, Any] = {"steps": 6, "n_references": 3, "progress": "none"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("resnet10t", num_classes=4).eval()
    return Encoder(module, size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_variants_differ_and_are_the_same_again(encoder: Encoder, folder: Path) -> None:
    variants = visualize(encoder, "class:1", folder, n_variants=3, **SETTINGS)
    assert [each.name for each in variants] == [f"class:1 variant {number}" for number in (1, 2, 3)]
    assert [each.variant for each in variants] == [{"number": number, "of": 3} for number in (1, 2, 3)]
    assert {each.unit for each in variants} == {"class:1"}
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(variants[first].image - variants[second].image).mean() > 0.01
    again = visualize(encoder, "class:1", folder, n_variants=3, fresh=True, **SETTINGS)
    assert all(np.array_equal(old.image, new.image) for old, new in zip(variants, again, strict=True))


def test_diversity_is_the_mean_cosine_of_gram_matrices() -> None:
    maps = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = []
    for image in range(3):
        cosines = []
        for other in range(3):
            grams = []
            for index in (image, other):
                centered = maps[index] - maps[index].mean(1, keepdim=True)
                grams.append(torch.stack([(centered[i] * centered[j]).sum() for i in range(5) for j in range(5)]))
            if other != image:
                cosines.append(float(grams[0] @ grams[1] / grams[0].norm() / grams[1].norm()))
        expected.append(2.5 * sum(cosines) / 2)
    computed = GramDiversity("a", 2.5)({"a": maps}, torch.zeros(3, 3, 1, 1), [0, 1, 2])
    torch.testing.assert_close(computed, torch.tensor(expected))
    assert GramDiversity("a", 1.0)({"a": maps[:1]}, torch.zeros(1, 3, 1, 1), [0]).tolist() == [0.0]


def test_diversity_makes_variants_less_alike(encoder: Encoder, folder: Path) -> None:
    settings = {**SETTINGS, "steps": 30, "n_variants": 3}
    alike = visualize(encoder, "class:1", folder, diversity=1e-6, **settings)
    diverse = visualize(encoder, "class:1", folder, diversity=10.0, **settings)
    assert diverse[0].settings["batch"] == [f"class:1 variant {number}" for number in (1, 2, 3)]

    def likeness(results: Any, weight: float) -> float:
        return float(np.mean([each.losses["diversity"][-5:].mean() / weight for each in results]))

    assert likeness(diverse, 10.0) < likeness(alike, 1e-6) - 0.02


def test_a_photo_is_where_it_begins(encoder: Encoder, folder: Path) -> None:
    photo = folder / "0.png"
    strengths = (0.01, 100.0)
    weak, strong = visualize(encoder, "class:1", folder, start=photo, strengths=strengths, **{**SETTINGS, "steps": 40})
    assert [each.name for each in (weak, strong)] == ["class:1 strength 0.01", "class:1 strength 100"]
    own = encoder.prepare(photo).pixels[0]
    mean, std = torch.tensor(encoder.preprocess.mean), torch.tensor(encoder.preprocess.std)
    pixels = (own * std[:, None, None] + mean[:, None, None]).permute(1, 2, 0).numpy()
    changes = [float(np.abs(each.image - pixels).mean()) for each in (weak, strong)]
    assert changes[0] < changes[1]
    matched = [
        sum(part[-1] for name, part in each.losses.items() if name not in ("loss", "photo")) for each in (weak, strong)
    ]
    assert matched[1] < matched[0]
    assert weak.settings["start"]["image"] == str(photo) and len(weak.settings["start"]["sha256"]) == 64
    other = visualize(encoder, "class:1", folder, start=folder / "1.png", strengths=[0.01], **SETTINGS)[0]
    assert other.settings["start"]["sha256"] != weak.settings["start"]["sha256"]


@pytest.mark.parametrize("parametrization", ["pyramid", "pixels"])
def test_before_the_first_step_it_is_the_photo(encoder: Encoder, folder: Path, parametrization: str) -> None:
    array = np.asarray(Image.open(folder / "2.png"))
    vital = Vital(encoder, "class:1", start=array, parametrization=parametrization, **SETTINGS).fit(folder)
    start = vital.plan(vital.targets_).stages[0].start(None, make_generators(0, ["class:1"])).image()
    torch.testing.assert_close(start.detach(), encoder.prepare(array).pixels, atol=1e-5, rtol=0)


def test_the_photo_term_is_its_formula(encoder: Encoder, folder: Path) -> None:
    pixels = encoder.prepare([folder / "0.png", folder / "1.png"]).pixels
    changed = pixels + 0.3 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    layers = ("layer1", "layer2")
    seen, photo = (encoder.observe(images, layers).activations for images in (changed, pixels))
    expected = torch.zeros(2)
    for name in layers:
        for image in range(2):
            first, second = seen[name].maps[image], photo[name].maps[image]
            variance = torch.stack([channel.var(correction=0) for channel in second.flatten(1)]).mean()
            expected[image] += (first - second).square().mean() / variance / 2 / (0.5, 4.0)[image]
    values = {name: seen[name].maps.flatten(2) for name in layers}
    torch.testing.assert_close(KeepImage(encoder, layers, [0.5, 4.0])(values, pixels, [0, 1]), expected)


def test_a_photo_is_shown_as_its_image_is() -> None:
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    photo = images[:1] + 1000
    for transform in (Roll(3), WholeOrPart((4, 4))):
        views = Beside(transform, photo)(images, make_generators(0, ["a", "b"]))
        assert len(views) == 4
        torch.testing.assert_close(views[0] + 1000, views[1])


def test_a_part_is_a_resized_part_of_the_image() -> None:
    columns = torch.arange(32.0).expand(1, 1, 32, 32)
    generators = make_generators(0, ["a"])
    widths = []
    for _ in range(200):
        view = WholeOrPart((8, 8), share=0.25)(columns, generators)
        assert view.shape == (1, 1, 8, 8)
        widths.append(float(view[0, 0, 0, 5] - view[0, 0, 0, 2]) / 3 * 8)  # columns of the image that it spans
    widths = np.array(widths)
    assert 7.5 < widths.min() < 9 and 31 < widths.max() <= 32.1
    assert 0.15 < (widths > 31.5).mean() < 0.4
    parts = np.log2(widths[widths < 31])
    assert abs(np.median(parts) - 4) < 0.3  # even by the logarithm between 8 and 32


def test_a_size_above_the_networks_is_seen_in_crops(encoder: Encoder, folder: Path) -> None:
    seen: list[tuple[int, ...]] = []
    handle = encoder.module.register_forward_pre_hook(lambda _module, args: seen.append(tuple(args[0].shape[2:])))
    try:
        large = visualize(encoder, "class:1", folder, size=(128, 96), **SETTINGS)
    finally:
        handle.remove()
    assert large.image.shape == (128, 96, 3) and large.transparency.shape == (128, 96)
    assert set(seen) == {(64, 64)}
    assert large.settings["view"] == "crops"
    whole = visualize(encoder, "class:1", folder, size=(128, 96), view="whole", **SETTINGS)
    assert whole.settings["view"] == "whole"


def test_a_network_of_one_size_takes_larger_pictures(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=4)
    vit = Encoder(module, size=32)
    assert visualize(vit, "class:1", folder, size=(64, 64), **SETTINGS).image.shape == (64, 64, 3)
    with pytest.raises(UsageError, match="takes 32 x 32 pixels"):
        visualize(vit, "class:1", folder, size=(16, 64), **SETTINGS)
    with pytest.raises(UsageError, match="above the network's own"):
        visualize(vit, "class:1", folder, view="crops", **SETTINGS)


@pytest.mark.parametrize("method", ["vital", "fourier"])
def test_frames_show_the_way(encoder: Encoder, folder: Path, tmp_path: Path, method: str) -> None:
    settings = dict(SETTINGS) if method == "vital" else {"steps": 6, "progress": "none"}
    result = visualize(encoder, "class:1", folder if method == "vital" else None, method=method, frames=4, **settings)
    assert result.frames is not None and result.frames.shape == (4, 64, 64, 3)
    assert np.abs(result.frames[-1] / 255 - result.image).max() < 0.01
    assert len(np.unique(result.frames.reshape(4, -1), axis=0)) == 4
    for ending in ("webp", "gif"):
        with Image.open(result.save_animation(tmp_path / f"way.{ending}")) as animation:
            assert animation.n_frames == 4  # pyright: ignore[reportAttributeAccessIssue]
    again = Visualization.load(result.save(tmp_path / "saved"))
    assert again.frames is not None and np.array_equal(again.frames, result.frames)
    with pytest.raises(UsageError, match=r"\.webp or \.gif"):
        result.save_animation(tmp_path / "way.mp4")
    with pytest.raises(UsageError, match="no frames"):
        visualize(encoder, "class:1", folder, **SETTINGS).save_animation(tmp_path / "way.gif")


def test_a_map_puts_alike_units_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(16) % 2
    centers = rng.normal(size=(2, 40)) * 10
    pictures = [_stub(f"layer:{i}", centers[kind] + rng.normal(size=40)) for i, kind in enumerate(kinds)]
    cells = arrange_units(pictures)
    assert len({tuple(cell) for cell in cells.tolist()}) == 16 and cells.max() == 3
    near = np.abs(cells[:, None] - cells[None]).sum(2)
    same = kinds[:, None] == kinds[None]
    assert near[same].sum() / (same.sum() - 16) < near[~same].mean() - 0.5
    assert make_sprite_map(pictures, cell=20).size == (80, 80)
    assert make_sprite_map(pictures[:3], cell=20).size == (40, 40)
    with pytest.raises(UsageError, match="same layers"):
        arrange_units([*pictures, _stub("other:0", np.zeros(7))])
    with pytest.raises(UsageError, match="references"):
        arrange_units([*pictures, _stub("other:0", None)])


def _stub(unit: str, profile: np.ndarray | None) -> Visualization:
    return Visualization(
        unit=unit,
        name=unit,
        image=np.zeros((8, 8, 3), dtype=np.float32),
        transparency=np.ones((8, 8), dtype=np.float32),
        losses={},
        activation=0.0,
        reference_activation=None,
        predicted=None,
        references=(),
        method="vital",
        settings={},
        seed=0,
        model=ModelRecord("stub", "", ()),
        steps=1,
        total=1,
        profile=profile,
    )


def test_the_command_line_has_all_of_it(folder: Path, tmp_path: Path) -> None:
    model = ["--model", "timm:resnet10t@untrained", "--references", str(folder), "--steps", "2", "--progress", "none"]
    out = tmp_path / "out"
    arguments = ["class:1", "--variants", "2", "--diversity", "1", "--frames", "3", "--size", "32", "--out", str(out)]
    assert run(["visualize", *arguments, *model]) == 0
    document = json.loads((out / "result.json").read_text())
    entries = document["visualizations"]
    assert [entry["variant"]["number"] for entry in entries] == [1, 2]
    assert all((out / entry["animation"]).exists() for entry in entries) and (out / "sheet.png").exists()
    out = tmp_path / "start"
    arguments = ["class:1", "--start", str(folder / "0.png"), "--strengths", "1,2", "--size", "32", "--out", str(out)]
    assert run(["visualize", *arguments, *model]) == 0
    entries = json.loads((out / "result.json").read_text())["visualizations"]
    assert [entry["strength"] for entry in entries] == [1, 2]
    out = tmp_path / "map"
    units = ["class:0", "class:1", "class:2", "class:3", "class:4"]
    assert run(["visualize", *units, "--map", "--size", "32", "--out", str(out), *model]) == 0
    with Image.open(out / "map.png") as sheet:
        assert sheet.size == (288, 192)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strengths": (2.0,)}, "strengths go with start"),
        ({"diversity": 1.0}, "diversity goes with variants"),
        ({"n_variants": 1}, "n_variants"),
        ({"start": "x.png", "strengths": (0.0,)}, "above 0"),
        ({"start": "x.png", "strengths": (1.0, 1.0)}, "twice"),
        ({"start": "x.png", "n_variants": 2}, "begin with noise"),
        ({"frames": -1}, "frames"),
    ],
)
def test_what_does_not_go_together_is_refused(
    encoder: Encoder, folder: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        visualize(encoder, "class:1", folder, **settings)
