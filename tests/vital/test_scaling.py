"""What has no scale of its own: the pyramid, losses in the references' own, and the paper's networks by their form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Preprocess
from encoscope.units import parse_unit
from encoscope.vital import Vital, visualize
from encoscope.vital.features import FeatureReader
from encoscope.vital.objective import DistributionObjective
from encoscope.vital.recipes import Recipe, find_published_recipe
from encoscope.vital.references.prototypes import load_prototype, save_prototype
from encoscope.vital.references.statistics import ColorStatistics, Prototype, PrototypeSums
from encoscope.vital.scaling import choose_lr, choose_scale, require_spread
from encoscope.vital.settings import VitalSettings
from encoscope.vital.synthesis.parametrization import Pyramid, pixel_bounds, start_pyramid
from encoscope.vital.synthesis.random import make_generators

NUMBERS = {
    "resnet50": ((1, 1, 1, 1, 1), 0),
    "densenet121": ((1, 1, 1, 1, 100), 0),
    "convnext_base": ((10, 1, 1, 1, 1), 0),
    "vit_l_16": ((1, 1, 1, 1, 1), 3e-3),
    "vit_l_32": ((1, 1, 1, 1, 0.1), 3e-4),
}
"""The paper's weights of layers, and of both regularizers."""

COLORS = ColorStatistics((0.1, -0.2, 0.3), ((0.5, 0.2, 0.1), (0.2, 0.4, 0.0), (0.1, 0.0, 0.3)), 1.5)


