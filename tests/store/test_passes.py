"""A pass: shards of a source add up to the whole, bit for bit where sums are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoscope.errors import UsageError
from encoscope.probing.cutting import Patch
from encoscope.probing.patches import TopPatches
from encoscope.probing.probe_pass import ChannelSummary
from encoscope.store.passes import WHOLE, Mean, Shard, merge_partials, run_pass
from encoscope.vital.references.statistics import PrototypeSums


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_add_up_to_the_whole(count: int) -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(7, 3)).astype(np.float32), np.arange(7 * i, 7 * i + 7)) for i in range(9)]

    def source(shard: Shard):
        return shard.select(batches)

    whole = run_pass(source, ChannelSummary(3)).finalize()
    shards = [run_pass(source, ChannelSummary(3), Shard(index, count)) for index in range(count)]
    merged = merge_partials(reversed(shards)).finalize()
    for first, second in zip(whole, merged, strict=True):
        np.testing.assert_array_equal(first, second, strict=True)
    values = np.concatenate([values for values, _ in batches])
    np.testing.assert_allclose(whole[0], values.mean(0, dtype=np.float64), rtol=1e-12)


def test_shards_that_cannot_be() -> None:
    assert list(WHOLE.select("abc")) == ["a", "b", "c"]
    for index, count in ((3, 3), (-1, 2), (0, 0)):
        with pytest.raises(UsageError, match="shard"):
            Shard(index, count)
    with pytest.raises(UsageError, match="no shards"):
        merge_partials([])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_top_patches_are_the_same_from_any_shards(count: int) -> None:
    rng = np.random.default_rng(1)
    corners = [(0, 0), (0, 4), (4, 0)]
    values = rng.integers(0, 4, (40, 3, 2)).astype(np.float32)  # many ties
    names = [f"{number:02d}" for number in rng.permutation(40)]
    batches = [
        ([Patch(name, f"{name}.png", (0, 0, 3, 3), 0.0, corner, 4) for corner in corners], scores)
        for name, scores in zip(names, values, strict=True)
    ]
    chosen = [set(names), set(names[:30])]
    shards = [
        run_pass(lambda shard: shard.select(batches), TopPatches(2, 6, chosen), Shard(index, count))
        for index in range(count)
    ]
    for unit, patches in enumerate(merge_partials(reversed(shards)).finalize()):
        expected = sorted(
            (-float(values[row, :, unit].max()), name, corners[int(values[row, :, unit].argmax())])
            for row, name in enumerate(names)
            if name in chosen[unit]
        )[:6]
        assert [(-patch.score, patch.id, patch.corner) for patch in patches] == expected


@pytest.mark.parametrize("count", [1, 3])
def test_statistics_of_references_are_the_same_from_any_shards(count: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(11, 5, 6)
    batches = [({"a": maps[i : i + 1]}, None, torch.ones(1), None, [f"{i}"]) for i in range(11)]
    shards = [
        run_pass(lambda shard: shard.select(batches), PrototypeSums(), Shard(index, count)) for index in range(count)
    ]
    sums = merge_partials(reversed(shards))
    assert (sums.count, sums.names) == (11, {str(i) for i in range(11)})
    expected = maps.double().sort(2).values.mean(0)
    np.testing.assert_allclose(sums.finalize().values["a"].numpy(), expected.numpy(), rtol=1e-6)


def test_a_mean_needs_something() -> None:
    merged = merge_partials([Mean(), Mean().partial_fit(np.array([1.0, 5.0]), 2), Mean()])
    np.testing.assert_array_equal(merged.finalize(), [0.5, 2.5])
    with pytest.raises(UsageError, match="nothing was added"):
        Mean().finalize()
