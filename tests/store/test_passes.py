"""A pass: shards of a source add up to the whole, bit for bit where sums are exact."""

from __future__ import annotations

import numpy as np
import pytest

from encoscope.errors import UsageError
from encoscope.probing.run import ChannelSummary
from encoscope.store.passes import WHOLE, Shard, merge_partials, run_pass


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