class Small(nn.Module):
    """Two layers whose activations are as large as ``factor`` says; what follows undoes it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.first.weight *= factor
            self.first.bias *= factor
            self.second.weight /= factor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(pixels).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3)).astype(np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(map(str, folder.iterdir()))


def make_encoder(factor: float = 1.0, std: float = 0.25) -> Encoder:
    return Encoder(Small(factor), size=32, mean=(0.5,) * 3, std=(std,) * 3, classes=("a", "b", "c"))


def test_the_spread_is_the_references_own_loss_and_their_colors_are_measured(files: list[str], tmp_path) -> None:
    vital = Vital(make_encoder(), "class:a", cache=False, progress=False).fit(files)
    (target,) = vital.targets_
    assert target.references is not None
    pixels = torch.cat([item.input(vital.encoder_) for item in target.references.items])
    maps = vital.encoder_.activations(pixels, target.recipe.layers)
    for name in target.recipe.layers:
        values = maps[name].maps.flatten(2).sort(2).values.double()
        losses = (values - values.mean(0)).square().mean((1, 2))  # of each reference
        assert target.prototype.spread is not None
        assert target.prototype.spread[name] == pytest.approx(float(losses.mean()), rel=1e-5)
    colors = target.prototype.colors
    assert colors is not None
    flat = pixels.double().permute(1, 0, 2, 3).flatten(1).numpy()
    np.testing.assert_allclose(colors.mean, flat.mean(1), atol=1e-6)
    np.testing.assert_allclose(colors.covariance, np.cov(flat, bias=True), atol=1e-6)
    root = colors.root().double().numpy()
    np.testing.assert_allclose(root @ root, colors.covariance, atol=1e-6)
    norms = [
        sum(np.sqrt(np.square(a - b).sum()) for a, b in _neighbors(image)) / 32 for image in pixels.double().numpy()
    ]
    assert colors.variation == pytest.approx(np.mean(norms), rel=1e-5)
    back = load_prototype(save_prototype(target.prototype, tmp_path / "s.safetensors"))
    assert back.spread == target.prototype.spread and back.colors == colors
    assert back.digest == target.prototype.digest != replace(back, colors=COLORS).digest


def _neighbors(image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (image[:, :, :-1], image[:, :, 1:]),
        (image[:, :-1], image[:, 1:]),
        (image[:, 1:, :-1], image[:, :-1, 1:]),
        (image[:, :-1, :-1], image[:, 1:, 1:]),
    ]


def test_merged_sums_have_the_spread_and_colors_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {"a": torch.randn(5, 3, 7, generator=generator)}
    images = torch.randn(5, 3, 8, 8, generator=generator)
    whole = PrototypeSums().partial_fit(values, images=images).finalize()
    parts = [
        PrototypeSums().partial_fit({"a": values["a"][part]}, images=images[part])
        for part in (slice(0, 2), slice(2, 5))
    ]
    merged = parts[1].merge(parts[0]).finalize()
    assert merged.spread == pytest.approx(whole.spread)
    assert merged.colors is not None and whole.colors is not None
    np.testing.assert_allclose(merged.colors.covariance, whole.colors.covariance, atol=1e-12)


@pytest.mark.parametrize(("factor", "std"), [(100.0, 0.25), (0.01, 0.25), (1.0, 0.5)])
def test_the_default_gives_the_same_image_whatever_the_scale(files: list[str], factor: float, std: float) -> None:
    """Activations a hundred times as large, and another range of the input with weights that undo it."""
    plain, other = make_encoder(), make_encoder(factor, std)
    if std != 0.25:  # the same function of the image: x / std stays what it was
        with torch.no_grad():
            other.module.first.weight *= std / 0.25  # pyright: ignore[reportAttributeAccessIssue]
    made, again = (
        visualize(encoder, "class:a", files, steps=12, cache=False, progress=False) for encoder in (plain, other)
    )
    np.testing.assert_allclose(made.losses["loss"], again.losses["loss"], rtol=0.02)
    np.testing.assert_allclose(made.image, again.image, atol=0.02)
    published = [
        visualize(encoder, "class:a", files, preset="paper", steps=12, cache=False, progress=False)
        for encoder in (plain, other)
    ]
    assert np.abs(published[0].image - published[1].image).max() > 0.1  # which is what is cured


def test_a_pyramid_is_its_formula_and_has_the_references_colors() -> None:
    preprocess = Preprocess(size=(24, 40), mean=(0.5,) * 3, std=(0.5,) * 3)
    low, high = pixel_bounds(preprocess)
    pyramid = start_pyramid(preprocess, (24, 40), [COLORS], make_generators(0, ["a"]), torch.device("cpu"))
    levels = pyramid.parameters()
    assert [tuple(level.shape[2:]) for level in levels] == [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    summed = sum(
        nn.functional.interpolate(level, (24, 40), mode="bilinear", align_corners=False).detach() for level in levels
    )
    flat = COLORS.root() @ (summed[0] / 6**0.5).flatten(1) + torch.tensor(COLORS.mean)[:, None]
    expected = flat.reshape(3, 24, 40).clamp(low, high)
    torch.testing.assert_close(pyramid.image()[0].detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "gradient", "passes"), [(2, 1, True), (2, -1, False), (-2, -1, True), (0.5, 1, True)]
)
def test_a_value_out_of_range_is_let_back_in(value: float, gradient: float, passes: bool) -> None:
    level = torch.full((1, 1, 1, 1), float(value))
    bounds = torch.full((1, 1, 1), -1.0), torch.full((1, 1, 1), 1.0)
    pyramid = Pyramid([level], torch.zeros(1, 1, 1, 1), torch.eye(1)[None], *bounds)
    image = pyramid.image()
    assert float(image.detach()) == np.clip(value, -1, 1)
    (image * gradient).sum().backward()
    grad = pyramid.parameters()[0].grad
    assert grad is not None and float(grad) == (gradient if passes else 0)


def test_regularizers_count_above_the_references_only(files: list[str]) -> None:
    encoder = make_encoder()
    vital = Vital(encoder, "class:a", parametrization="pixels", cache=False, progress=False).fit(files)
    (target,) = vital.targets_
    assert target.recipe.tv_weight == target.recipe.l2_weight == 3
    assert target.references is not None
    objective = DistributionObjective(
        FeatureReader(encoder, target.recipe.layers), [target.unit], [target.prototype], target.recipe, relative=True
    )
    photo = target.references.items[0].input(encoder)
    flat = torch.zeros_like(photo)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    parts = [objective(image, slice(0, 1)).named for image in (flat, noise)]
    assert float(parts[0]["tv"]) == float(parts[0]["l2"]) == 0
    assert float(parts[1]["tv"]) > 1
    black, white = pixel_bounds(encoder.preprocess)
    settings = VitalSettings.from_preset(parametrization="pixels")
    assert choose_lr(target.recipe, settings, encoder.preprocess) == pytest.approx(float((white - black)[0]) / 10)


def test_a_single_reference_has_no_spread_and_statistics_without_it_are_refused() -> None:
    values = {"a": torch.tensor([[1.0, 3.0]])}
    alone = PrototypeSums().partial_fit({"a": values["a"][None]}).finalize()
    assert alone.spread == {"a": 0.0}
    assert require_spread(alone, "a") == pytest.approx(0.05)
    with pytest.raises(UsageError, match="own loss"):
        require_spread(Prototype(values, 1), "a")
    encoder = make_encoder()
    unit = parse_unit("class:a", encoder)
    fitted = Vital(encoder, unit, cache=False)
    bare = {"class:a": Prototype({"first": torch.zeros(6, 256), "second": torch.zeros(8, 64)}, 1)}
    with pytest.raises(UsageError, match="make them again"):
        fitted.fit(bare)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("resnet50", torchvision.models.resnet50),
        ("resnet50", lambda: timm.create_model("resnet50")),
        ("densenet121", torchvision.models.densenet121),
        ("densenet121", lambda: timm.create_model("densenet121")),
        ("convnext_base", torchvision.models.convnext_base),
        ("convnext_base", lambda: timm.create_model("convnext_base")),
        ("vit_l_16", torchvision.models.vit_l_16),
        ("vit_l_32", torchvision.models.vit_l_32),
        ("vit_l_16", lambda: timm.create_model("vit_large_patch16_224")),
        ("vit_l_32", lambda: timm.create_model("vit_large_patch32_224")),
        (None, torchvision.models.resnet34),
        (None, torchvision.models.resnet101),
        (None, torchvision.models.resnext50_32x4d),
        (None, torchvision.models.wide_resnet50_2),
        (None, torchvision.models.densenet169),
        (None, torchvision.models.convnext_small),
        (None, torchvision.models.convnext_large),
        (None, torchvision.models.vit_b_16),
        (None, lambda: timm.create_model("vit_large_patch14_224")),
    ],
)
def test_the_papers_networks_are_known_by_their_form(name: str | None, build) -> None:
    with torch.device("meta"):
        module = build()
    layers = [layer for layer, _ in module.named_modules()]
    recipe = find_published_recipe(module, layers)
    assert (None if recipe is None else recipe.name) == name
    if recipe is not None:
        assert (recipe.weights, recipe.tv_weight) == NUMBERS[recipe.name]
        settings = VitalSettings.from_preset()
        assert recipe.published and choose_scale(recipe, settings) == "absolute"
        assert choose_lr(recipe, settings, Preprocess()) == 1


def test_another_networks_recipe_is_relative_unless_asked() -> None:
    recipe = Recipe("default", ("a",), (1.0,), 3e-4, 3e-4)
    assert choose_scale(recipe, VitalSettings.from_preset()) == "references"
    assert choose_scale(recipe, VitalSettings.from_preset("paper")) == "absolute"
    assert VitalSettings.from_preset("paper").steps == VitalSettings.from_preset("authors").steps == 2000


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (224, 160)])
def test_a_pyramid_is_the_sum_of_its_resized_levels(size):
    generator = torch.Generator().manual_seed(0)
    sides = [(-(-size[0] // 2**level), -(-size[1] // 2**level)) for level in range(6)]
    levels = [torch.randn(2, 3, *side, generator=generator) for side in sides]
    eye, zero, far = torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3, 1, 1), torch.full((3, 1, 1), 1e3)
    image = Pyramid(levels, zero, eye, -far, far).image()
    resized = [torch.nn.functional.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels]
    torch.testing.assert_close(image, torch.stack(resized).sum(0) / 6**0.5, atol=1e-5, rtol=0)
