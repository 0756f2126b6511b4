"""VITAL against its algorithm written out, and from references to results."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope.encoder import Encoder, load
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import read_image
from encoscope.relevance import compute_relevance
from encoscope.units import channel_unit, direction_unit
from encoscope.vital import Vital, make_contact_sheet, visualize
from encoscope.vital.features import FeatureReader
from encoscope.vital.objective import DistributionObjective
from encoscope.vital.recipes import Recipe, choose_recipe
from encoscope.vital.references.prototypes import compute_prototype, load_prototype, save_prototype
from encoscope.vital.references.references import find_class_references, take_all_references
from encoscope.vital.references.statistics import PrototypeSums, resample_ranks
from encoscope.vital.synthesis.parametrization import pixel_bounds
from encoscope.vital.synthesis.random import make_generators
from oracles import vital as oracle

CLASSES = ("sea_horse", "Leopards", "barrel")


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """Nine small pictures of three labels, smooth noise in three colours."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("Sea horse", "leopards", "barrel")):
        for number in range(3):
            coarse = rng.integers(0, 255, (6, 8, 3))
            coarse[:, :, index] = 250
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(coarse.astype(np.uint8)).resize((64, 48), Image.Resampling.BICUBIC).save(
                folder / name / f"{number}.png"
            )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def resnet():
    import timm

    torch.manual_seed(0)
    return Encoder(timm.create_model("resnet10t", num_classes=3).float(), size=64, classes=CLASSES)


@pytest.fixture(scope="module")
def vit():
    import timm

    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=5, embed_dim=24, num_heads=3, num_classes=3
    )
    return Encoder(network.float(), size=32, classes=CLASSES)


@pytest.fixture(scope="module")
def plain():
    """An untrained network without residual branches or names that a recipe would know."""
    torch.manual_seed(1)
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
        for a, b in ((8, 12), (12, 16))
    ]
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder(nn.Sequential(network, nn.Linear(16, 3)).float(), size=32, classes=CLASSES)


def by_hand(encoder, images, unit, recipe, *, steps, scores=None):
    """The oracle's picture from the same start and the same rolls."""
    (generator,) = make_generators(0, [unit])
    start = torch.randn(3, *encoder.preprocess.size, generator=generator)
    reach = round(30 * encoder.preprocess.size[0] / 224)
    rolls = [tuple(torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()) for _ in range(steps)]
    pixels = torch.cat([encoder.prepare(image).pixels for image in images]).to(start.dtype)
    encoder.module.eval()
    return oracle.visualize(
        encoder.module,
        pixels,
        recipe.layers,
        recipe.weights,
        recipe.tv_weight,
        recipe.l2_weight,
        start,
        rolls,
        *pixel_bounds(encoder.preprocess),
        steps=steps,
        warmup=max(1, round(steps / 20)),
        relevance=scores,
    )


