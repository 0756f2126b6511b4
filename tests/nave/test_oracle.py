"""The fast, implicit form of NAVE against Algorithm 1 written out, on CNN and ViT features of real photos."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import encoscope
from encoscope.nave.composite import compose_features, layer_weights
from encoscope.nave.granularity import compute_inertia, grow_granularity
from encoscope.nave.kmeans import kmeans, kmeans_plusplus, lloyd
from encoscope.nave.pca import pca_labels
from encoscope.nave.ward import ward_tree
from oracles import nave as oracle

CASES = {
    "cnn": ("timm:resnet10t", ["layer1", "layer2", "layer3", "layer4"], (64, 64)),
    "cnn-oblong": ("timm:resnet10t", ["layer2", "layer3", "layer4"], (64, 96)),
    "cnn-trained": ("zoo:resnet-caltech101", ["layer2", "layer3", "layer4"], (96, 64)),
    "vit": ("timm:vit_tiny_patch16_224", ["blocks.11"], (128, 128)),
    "vit-depths": ("timm:vit_tiny_patch16_224", ["blocks.3", "blocks.7", "blocks.11"], (96, 160)),
}


@pytest.fixture(scope="module", params=CASES)
def maps(request, image_paths):
    """Maps of one photo at several depths, float32, [1, C, h, w] each."""
    source, layers, (height, width) = CASES[request.param]
    encoder = encoscope.load(source, untrained=not source.startswith("zoo:"))
    pixels = encoder.prepare(image_paths["china"], geometry="whole").pixels[:, :, :height, :width]
    return [found.maps for found in encoder.activations(pixels, layers).values()]


def at_grids(maps):
    first = tuple(maps[0].shape[2:])
    return [first, (2 * first[0] + 3, 2 * first[1] - 1), (first[0] // 2 + 1, first[1] // 2)]


def test_the_operator_equals_the_matrix(maps):
    doubles = [m.double() for m in maps]
    generator = torch.Generator().manual_seed(0)
    for grid in at_grids(maps):
        matrix = torch.from_numpy(oracle.composite_matrix([m[0] for m in doubles], grid))
        features = compose_features(doubles, grid)
        vectors = torch.randn(1, 3, features.dim, generator=generator, dtype=torch.float64)
        weights = torch.rand(1, 4, features.pixels, generator=generator, dtype=torch.float64)
        chosen = torch.randint(features.pixels, (1, 6), generator=generator)
        close = {"rtol": 1e-9, "atol": 1e-14}
        torch.testing.assert_close(features.dense()[0], matrix, **close)
        torch.testing.assert_close(features.scores(vectors)[0], vectors[0] @ matrix.T, **close)
        torch.testing.assert_close(features.sums(weights)[0], weights[0] @ matrix, **close)
        torch.testing.assert_close(features.rows(chosen)[0], matrix[chosen[0]], **close)
        torch.testing.assert_close(features.gram()[0], matrix @ matrix.T, **close)
        torch.testing.assert_close(features.squared_norms[0], matrix.square().sum(1), **close)


@pytest.mark.parametrize("clusters", [2, 5, 10])
def test_kmeans_from_the_same_centres_equals_scikit_learn(maps, clusters):
    for grid in at_grids(maps)[:2]:
        matrix = oracle.composite_matrix([m[0].double() for m in maps], grid)
        start = kmeans_plusplus(compose_features([m.double() for m in maps], grid), clusters, n_init=1, random_state=3)
        labels, inertia = oracle.kmeans_from(matrix, start[0, 0].numpy())
        exact = lloyd(compose_features([m.double() for m in maps], grid), start, tol=0, max_iter=1000)
        np.testing.assert_array_equal(exact.labels[0].numpy(), labels)
        assert exact.inertia.item() == pytest.approx(inertia, rel=1e-9)
        single = lloyd(compose_features(maps, grid), start.float(), tol=0, max_iter=1000)
        assert (single.labels[0].numpy() == labels).mean() >= 0.999
        assert single.inertia.item() == pytest.approx(inertia, rel=1e-5)


def test_kmeans_is_as_good_as_scikit_learns_own(maps):
    from sklearn.cluster import KMeans

    grid = tuple(maps[0].shape[2:])
    matrix = oracle.composite_matrix([m[0].double() for m in maps], grid) * 100
    theirs = KMeans(5, n_init=4, random_state=0).fit(matrix).inertia_ / 100**2
    assert kmeans(compose_features(maps, grid), 5, random_state=0).inertia.item() <= 1.05 * theirs


def test_ward_ends_on_distances_that_rounding_made_unlike():
    """Matrix products are not symmetric in the last digit: on a plain background chains of ties went in circles."""
    unlike = np.array([[0.0, 3.0, 4.0], [4.0, 0.0, 2.0], [1.0, 4.0, 0.0]])
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("went in circles"))
    signal.alarm(20)  # the failure is a loop without end
    try:
        tree = ward_tree(unlike)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert tree.merges.tolist() == [[0, 2], [1, 3]]
    assert unlike[0, 1] == 3  # the caller's matrix is its own


def test_ward_equals_scikit_learn_at_every_granularity(maps):
    grid = tuple(maps[0].shape[2:])
    matrix = oracle.composite_matrix([m[0].double() for m in maps], grid)
    tree = grow_granularity(compose_features([m.double() for m in maps], grid))
    for clusters in (1, 2, 5, 12):
        labels = tree.cut(clusters)
        assert adjusted_rand_score(oracle.ward(matrix, clusters), labels) == 1
        written = compute_inertia(compose_features([m.double() for m in maps], grid), torch.from_numpy(labels)[None])
        assert tree.inertia(clusters) == pytest.approx(written.item(), rel=1e-6)


def test_pca_equals_scikit_learn(maps):
    for grid in at_grids(maps)[:2]:
        matrix = oracle.composite_matrix([m[0].double() for m in maps], grid)
        labels = pca_labels(compose_features([m.double() for m in maps], grid), 5)
        assert (labels[0].numpy() == oracle.pca(matrix, 5)).mean() >= 0.999


def test_padding_takes_no_part():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 8, 12, 12, generator=generator), torch.randn(1, 16, 6, 6, generator=generator)]
    whole = oracle.composite_matrix([m[0] for m in maps], (12, 12)).reshape(12, 12, -1)
    features = compose_features(maps, (12, 12), valid=(9, 11))
    assert features.grid == (9, 11)
    np.testing.assert_allclose(features.dense()[0].numpy(), whole[:9, :11].reshape(99, -1), rtol=1e-4, atol=1e-7)


def test_all_zero_pixels_stay_zero_and_cluster_together():
    maps = [torch.zeros(1, 4, 6, 6), torch.zeros(1, 8, 3, 3)]
    maps[0][:, 1, :, 3:] = 2.0
    maps[1][:, 2, :, 2:] = 1.0
    found = kmeans(compose_features(maps, (6, 6)), 2)
    labels = found.labels[0].reshape(6, 6)
    assert torch.isfinite(found.centroids).all()
    assert (labels[:, 0] == labels[0, 0]).all()
    assert (labels[:, 5] == labels[0, 5]).all()
    assert labels[0, 0] != labels[0, 5]


def test_more_clusters_than_distinct_pixels_leave_some_empty():
    maps = [torch.ones(1, 4, 5, 5)]
    maps[0][:, 0, :2] = 3.0
    found = kmeans(compose_features(maps, (5, 5)), 4)
    assert len(found.labels.unique()) == 2
    assert found.inertia.item() == pytest.approx(0, abs=1e-7)


def test_a_result_does_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(5, 8, 14, 10, generator=generator), torch.randn(5, 16, 7, 5, generator=generator)]
    together = kmeans(compose_features(maps, (14, 10)), 4, random_state=2)
    for image in range(5):
        alone = kmeans(compose_features([m[image : image + 1] for m in maps], (14, 10)), 4, random_state=2)
        assert torch.equal(alone.labels[0], together.labels[image])
        torch.testing.assert_close(alone.centroids[0], together.centroids[image], rtol=1e-5, atol=1e-8)


def test_weightings():
    assert layer_weights([4, 9], "paper") == (1 / 5, 1 / 10)
    squares = [w**2 for w in layer_weights([256, 512, 1024, 2048], "paper")]
    assert sum(squares[:1]) / sum(squares) > 0.74  # stage 1 of a ResNet-50 holds three quarters of the squared norm
    assert layer_weights([4, 9], "equal") == (0.5**0.5,) * 2
    assert layer_weights([4, 9], (2, 0)) == (2.0, 0.0)
    for wrong in ("papers", (1.0,), (0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(encoscope.errors.UsageError):
            layer_weights([4, 9], wrong)
