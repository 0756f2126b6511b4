"""Single images: geometry, granularities, every kind of input, results that load again, and clear refusals."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import encoscope
from encoscope.encoder import untrained_copy
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import LoadedImage, SkippedImage, read_image
from encoscope.nave import Segmentation, segment_stream
from encoscope.nave.controls import color_control, untrained_control
from encoscope.nave.granularity import find_elbow
from encoscope.nave.layers import choose_layers
from encoscope.nave.stability import compute_agreement, mean_color, measure_stability


@pytest.fixture(scope="module")
def cnn():
    return encoscope.load("timm:resnet10t@untrained")


@pytest.fixture(scope="module")
def vit():
    return encoscope.load("timm:vit_tiny_patch16_224@untrained")


segment = partial(encoscope.segment, preset="paper")
"""Algorithm 1 as written: what is tested here is no matter of the layers and the size that measured best."""


class Colors(nn.Module):
    """A network whose maps are the input itself, pooled: what it parts is known."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.AvgPool2d(4), nn.AvgPool2d(4)
        self.to(torch.float32)

    def forward(self, pixels):
        return self.late(self.early(pixels + 2)).mean((2, 3))


@pytest.fixture(scope="module")
def colors():
    return encoscope.Encoder(Colors(), size=64)


def halves(height, width, left=(255, 0, 0), right=(0, 0, 255)):
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = left, right
    return pixels


@pytest.mark.parametrize(("height", "width"), [(64, 64), (300, 451), (451, 300), (100, 64)])
def test_labels_come_back_on_the_original_pixels(colors, height, width):
    seg = segment(colors, halves(height, width), n_clusters=2, layers="early")
    assert seg.labels.shape == (height, width)
    cell = 4 * min(height, width) / 64
    inner = np.abs(np.arange(width) - width / 2) > 2 * cell
    left, right = (
        seg.labels[:, inner & (np.arange(width) < width / 2)],
        seg.labels[:, inner & (np.arange(width) > width / 2)],
    )
    assert (left == left[0, 0]).all()
    assert (right == right[0, 0]).all()
    assert left[0, 0] != right[0, 0]


def test_padding_is_no_part_of_the_grid(cnn, image_paths):
    seg = segment(cnn, image_paths["chelsea"], size=72)  # 72 x 108, padded to 96 x 128
    assert seg.geometry.canvas == (96, 128)
    assert seg.grid == (12, 16)
    assert seg.grid_labels.shape == (9, 13)


@pytest.mark.parametrize("grouping", ["kmeans", "ward", "pca"])
def test_groupings_on_cnn_and_vit(cnn, vit, image_paths, grouping):
    for encoder in (cnn, vit):
        seg = segment(encoder, image_paths["coffee"], n_clusters=4, grouping=grouping, size=96)
        assert seg.labels.dtype == np.uint8
        assert len(np.unique(seg.labels)) == 4
        again = segment(encoder, image_paths["coffee"], n_clusters=4, grouping=grouping, size=96)
        np.testing.assert_array_equal(seg.labels, again.labels)


def test_clusters_are_numbered_by_size(cnn, image_paths):
    seg = segment(cnn, image_paths["coffee"], n_clusters=6, size=96)
    sizes = np.bincount(seg.grid_labels.ravel(), minlength=6)
    assert (np.diff(sizes) <= 0).all()


def test_resolution(cnn, image_paths):
    shapes = {}
    for resolution in ("first-layer", "image", 10):
        seg = segment(cnn, image_paths["astronaut"], resolution=resolution, size=64, layers="layer3,layer2")
        shapes[resolution] = seg.grid_labels.shape
    assert shapes == {"first-layer": (8, 8), "image": (64, 64), 10: (10, 10)}


def test_several_granularities_nest(cnn, image_paths):
    found = segment(cnn, image_paths["china"], n_clusters=[2, 5, 9], size=96)
    assert [seg.n_clusters for seg in found] == [2, 5, 9]
    for coarse, fine in pairwise(found):
        for cluster in range(fine.n_clusters):
            assert len(np.unique(coarse.grid_labels[fine.grid_labels == cluster])) == 1
        assert fine.inertia < coarse.inertia
    np.testing.assert_array_equal(found[0].at(5).labels, found[1].labels)
    alone = segment(cnn, image_paths["china"], n_clusters=5, size=96)
    np.testing.assert_array_equal(alone.at(9).labels, found[2].labels)
    ward = segment(cnn, image_paths["china"], n_clusters=5, grouping="ward", size=96)
    np.testing.assert_array_equal(ward.at(5).labels, ward.labels)


