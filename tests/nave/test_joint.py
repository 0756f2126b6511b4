"""Many images at once: one process and many, cached and not, interrupted and not give the same clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import encoscope
from encoscope.errors import EncoscopeError, ImageError, UsageError
from encoscope.images import read_image
from encoscope.nave import LloydSums, Nave, PixelSample
from encoscope.nave import joint as joint_module
from encoscope.nave.features import encode_images
from encoscope.nave.settings import NaveSettings
from oracles import nave as oracle

SIZE = 48


@pytest.fixture(scope="module")
def encoder():
    return encoscope.load("timm:resnet10t@untrained")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def paths(image_paths):
    return list(image_paths.values())


def matrix_of(encoder, paths):
    """U of all images, literally, float64."""
    settings = NaveSettings.of(encoder, "paper", size=SIZE)
    rows = []
    for path in paths:
        (maps,) = encode_images(encoder, [read_image(path)], settings)
        grid = maps.grid("first-layer")
        valid = maps.geometries[0].valid_cells(grid)
        whole = oracle.composite_matrix([layer[0].double() for layer in maps.layers], grid)
        rows.append(whole.reshape(*grid, -1)[: valid[0], : valid[1]].reshape(valid[0] * valid[1], -1))
    return np.concatenate(rows)


def test_joint_kmeans_equals_scikit_learn_on_all_pixels(encoder, paths):
    matrix = matrix_of(encoder, paths)
    fit = Nave(encoder, preset="paper", n_clusters=4, size=SIZE, feature_cache="fp32", tol=0, n_sample=50).fit(paths)
    assert fit.n_iter_ > 1  # the start came from 50 pixels only
    labels, inertia = oracle.kmeans_from(matrix, fit.centroids_)
    assert fit.inertia_ == pytest.approx(inertia, rel=1e-5)
    found = np.concatenate([seg.grid_labels.ravel() for seg in fit.predict(paths)])
    assert (found == labels).mean() >= 0.999
    assert fit.counts_.sum() == len(matrix)
    assert (np.diff(fit.counts_) <= 0).all()


def test_cache_or_not_gives_the_same(encoder, paths):
    fits = {
        cache: Nave(encoder, preset="paper", n_clusters=3, size=SIZE, feature_cache=cache, n_sample=200).fit(paths)
        for cache in ("fp32", "fp16", "none")
    }
    np.testing.assert_allclose(fits["none"].centroids_, fits["fp32"].centroids_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(fits["fp16"].centroids_, fits["fp32"].centroids_, rtol=0.05, atol=1e-4)
    assert fits["fp16"].inertia_ == pytest.approx(fits["fp32"].inertia_, rel=1e-2)


def test_workers_add_up_to_one_process(encoder, paths):
    settings = NaveSettings.of(encoder, "paper", size=SIZE)
    parts = []
    for share in (paths[:2], paths[2:]):
        sample = PixelSample(100, random_state=1)
        features = []
        for path in share:
            photo = read_image(path)
            (maps,) = encode_images(encoder, [photo], settings)
            features.append(maps.features(settings))
            sample.partial_fit(features[-1], [photo.id])
        parts.append((sample, features))
    (first, ours), (second, theirs) = parts
    one = PixelSample(100, random_state=1)
    for share, path in zip([*theirs, *ours], [*paths[2:], *paths[:2]], strict=True):
        one.partial_fit(share, [read_image(path).id])
    merged = first.merge(second).finalize().dense()[0]
    torch.testing.assert_close(merged, one.finalize().dense()[0])
    assert len(merged) == 100

    start = merged[:5]
    single = LloydSums(start)
    for share in [*ours, *theirs]:
        single.partial_fit(share)
    left, right = LloydSums(start), LloydSums(start)
    for share in ours:
        left.partial_fit(share)
    for share in theirs:
        right.partial_fit(share)
    torch.testing.assert_close(left.merge(right).finalize(), single.finalize(), rtol=1e-10, atol=0)
    assert left.inertia == pytest.approx(single.inertia, rel=1e-10)
    with pytest.raises(ValueError, match="other centroids"):
        left.merge(LloydSums(merged[5:10]))


def test_an_interrupted_fit_goes_on_to_the_same_result(encoder, paths, cache, monkeypatch):
    options = {"n_clusters": 4, "size": SIZE, "n_sample": 60, "tol": 0, "batch_size": 1}
    whole = Nave(encoder, preset="paper", **options).fit(paths)
    assert not list(cache.rglob("*.npy"))  # spilled maps go when the fit is done

    def stop_after(images):
        yield from images[:3]
        raise KeyboardInterrupt

    passes = count_passes(encoder)
    with pytest.raises(KeyboardInterrupt):
        Nave(encoder, preset="paper", **options).fit(stop_after(paths))
    assert passes() == 3
    original = joint_module.LloydSums.finalize
    calls = []

    def finalize(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(joint_module.LloydSums, "finalize", finalize)
        Nave(encoder, preset="paper", **options).fit(paths)
    assert passes() == len(paths)
    again = Nave(encoder, preset="paper", **options).fit(paths)
    assert passes(done=True) == len(paths)  # no image was encoded twice
    np.testing.assert_allclose(again.centroids_, whole.centroids_, rtol=1e-9, atol=1e-12)
    assert again.n_iter_ == whole.n_iter_


def count_passes(encoder):
    seen = []
    handle = encoder.module.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    encoder.trial()
    seen.clear()

    def count(*, done=False):
        if done:
            handle.remove()
        return sum(seen)

    return count


def test_encoder_passes(encoder, paths):
    count = count_passes(encoder)
    fit = Nave(encoder, preset="paper", n_clusters=3, size=SIZE, n_sample=50).fit(paths)
    fit.predict(paths)
    assert count() == 2 * len(paths)
    uncached = Nave(encoder, preset="paper", n_clusters=3, size=SIZE, n_sample=50, feature_cache="none", tol=0).fit(
        paths
    )
    uncached.predict(paths)
    assert count(done=True) <= (2 + 20) * len(paths)
    assert uncached.n_iter_ > 1


def test_ward_jointly_at_every_granularity(encoder, paths):
    matrix = matrix_of(encoder, paths)
    fit = Nave(encoder, preset="paper", n_clusters=5, size=SIZE, grouping="ward", feature_cache="fp32").fit(paths)
    assert fit.counts_.sum() == len(matrix)
    found = np.concatenate([seg.grid_labels.ravel() for seg in fit.predict(paths)])
    literal = oracle.ward(matrix, 5)
    assert adjusted_rand_score(found, literal) > 0.3  # micro-clusters first: near, not equal
    means = np.stack([matrix[found == k].mean(0) for k in range(5)])
    assert fit.inertia_ == pytest.approx(((matrix - means[found]) ** 2).sum(), rel=0.05)
    coarse = fit.at(3)
    for fine_seg, coarse_seg in zip(fit.predict(paths), coarse.predict(paths), strict=True):
        for k in range(5):
            assert len(np.unique(coarse_seg.labels[fine_seg.labels == k])) <= 1
    with pytest.raises(UsageError, match="ward"):
        Nave(encoder, preset="paper", n_clusters=3, size=SIZE).fit(paths[:1]).at(2)


def test_save_and_load(encoder, paths, tmp_path):
    for grouping in ("kmeans", "ward"):
        fit = Nave(encoder, preset="paper", n_clusters=4, size=SIZE, grouping=grouping).fit(paths[:3])
        again = Nave.load(fit.save(tmp_path / grouping), encoder)
        for ours, theirs in zip(fit.predict(paths), again.predict(paths), strict=True):
            np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert again.inertia_ == fit.inertia_
        assert again.layers_ == fit.layers_ == ("layer2", "layer3", "layer4")
        assert [part.shape for part in again.centroids.values()] == [(4, 128), (4, 256), (4, 512)]
    with pytest.raises(EncoscopeError, match="other weights"):
        Nave.load(tmp_path / "ward", encoscope.load("timm:resnet10t@untrained", random_state=1))


def test_automatic_number(encoder, paths):
    fit = Nave(encoder, preset="paper", n_clusters="auto", size=SIZE).fit(paths[:2])
    assert 3 <= fit.codebook_.n_clusters <= 10


def test_the_same_image_twice_counts_twice(encoder, paths):
    once = Nave(encoder, preset="paper", n_clusters=3, size=SIZE).fit(paths[:1])
    twice = Nave(encoder, preset="paper", n_clusters=3, size=SIZE).fit([paths[0], paths[0]])
    assert twice.counts_.sum() == 2 * once.counts_.sum()
    assert twice.n_images_ == 2


def test_refusals(encoder, paths, tmp_path, caplog):
    with pytest.raises(UsageError, match="one-shot"):
        Nave(encoder, preset="paper", feature_cache="none").fit(iter(paths))
    for wrong in ({"grouping": "pca"}, {"n_clusters": 0}, {"feature_cache": "fp64"}, {"n_clusters": 1000, "size": 32}):
        with pytest.raises(UsageError):
            Nave(encoder, preset="paper", **({"size": SIZE} | wrong)).fit(paths[:1])
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ImageError, match="nothing to cluster"):
        Nave(encoder, preset="paper", size=SIZE).fit([tmp_path / "bad.png"])
    fit = Nave(encoder, preset="paper", n_clusters=2, size=SIZE).fit([tmp_path / "bad.png", paths[0]])
    assert [item.path for item in fit.skipped_] == [str(tmp_path / "bad.png")]
    assert "bad.png" in caplog.text
