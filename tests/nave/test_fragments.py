"""Small regions join the region beside them that they resemble most, as a literal slow version does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import encoscope
from encoscope.errors import UsageError
from encoscope.nave.composite import compose_features
from encoscope.nave.fragments import join_fragments
from oracles import fragments as oracle


@pytest.mark.parametrize("seed", range(8))
def test_joining_equals_the_literal_version(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (int(side) for side in rng.integers(3, 12, 2))
    labels = rng.integers(0, 2 + seed % 4, (rows, columns))
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(1, 5, size, size + 1, generator=generator, dtype=torch.float64) for size in (6, 3)]
    features = compose_features(maps, (rows, columns))
    for share in (0.02, 0.1, 0.3, 1.0):
        joined = join_fragments(labels, features, share)
        np.testing.assert_array_equal(joined, oracle.join(labels, features.dense()[0].numpy(), share))
        sizes = [int(mask.sum()) for mask in oracle.regions_of(joined)]
        assert len(sizes) == 1 or min(sizes) >= share * labels.size
    np.testing.assert_array_equal(join_fragments(labels, features, 0.0), labels)


def test_it_is_a_setting_that_results_record(image_paths) -> None:
    encoder = encoscope.load("timm:resnet10t@untrained")
    options = {"n_clusters": 5, "size": 96, "layers": "layer2"}
    plain = encoscope.segment(encoder, image_paths["coffee"], **options)
    joined = encoscope.segment(encoder, image_paths["coffee"], min_region=0.03, **options)
    assert len(joined.regions()) < len(plain.regions())
    smallest = min(int(mask.sum()) for mask in oracle.regions_of(joined.grid_labels))
    assert smallest >= 0.03 * joined.grid_labels.size
    assert joined.inertia >= plain.inertia
    assert (joined.settings["min_region"], plain.settings["min_region"]) == (0.03, 0.0)
    np.testing.assert_array_equal(joined.at(4).labels, plain.at(4).labels)
    assert joined.at(4).settings["min_region"] == 0.0
    nave = encoscope.Nave(encoder, min_region=0.03, progress=False, **options)
    (together,) = nave.fit_predict([image_paths["coffee"]])
    assert min(int(mask.sum()) for mask in oracle.regions_of(together.grid_labels)) >= 0.03 * joined.grid_labels.size
    with pytest.raises(UsageError, match="min_region would break"):
        encoscope.segment(encoder, image_paths["coffee"], n_clusters=[2, 3], min_region=0.1)