def test_more_pixels_than_a_tree_holds_go_through_micro_clusters(cnn, image_paths):
    seg = segment(cnn, image_paths["china"], n_clusters=5, grouping="ward", resolution=70, size=96)
    assert seg.grid_labels.size > 4096
    assert 5 < seg.granularity.micro_clusters <= 512
    assert len(np.unique(seg.labels)) == 5
    kmeans = segment(cnn, image_paths["china"], n_clusters=5, resolution=70, size=96)
    assert kmeans.inertia < seg.inertia < 1.3 * kmeans.inertia


def test_automatic_number_of_clusters():
    assert find_elbow([3, 4, 5, 6, 7], [10.0, 4.0, 3.9, 3.8, 3.7]) == 4
    assert find_elbow([3, 4, 5], [2.0, 2.0, 2.0]) == 3
    assert find_elbow([7], [1.0]) == 7


def test_auto_takes_the_elbow(cnn, image_paths):
    auto = segment(cnn, image_paths["coffee"], n_clusters="auto", size=64)
    curve = {k: segment(cnn, image_paths["coffee"], n_clusters=k, size=64).inertia for k in range(3, 11)}
    assert auto.n_clusters == find_elbow(list(curve), list(curve.values()))
    assert auto.inertia == pytest.approx(curve[auto.n_clusters], rel=1e-5)


def test_default_layers(cnn, vit):
    assert choose_layers(cnn, preset="paper") == ("layer2", "layer3", "layer4")
    assert choose_layers(vit, preset="paper") == ("blocks.11",)
    assert choose_layers(cnn, "layer4, layer2") == ("layer2", "layer4")


def test_a_stream_gives_what_single_images_give_whatever_the_batch(cnn, image_paths):
    names = ["chelsea", "coffee", "astronaut", "coffee", "china", "flower"]
    photos = [read_image(image_paths[name]) for name in names]
    items = [*photos[:2], SkippedImage("gone.jpg", "gone.jpg is gone"), *photos[2:]]
    alone = [segment(cnn, photo, size=64, batch_size=1) for photo in photos]
    for batch in (2, 8):
        results = list(segment_stream(cnn, items, preset="paper", size=64, batch_size=batch))
        assert isinstance(results.pop(2), SkippedImage)
        for (photo, seg), name, single in zip(results, names, alone, strict=True):
            assert photo.path == str(image_paths[name])
            np.testing.assert_array_equal(seg.labels, single.labels)
            assert seg.inertia == pytest.approx(single.inertia, rel=1e-5)


