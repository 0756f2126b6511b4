"""What the presets default, paper and authors are: layers, size, and the authors' own rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import encoscope
from encoscope.discovery.attention import read_attention_keys
from encoscope.errors import UsageError
from encoscope.nave import NaveSettings
from encoscope.nave.composite import compose_features
from encoscope.nave.granularity import find_smallest_drop
from encoscope.nave.kmeans import lloyd
from encoscope.nave.layers import choose_color_layers, choose_layers, choose_size
from oracles import nave as oracle


@pytest.fixture(scope="module")
def cnn():
    return encoscope.load("timm:resnet10t@untrained")


@pytest.fixture(scope="module")
def vit():
    import timm

    return encoscope.Encoder(timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64), size=64)


@pytest.fixture(scope="module")
def dinov2():
    import timm

    shape: dict[str, Any] = {"patch_size": 14, "img_size": 56, "embed_dim": 24, "depth": 2}
    return encoscope.Encoder(
        timm.models.vision_transformer.VisionTransformer(**shape, num_heads=3, num_classes=0), size=56
    )


def test_layers_by_preset(cnn, vit, dinov2) -> None:
    assert choose_layers(cnn, preset="paper") == choose_layers(cnn, preset="authors") == ("layer2", "layer3", "layer4")
    assert choose_layers(vit, preset="paper") == choose_layers(vit, preset="authors") == ("blocks.2",)
    assert choose_layers(dinov2, preset="paper") == ("blocks.1",)
    assert choose_layers(dinov2, preset="authors") == ("norm",)
    assert choose_layers(cnn) == choose_layers(cnn, preset="paper") and choose_layers(dinov2) == ("blocks.1",)
    assert choose_layers(cnn, "layer4, layer2", preset="paper") == ("layer2", "layer4")


def test_the_authors_upsample_dinov2s_tokens_twofold(dinov2, vit) -> None:
    assert NaveSettings.of(dinov2, "authors").resolution == "double"
    assert NaveSettings.of(dinov2, "authors", resolution="first-layer").resolution == "first-layer"
    assert NaveSettings.of(vit, "authors").resolution == "first-layer"
    pixels = np.random.default_rng(0).integers(0, 255, (56, 84, 3), dtype=np.uint8)
    segmentation = encoscope.segment(dinov2, pixels, preset="authors", n_clusters=3)
    assert segmentation.grid_labels.shape == (8, 8)  # twice 4 x 4 patches


def test_the_size_is_twice_the_network_s_own(cnn, vit) -> None:
    assert choose_size(cnn) == NaveSettings.of(cnn).size == NaveSettings.of(cnn, layers="layer2").size == 2 * 176
    assert NaveSettings.of(cnn, size=100).size == 100
    assert NaveSettings.of(cnn, "paper").size == NaveSettings.of(cnn, size="model").size == "model"
    assert choose_size(vit) == NaveSettings.of(vit).size == "model"  # it takes no other
    wide = encoscope.load("timm:resnet10t@untrained", input_size=(64, 96))
    assert choose_size(wide) == 128


def make_vit(side: int, patch: int, dynamic: bool = True) -> encoscope.Encoder:
    from timm.models.vision_transformer import VisionTransformer

    shape: dict[str, Any] = {"patch_size": patch, "img_size": side, "embed_dim": 24, "depth": 3, "num_heads": 2}
    return encoscope.Encoder(VisionTransformer(**shape, num_classes=0, dynamic_img_size=dynamic), size=side)


@pytest.mark.parametrize(
    ("side", "patch", "dynamic", "size", "resolution"),
    [
        (128, 16, True, 384, 56),  # 8 cells: three times
        (160, 16, True, 480, 56),  # 10 cells
        (192, 16, True, 384, 56),  # 12 cells: twice are 24
        (224, 16, False, "model", 56),  # one size alone
        (256, 8, True, 512, "first-layer"),  # 64 cells at that size
        (32, 16, True, 96, 24),  # no more than three times, no cells below 4 pixels
    ],
)
def test_a_network_of_one_coarse_grid_is_shown_more(
    side: int, patch: int, dynamic: bool, size: int | str, resolution: int | str
) -> None:
    settings = NaveSettings.of(make_vit(side, patch, dynamic))
    assert (settings.size, settings.resolution) == (size, resolution)


def test_the_grid_follows_the_size_and_is_the_first_layers_elsewhere(cnn) -> None:
    vit = make_vit(128, 16)
    assert NaveSettings.of(vit, size=1024).resolution == NaveSettings.of(vit, size="native").resolution == "first-layer"
    assert NaveSettings.of(vit, "paper").resolution == NaveSettings.of(cnn).resolution == "first-layer"
    assert (
        NaveSettings.of(vit, "paper").size == "model" and NaveSettings.of(vit, resolution="image").resolution == "image"
    )


def test_colors_are_those_of_late_blocks_on_two_grids(cnn, vit) -> None:
    lite = encoscope.load()
    assert encoscope.FeatureColors(lite).fit(np.zeros((32, 32, 3), np.uint8)).layers_ == ("blocks.4", "blocks.5.3")
    assert choose_color_layers(cnn, None, None) == ("layer2", "layer3")
    assert choose_color_layers(vit, None, "default") == ("blocks.0", "blocks.1")
    assert choose_color_layers(vit, None, "paper") == choose_color_layers(vit, "blocks.2", None) == ("blocks.2",)


def test_presets_differ_where_the_paper_and_its_authors_do() -> None:
    paper, authors = NaveSettings.from_preset("paper"), NaveSettings.from_preset("authors")
    assert (paper.size, paper.weighting, paper.n_init, paper.tolerance) == ("model", "paper", 4, "relative")
    assert (authors.size, authors.n_init, authors.tolerance) == ("model", 1, "absolute")
    assert (NaveSettings().size, NaveSettings().weighting) == ("auto", "equal")


@pytest.mark.parametrize(
    ("inertias", "k"),
    [([10.0, 6.0, 5.9, 3.0], 3), ([8.0, 7.9, 4.0, 2.0], 2), ([9.0, 5.0, 3.0, 2.9], 4), ([1.0, 0.0, 0.0], 3)],
)
def test_the_smallest_drop(inertias: list[float], k: int) -> None:
    numbers = list(range(3, 3 + len(inertias)))
    assert find_smallest_drop(numbers, inertias) == k
    if min(inertias) > 0:
        assert int(np.argmax(np.diff(inertias) / np.array(inertias)[:-1])) + 2 == k


def test_the_smallest_drop_decides_k(cnn, image_paths) -> None:
    options = {"size": 64, "layers": "layer2"}
    curve = [encoscope.segment(cnn, image_paths["coffee"], n_clusters=k, **options).inertia for k in range(3, 11)]
    found = encoscope.segment(cnn, image_paths["coffee"], n_clusters="smallest-drop", **options)
    assert found.n_clusters == find_smallest_drop(range(3, 11), curve)
    with pytest.raises(UsageError, match='n_clusters="smallest-drop" reads k-means inertia'):
        encoscope.segment(cnn, image_paths["coffee"], n_clusters="smallest-drop", grouping="ward")


def test_an_absolute_tolerance_stops_at_once_on_the_papers_weights() -> None:
    """Squared norms are about 1e-5 there, so that centers never move by more."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 3, 144).view(1, 1, 12, 12)
    maps = torch.rand(1, 512, 12, 12, generator=generator) * 0.1
    maps[:, :200] += ramp
    features = compose_features([maps], (12, 12))
    start = features.rows(torch.tensor([[0, 1, 2]])).unsqueeze(1)
    absolute = lloyd(features, start, tol=1e-5, relative=False)
    torch.testing.assert_close(absolute.inertia, lloyd(features, start, max_iter=2).inertia)
    assert lloyd(features, start, tol=1e-5).inertia.item() < 0.99 * absolute.inertia.item()