def compare(result, expected, encoder, *, atol, stray=0.0):
    """stray: share of pixels that may differ: where a gradient is nearly 0, rounding decides Adam's first steps."""
    image, attention = expected
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (encoder.preprocess.mean, encoder.preprocess.std))
    shown = (image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    assert (np.abs(result.image - shown) > atol).mean() <= stray
    strength = attention.abs().mean(0)
    strength = strength.clamp(max=float(torch.quantile(strength, 0.98)))
    assert (np.abs(result.transparency - (strength / strength.max()).numpy()) > atol).mean() <= stray


@pytest.fixture
def double():
    """Double precision: twenty steps of Adam blow up differences of rounding 10,000 times."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["resnet", "vit", "plain"])
def test_twenty_steps_are_algorithm_1(name, image_folder, request, double):
    encoder = request.getfixturevalue(name)
    encoder = Encoder(copy.deepcopy(encoder.module).double(), size=32, classes=CLASSES)
    vital = Vital(encoder, "class:leopards", preset="paper", steps=20).fit(image_folder)
    (result,) = vital.synthesize()
    recipe = vital.targets_[0].recipe
    expected = by_hand(encoder, sorted((image_folder / "leopards").iterdir()), "class:leopards", recipe, steps=20)
    compare(result, expected, encoder, atol=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.module.modules())


def test_twenty_steps_on_a_trained_network(data_root, double):
    encoder = load("zoo:resnet-caltech101")
    encoder.module.double()
    images = sorted((data_root / "caltech101/101_ObjectCategories/sunflower").iterdir())[:3]
    vital = Vital(encoder, "class:sunflower", preset="paper", steps=20, tv_weight=1e-4, l2_weight=1e-4)
    vital.fit([str(image) for image in images])
    (result,) = vital.synthesize()
    expected = by_hand(encoder, images, "class:sunflower", vital.targets_[0].recipe, steps=20)
    compare(result, expected, encoder, atol=1e-5)


def test_two_steps_in_single_precision(resnet, image_folder):
    vital = Vital(resnet, "class:leopards", preset="paper", steps=2).fit(image_folder)
    (result,) = vital.synthesize()
    recipe = vital.targets_[0].recipe
    expected = by_hand(resnet, sorted((image_folder / "leopards").iterdir()), "class:leopards", recipe, steps=2)
    compare(result, expected, resnet, atol=5e-3, stray=0.05)


def test_a_channel_is_matched_with_relevance(resnet, image_folder):
    """Activation times relevance, of the references once and of the picture in each step, as algorithm 1 says."""
    pixels = torch.cat([resnet.prepare(str(path)).pixels for path in image_folder.rglob("*.png")])
    unit = f"layer4:{int(resnet.activations(pixels, 'layer4')['layer4'].maps.mean((0, 2, 3)).argmax())}"
    vital = Vital(resnet, unit, preset="paper", steps=2, relevance="lrp", n_references=4)
    references = take_all_references(image_folder, vital_unit(resnet, unit))
    recipe = choose_recipe(resnet, vital_unit(resnet, unit), relevance=True)
    assert recipe.layers == ("conv1", "layer1", "layer2", "layer3")
    statistics = compute_prototype(FeatureReader(resnet, recipe.layers, "lrp"), references, vital_unit(resnet, unit))
    (result,) = vital.fit({unit: statistics}).synthesize()

    def scores(pixels):
        maps = compute_relevance(resnet, pixels, vital_unit(resnet, unit), recipe.layers, "lrp")
        return {name: each.flatten(2) for name, each in maps.items()}

    images = [item.source for item in references.items]
    pixels = torch.cat([resnet.prepare(image).pixels for image in images])
    maps, matters = resnet.activations(pixels, recipe.layers), scores(pixels)
    shares = [
        (maps[name].maps.flatten(2) * matters[name]).square().mean() / maps[name].maps.square().mean()
        for name in recipe.layers
    ]
    assert all(float(share) < 1e-3 for share in shares)
    weights = tuple(weight / float(share) for weight, share in zip(recipe.weights, shares, strict=True))
    recipe = replace(recipe, weights=weights)  # so that the layers' losses are of the activations' own scale
    compare(result, by_hand(resnet, images, unit, recipe, steps=2, scores=scores), resnet, atol=5e-3, stray=0.05)


def test_a_silent_unit_is_matched_as_if_all_had_the_usual_relevance(resnet, image_folder):
    """Without relevance there is no gradient: only the images on which a unit is silent are matched another way."""
    unit, layers, silent = vital_unit(resnet, "layer4:0"), ("conv1", "layer2"), torch.tensor([True, False])

    def scores(encoder, pixels, unit, layers):
        maps = {name: each.maps for name, each in encoder.activations(pixels, layers).items()}
        heard = (1 - silent.float()[:, None, None, None]) if len(pixels) == 2 else 1.0
        return {name: heard * torch.full_like(each, 0.01) for name, each in maps.items()}

    reader = FeatureReader(resnet, layers, scores)
    statistics = compute_prototype(reader, take_all_references(image_folder, unit), unit, cache=False)
    recipe = Recipe("two layers", layers, (1.0, 1.0), 0.0, 0.0)
    aligned = DistributionObjective(reader, [unit, unit], [statistics, statistics], recipe)
    start = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = start.clone().requires_grad_(True)
    loss = aligned(images, slice(0, 2)).main
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()
    silent = torch.tensor([False, False])
    heard = aligned(start, slice(0, 2)).main
    # this relevance is the same everywhere, and so it is its own usual value
    torch.testing.assert_close(loss, heard, rtol=1e-4, atol=1e-6)


def vital_unit(encoder, text):
    from encoscope.units import parse_unit

    return parse_unit(text, encoder)


def test_statistics_are_streamed_merged_and_read_back(resnet, image_folder, tmp_path):
    unit = vital_unit(resnet, "class:barrel")
    references = take_all_references(image_folder, unit)
    reader = FeatureReader(resnet, ("conv1", "layer4"))
    one = compute_prototype(reader, references, unit, batch_size=1, cache=False)
    all_ = compute_prototype(reader, references, unit, batch_size=9, cache=False)
    pixels = torch.cat([item.input(resnet) for item in references.items])
    literal = {
        name: maps.maps.flatten(2).sort(2).values.mean(0)
        for name, maps in resnet.activations(pixels, reader.layers).items()
    }
    halves = [PrototypeSums(), PrototypeSums()]
    for half, part in zip(halves, (pixels[:4], pixels[4:]), strict=True):
        seen = reader.read_references(part, unit)
        half.partial_fit(seen.values, seen.peaks, seen.activation)
    merged = halves[0].merge(halves[1]).finalize()
    for name in reader.layers:
        for result in (one, all_, merged):
            torch.testing.assert_close(result.values[name], literal[name], atol=1e-5, rtol=1e-5)
    assert one.activation == pytest.approx(float(resnet.logits(pixels)[:, 2].mean()), abs=1e-5)
    back = load_prototype(save_prototype(one, tmp_path / "s.safetensors"))
    assert (back.references, back.count, back.activation) == (one.references, 9, one.activation)
    assert all(torch.equal(back.values[name], one.values[name]) for name in reader.layers)


def test_statistics_are_kept_by_content(resnet, image_folder, monkeypatch):
    unit = vital_unit(resnet, "class:barrel")
    references = find_class_references(image_folder, resnet, unit)
    result = compute_prototype(FeatureReader(resnet, ("layer4",)), references, unit)
    monkeypatch.setattr(FeatureReader, "read_references", None)  # would fail if it were asked
    again = compute_prototype(FeatureReader(resnet, ("layer4",)), references, unit)
    assert torch.equal(result.values["layer4"], again.values["layer4"])


def test_labels_match_class_names_and_results_say_what_was_not_there(resnet, image_folder, tmp_path):
    unit = vital_unit(resnet, "class:sea horse")
    result = find_class_references(image_folder, resnet, unit, count=50)
    assert len(result) == 3
    assert result.notes == ("3 references where 50 were asked for",)
    two = find_class_references(image_folder, resnet, unit, count=2, random_state=1)
    files = sorted((image_folder / "Sea horse").iterdir(), reverse=True)
    flat = find_class_references([str(file) for file in files], resnet, unit, count=2, random_state=1)
    assert flat.names == two.names  # which ones are taken depends on contents and seed
    assert "all 3 count as class:sea horse" in flat.notes[0]
    in_memory = find_class_references([read_image(file).pixels for file in files], resnet, unit)
    assert len(in_memory) == 3
    with pytest.raises(MissingError, match="no image labelled 'barrel'"):
        (tmp_path / "x" / "sea_horse").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "x" / "sea_horse" / "a.png")
        find_class_references(tmp_path / "x", resnet, vital_unit(resnet, "class:barrel"))


@pytest.mark.parametrize("form", ["folder of labels", "files without labels", "in memory"])
@pytest.mark.parametrize("count", [1, 4, 50])
def test_top_references_are_those_of_the_highest_logits(resnet, image_folder, form, count):
    files = sorted(image_folder.rglob("*.png"))
    twice = [str(file) for file in [*files, files[3]]]
    source = {"folder of labels": image_folder, "files without labels": twice}.get(
        form, [read_image(file).pixels for file in files]
    )
    logits = np.stack([resnet.module.eval()(resnet.prepare(file).pixels)[0].detach().numpy() for file in files])
    for index in range(3):
        unit = vital_unit(resnet, f"class:{index}")
        result = find_class_references(source, resnet, unit, select="top", count=count)
        best = np.argsort(-logits[:, index], kind="stable")[:count]
        shown = [item.input(resnet) for item in result.items]
        assert len(shown) == min(count, 9)
        for pixels, row in zip(shown, best, strict=True):
            assert torch.equal(pixels, resnet.prepare(files[row]).pixels)
        taken = int((logits[best].argmax(1) == index).sum())
        note = result.notes[0]
        assert "selected by the network itself, not by labels" in note
        assert note.endswith(f"it takes {taken} of them for this class")
        assert f"{len(best)} of 9 images for class:{index}, logits {logits[best[0], index]:.3g} to" in note


def test_top_references_shape_the_result_and_are_recorded(resnet, image_folder):
    shown = {
        select: visualize(resnet, "class:1", image_folder, select=select, n_references=3, steps=1)
        for select in ("labels", "top")
    }
    top = shown["top"]
    assert top.settings["select"] == "top" and shown["labels"].settings["select"] == "labels"
    values = [float(resnet.logits(resnet.prepare(file).pixels)[0, 1]) for file in image_folder.rglob("*.png")]
    assert top.reference_activation == pytest.approx(np.mean(sorted(values)[-3:]), rel=1e-4, abs=1e-7)
    assert top.reference_activation > shown["labels"].reference_activation
    assert top.n_references == 3
    assert top.reference_line == (
        f"3 references with a mean activation of {top.reference_activation:.3g}; this image has {top.activation:.3g}"
    )
    assert not visualize(resnet, "class:1", method="fourier", steps=1).reference_line
    with pytest.raises(UsageError, match="the top images are selected among real images"):
        visualize(resnet, "class:1", None, select="top")
    with pytest.raises(UsageError, match="select is one of labels, top"):
        visualize(resnet, "class:1", image_folder, select="best")
    with pytest.raises(UsageError, match="select goes with method vital, not with fourier"):
        visualize(resnet, "class:1", select="top", method="fourier")


def test_units_inside_have_top_patches_and_facets(resnet, image_folder):
    units = ["layer3:1", "layer3:1,4", "features:3"]
    vital = Vital(resnet, units, steps=2, n_references=3, patch_size=32, relevance="gradient-input").fit(image_folder)
    assert [target.recipe.layers[-1] for target in vital.targets_] == ["layer2", "layer2", "layer4"]
    assert all("@" in name for target in vital.targets_ for name in target.prototype.references)
    facets = Vital(resnet, "layer3:1", steps=1, n_references=2, n_facets=2, patch_size=32, relevance="none")
    facets.fit(image_folder)
    assert [target.name for target in facets.targets_] == ["layer3:1#1", "layer3:1#2"]
    names = [set(target.prototype.references) for target in facets.targets_]
    assert not names[0] & names[1]
    first, second = facets.synthesize()
    assert first.unit == second.unit == "layer3:1"
    assert first.entry()["facet"] == {"number": 1, "of": 2}
    assert not np.array_equal(first.image, second.image)


def test_directions_and_tokens(resnet, vit, image_folder):
    direction = np.zeros(resnet.layer("layer3").channels)
    direction[3] = 1.0
    unit = direction_unit("layer3", direction, "ears")
    (result,) = Vital(resnet, unit, steps=2, n_references=3, patch_size=32).fit(image_folder).synthesize()
    assert result.unit == "ears"
    assert result.settings["relevance"] == "lrp"
    hidden = Vital(vit, ["blocks.3.mlp.act:5", "blocks.4@cls:2"], steps=2, n_references=3, patch_size=16)
    hidden.fit(image_folder)
    for target, picture in zip(hidden.targets_, hidden.synthesize(), strict=True):
        assert target.relevance is None and target.recipe.layers[-1] == target.unit.layer
        assert not any("extension" in note for note in picture.notes)
    paper = Vital(vit, "blocks.4@cls:2", preset="paper", steps=2, n_references=3, patch_size=16).fit(image_folder)
    (target,) = paper.targets_
    (picture,) = paper.synthesize()
    assert target.relevance == "lrp" and "blocks.4" not in target.recipe.layers
    assert any("extension" in note for note in picture.notes)


def test_authors_preset_scales_relevance_and_weighs_channels(resnet, image_folder):
    vital = Vital(resnet, "layer4:0", steps=2, n_references=3, patch_size=32, preset="authors").fit(image_folder)
    weights = vital.targets_[0].prototype.channel_weights
    assert weights is not None
    assert all(float(each.min()) >= 0 and float(each.max()) <= 1 for each in weights.values())
    assert all("@" not in name for name in vital.targets_[0].prototype.references)  # whole images
    scaled = FeatureReader(resnet, ("layer3",), "lrp", scaled=True).read_references(
        torch.randn(1, 3, 64, 64), vital.targets_[0].unit
    )
    maps = resnet.activations(torch.randn(1, 3, 64, 64), "layer3")["layer3"].maps
    assert scaled.values["layer3"].shape == maps.flatten(2).shape
    assert vital.synthesize()[0].settings["tv_weight"] == pytest.approx(1e-5)


def test_a_picture_does_not_depend_on_its_batch(resnet, image_folder):
    units = ["class:leopards", "class:barrel", "class:sea horse"]
    together = Vital(resnet, units, steps=6, batch_size=3).fit(image_folder).synthesize()
    alone = Vital(resnet, units[1], steps=6).fit(image_folder).synthesize()
    assert np.array_equal(together[1].image, alone[0].image)
    other = Vital(resnet, units[1], steps=6, random_state=1).fit(image_folder).synthesize()
    assert not np.array_equal(other[0].image, alone[0].image)


def test_results_on_disk(resnet, image_folder, tmp_path):
    result = visualize(resnet, "class:leopards", image_folder, steps=3, random_state=2)
    folder = result.save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert document["format"] == "encoscope.visualization/1"
    assert document["seed"] == 2
    (entry,) = document["visualizations"]
    assert entry["unit"] == "class:leopards"
    assert len(entry["references"]) == 3
    assert entry["predicted"]["class"] in CLASSES
    with Image.open(folder / entry["picture"]) as picture, Image.open(folder / entry["transparent"]) as transparent:
        assert picture.size == transparent.size == (64, 64)
        assert transparent.mode == "RGBA"
    with np.load(folder / entry["every_loss"]) as losses:
        assert losses["loss"].shape == (3,)
        parts = sum(losses[name] for name in losses.files if name != "loss")
        np.testing.assert_allclose(losses["loss"], parts, rtol=1e-5)
    assert result.plot().axes
    assert make_contact_sheet([result, result]).size[0] >= 4 * 240  # each twice: as it is, and what it attended to
    nothing = replace(result, transparency=np.zeros_like(result.transparency)).over_checkerboard
    assert {color for _, color in nothing.getcolors() or ()} == {(200,) * 3, (235,) * 3}
    everything = replace(result, transparency=np.ones_like(result.transparency))
    assert everything.over_checkerboard.tobytes() == everything.transparent.convert("RGB").tobytes()


def test_settings_and_mistakes(resnet, image_folder):
    settings: dict[str, Any] = {"matching": "moments", "layers": ["layer4", "conv1"], "weights": [2, 1]}
    other = Vital(resnet, "class:leopards", steps=1, size=(48, 40), **settings)
    (result,) = other.fit(image_folder).synthesize()
    assert result.image.shape == (48, 40, 3)
    assert result.settings["layers"] == ["conv1", "layer4"]
    assert result.settings["weights"] == [1.0, 2.0]
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"steps": 0}, "class:barrel", "steps is a number from 1 on"),
        ({"relevance": "lpr"}, "class:barrel", "nearest: lrp"),
        ({"layers": ["layer5"]}, "class:barrel", "nearest: layer"),
        ({"layers": ["layer4"]}, "layer3:0", "not below layer3"),
        ({"relevance": "lrp"}, "conv1:0", "none of the layers below"),
        ({}, "layer3:9999", "out of range"),
        ({}, "class:barel", "nearest: barrel"),
    ]
    for settings, unit, message in cases:
        with pytest.raises(UsageError, match=message):
            Vital(resnet, unit, **settings).fit(image_folder)
    with pytest.raises(UsageError, match="call fit"):
        Vital(resnet, "class:barrel").synthesize()
    with pytest.raises(MissingError):
        Vital(resnet, "class:barrel").fit(image_folder / "nowhere")


class Sorted(nn.Module):
    """Hands on its channels in the order of their values, for which LRP has no rule."""

    def forward(self, x):
        return x.sort(1).values


@pytest.mark.parametrize(
    ("relevance", "part", "message"),
    [
        ("lrp", Sorted, r"LRP has no rule for 'sort'.*gradient-input"),
        ("guided-backprop", nn.Tanh, r"guided backprop needs ReLUs.*gradient-input"),
        (lambda _e, pixels, _u, layers: dict.fromkeys(layers, pixels), nn.ReLU, r"gave .* for layer"),
    ],
)
def test_relevance_that_cannot_work_is_refused_before_the_search_for_references(
    relevance, part, message, image_folder, monkeypatch
):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), part(), nn.Conv2d(8, 8, 3, stride=2), part(), nn.Conv2d(8, 4, 3, padding=1)
    )
    encoder = Encoder(network, size=32)

    def search(*_args, **_settings):
        raise AssertionError("searched")

    monkeypatch.setattr("encoscope.vital.estimator.find_patch_references", search)
    with pytest.raises(UsageError, match=message):
        Vital(encoder, "4:1", relevance=relevance, layers=["0", "2"]).fit(image_folder)
    with pytest.raises(AssertionError, match="searched"):
        Vital(encoder, "4:1", preset="paper", layers=["0", "2"]).fit(image_folder)


def test_a_unit_is_matched_on_its_own_layer_too_unless_the_paper_is_followed(resnet, image_folder):
    """So its channel's distribution is that of its references, and so is its activation."""
    settings: dict[str, Any] = {"n_references": 3, "patch_size": 32}
    layers = {}
    for preset, relevance in (("default", None), ("default", "lrp"), ("paper", None), ("paper", "none")):
        vital = Vital(resnet, "layer3:1", preset=preset, relevance=relevance, **settings).fit(image_folder)
        (target,) = vital.targets_
        layers[preset, relevance] = (target.recipe.layers, target.recipe.weights, target.relevance)
        assert (
            (target.recipe.own_weight > 0) == (":unit" in target.prototype.values) == (len(target.recipe.layers) == 4)
        )
    assert layers["default", None] == (("conv1", "layer1", "layer2", "layer3"), (0.1, 1, 1, 1), None)
    assert layers["default", "lrp"] == layers["paper", None] == (("conv1", "layer1", "layer2"), (0.1, 1, 1), "lrp")
    assert layers["paper", "none"] == (("conv1", "layer1", "layer2"), (0.1, 1, 1), None)
    (own,) = Vital(resnet, "layer3:1", **settings).fit(image_folder).targets_
    assert own.references is not None
    pixels = torch.cat([item.input(resnet) for item in own.references.items])
    maps = resnet.activations(pixels, "layer3")["layer3"].maps[:, 1].flatten(1)
    torch.testing.assert_close(own.prototype.values[":unit"], maps.sort(1).values.mean(0, keepdim=True))
    (first,) = Vital(resnet, "conv1:2", **settings).fit(image_folder).targets_
    assert (first.recipe.layers, first.recipe.weights) == (("conv1",), (1.0,))
    (weighted,) = Vital(resnet, "layer3:1", weights=[1, 2, 3, 4], **settings).fit(image_folder).targets_
    assert weighted.recipe.matched == {"conv1": 1, "layer1": 2, "layer2": 3, "layer3": 4, ":unit": 0.1}
    vital = Vital(resnet, ["layer3:1", "layer3:4"], steps=1, batch_size=2, **settings).fit(image_folder)
    together = vital.synthesize()
    (alone,) = Vital(resnet, "layer3:4", steps=1, **settings).fit(image_folder).synthesize()
    np.testing.assert_allclose(together[1].image, alone.image, atol=1e-3)
    assert alone.settings["own_weight"] == 0.1 and ":unit" in alone.losses


def test_a_network_without_a_gradient_is_refused(image_folder):
    class Closed(nn.Module):
        def __init__(self):
            import timm

            super().__init__()
            self.inner = timm.create_model("resnet10t", num_classes=3)

        def forward(self, x):
            return self.inner(x.detach())

    with pytest.raises(EncoscopeError, match="step 1: the network passes no gradient"):
        visualize(Encoder(Closed(), size=32, classes=CLASSES), "class:barrel", image_folder, steps=1)


def test_resampled_statistics_keep_the_distribution():
    values = torch.randn(4, 400).sort(1).values
    for positions in (100, 1600):
        other = resample_ranks(values, positions)
        assert (other.diff(dim=1) >= 0).all()
        assert other.mean(1) == pytest.approx(values.mean(1), abs=0.02)
        assert other.std(1) == pytest.approx(values.std(1), abs=0.02)


def test_the_papers_recipes_inside_a_network():
    import timm

    encoder = Encoder(timm.create_model("densenet121", num_classes=4), size=64, classes=("a", "b", "c", "d"))
    result = choose_recipe(encoder, vital_unit(encoder, "class:3"))
    assert result.layers == ("features.conv0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4)))
    assert (result.weights, result.tv_weight, result.l2_weight) == ((1, 1, 1, 1, 100), 0, 0)
    inner = choose_recipe(encoder, channel_unit(result.layers[-1], 0), relevance=True)
    assert inner.layers == result.layers[:-1] and inner.published
    assert inner.weights[0] == 0.1
    assert inner.tv_weight == 3e-6
    assert choose_recipe(encoder, channel_unit(result.layers[-1], 0), authors=True, relevance=True).tv_weight == 3e-7