def test_kinds_of_input_agree(cnn, image_paths):
    path = image_paths["astronaut"]
    pixels = np.asarray(Image.open(path))
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
    expected = segment(cnn, path, size=64).labels
    for image in (str(path), Image.open(path), pixels, torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        np.testing.assert_array_equal(segment(cnn, image, size=64).labels, expected)
    for several in ([path], dataset, pixels[None]):
        (found,) = segment(cnn, several, size=64)
        np.testing.assert_array_equal(found.labels, expected)


def test_save_and_load(cnn, image_paths, tmp_path):
    seg = segment(cnn, image_paths["chelsea"], size=64)
    again = Segmentation.load(seg.save(tmp_path / "result"))
    np.testing.assert_array_equal(again.labels, seg.labels)
    np.testing.assert_array_equal(again.at(3).labels, seg.at(3).labels)
    assert again.at(3).inertia == seg.at(3).inertia
    assert (again.inertia, again.settings, again.model) == (seg.inertia, seg.settings, seg.model)
    assert again.model.digest == cnn.digest
    np.testing.assert_array_equal(np.asarray(again.overlay()), np.asarray(seg.overlay()))
    (tmp_path / "result" / "arrays.npz").unlink()
    with pytest.raises(EncoscopeError, match=r"arrays\.npz"):
        Segmentation.load(tmp_path / "result")
    with pytest.raises(MissingError):
        Segmentation.load(tmp_path)


def test_pictures(cnn, image_paths, tmp_path):
    seg = segment(cnn, image_paths["chelsea"], size=64)
    assert seg.overlay().size == (451, 300)
    seg.plot().savefig(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size[0] > 600
    assert sum(region.area for region in seg.regions()) == 451 * 300
    assert seg.entry()["regions"][0]["outer_box"][2] < 451


def test_refusals(cnn, image_paths, tmp_path):
    path = image_paths["chelsea"]
    for wrong in (
        {"clusters": 0},
        {"clusters": 257},
        {"clusters": []},
        {"clusters": "many"},
        {"grouping": "dbscan"},
        {"grouping": "pca", "clusters": [2, 3]},
        {"grouping": "ward", "clusters": "auto"},
        {"weighting": "papers"},
        {"weighting": [1.0]},
        {"resolution": 0},
        {"size": "huge"},
        {"n_init": 0},
        {"batch": 0},
        {"layers": "layer3,layer3"},
        {"layers": []},
        {"clusters": 97, "size": 64},
    ):
        with pytest.raises(UsageError):
            segment(cnn, path, **wrong)
    with pytest.raises(UsageError, match=r"nearest: layer"):
        segment(cnn, path, layers="layer9")
    with pytest.raises(MissingError, match="nowhere"):
        segment(cnn, tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="bad"):
        (tmp_path / "bad.png").write_text("no image")
        segment(cnn, [path, tmp_path / "bad.png"], size=64)
    with pytest.raises(UsageError, match="1 to 96"):
        segment(cnn, path, size=64).at(97)


def test_a_folder_with_a_bad_file_goes_on(cnn, image_paths, tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(image_paths["chelsea"].read_bytes())
    (tmp_path / "b.png").write_text("no image")
    (found,) = segment(cnn, tmp_path, size=64)
    assert found.path == str(tmp_path / "a.png")
    assert "b.png" in caplog.text


class Broken(nn.Module):
    """NaN from the second layer on."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.body = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        nn.init.constant_(self.body.weight, float("nan"))

    def forward(self, pixels):
        return self.body(self.stem(pixels)).mean((2, 3))


def test_nan_activations_name_the_layer():
    with pytest.raises(EncoscopeError, match="body"):
        segment(encoscope.Encoder(Broken(), size=32), halves(40, 40), n_clusters=2)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    clusters=st.integers(1, 4),
    layers=st.sampled_from(["early", "late", "early,late"]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.sampled_from([1, 3]),
)
def test_any_image_is_parted_whole(height, width, clusters, layers, dtype, channels):
    encoder = encoscope.Encoder(Colors(), size=32)
    values = np.random.default_rng(height * 91 + width).random((height, width, channels))
    most = 1 if dtype == "float32" else np.iinfo(dtype).max
    seg = segment(encoder, (values * most).astype(dtype), n_clusters=clusters, layers=layers, resolution=4)
    assert seg.labels.shape == (height, width)
    assert seg.labels.max() < clusters
    assert np.isfinite(seg.inertia)
    assert set(np.unique(seg.labels)) <= set(np.unique(seg.grid_labels))


def test_stability(cnn, image_paths):
    photo = read_image(image_paths["chelsea"])
    found = measure_stability(cnn, photo, runs=3, n_clusters=3, size=64)
    assert found.starts.shape == (3,)
    assert found.crops.shape == (4,)
    for figure in (*found.starts, found.flip, *found.crops):
        assert -0.5 <= figure <= 1
    assert found.mean_color.shape == photo.pixels.shape
    assert found.as_dict()["starts"]["min"] == found.starts.min()
    with pytest.raises(UsageError):
        measure_stability(cnn, photo, runs=1)


def test_stability_of_a_certain_answer(colors):
    found = measure_stability(colors, halves(64, 128), runs=2, n_clusters=2, layers="early")
    assert found.starts.min() == 1
    assert found.flip == pytest.approx(1)
    assert found.crops.min() > 0.9
    np.testing.assert_array_equal(np.unique(found.mean_color.reshape(-1, 3), axis=0), [[0, 0, 255], [255, 0, 0]])


def test_agreement_and_mean_color():
    first = np.array([[0, 0, 1, 1]])
    assert compute_agreement(first, 1 - first) == 1
    assert compute_agreement(first, np.array([[0, 1, 0, 1]])) < 0.01
    photo = LoadedImage(np.arange(12, dtype=np.uint8).reshape(1, 4, 3), None, "00")
    np.testing.assert_array_equal(mean_color(photo, [first])[0, 0], [2, 2, 4])  # means 1.5, 2.5, 3.5, half to even


def test_controls(cnn, image_paths):
    photo = read_image(image_paths["chelsea"])
    seg = segment(cnn, photo, n_clusters=3, size=64)
    twin = untrained_copy(cnn, random_state=5)
    assert twin.digest != cnn.digest
    other = untrained_control(twin, photo, seg, size=64)
    assert other.labels.shape == seg.labels.shape
    assert other.n_clusters == 3
    assert compute_agreement(other.labels, seg.labels) < 1
    half = halves(64, 128)
    parted = segment(cnn, half, n_clusters=2, size=64)
    raw = color_control(read_image(half), parted)
    assert len(np.unique(raw.labels[:, :60])) == len(np.unique(raw.labels[:, 68:])) == 1
    assert raw.labels[0, 0] != raw.labels[0, -1]
    with pytest.raises(UsageError, match="untrained control"):
        untrained_copy(encoscope.Encoder(Colors(), size=64))