@pytest.mark.parametrize("resolution", ["first-layer", "double", 10])
def test_attention_heads_as_clusters(vit, resolution) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    found = encoscope.segment(vit, pixels, grouping="attn", resolution=resolution)
    batch = vit.prepare(pixels, geometry="whole")
    attention = read_attention_keys(vit, batch).attention
    assert attention is not None
    heads = attention[0, :, 0, 1:].unflatten(1, (4, 4))
    side = {"first-layer": 4, "double": 8, 10: 10}[resolution]
    if side != 4:
        heads = functional.interpolate(heads[None], size=(side, side), mode="bicubic", align_corners=False)[0]
    largest = heads.argmax(0).numpy()
    assert found.n_clusters == 3
    pairs = set(zip(largest.ravel().tolist(), found.grid_labels.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(largest))  # the same partition, numbered by size


def test_attention_needs_a_class_token(cnn, image_paths) -> None:
    with pytest.raises(UsageError, match="use a vision transformer"):
        encoscope.segment(cnn, image_paths["coffee"], grouping="attn", size=64)
    with pytest.raises(UsageError, match="takes one number"):
        NaveSettings(grouping="attn", n_clusters=(2, 3))
    with pytest.raises(UsageError, match='grouping="kmeans" or "ward"'):
        encoscope.Nave(cnn, grouping="attn").fit([image_paths["coffee"]])


@pytest.mark.parametrize("grid", [(8, 6), (9, 13), (4, 3)])
def test_layers_of_equal_variance(grid) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = [torch.rand(2, 6, 8, 6, generator=generator) + 1, torch.randn(2, 4, 4, 3, generator=generator)]
    maps = [each.double() for each in maps]
    features = compose_features(maps, grid, weighting="variance")
    for image in range(2):
        plain = oracle.composite_matrix([each[image] for each in maps], grid)
        parts = np.split(plain, [6], axis=1)
        expected = [part / np.sqrt(part.var(0).sum()) for part in parts]
        np.testing.assert_allclose(features.dense()[image].numpy(), np.concatenate(expected, axis=1), rtol=1e-8)
    flat = compose_features([maps[0], torch.ones(2, 4, 4, 3).double()], grid, weighting="variance")
    assert not flat.dense()[:, :, 6:].any()
