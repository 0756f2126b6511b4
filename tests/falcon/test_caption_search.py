"""The scan against a full sort: ties, chunks, shards, softmax over all captions, one read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoscope.errors import UsageError
from encoscope.falcon.captions.search import TopCaptions, find_top_captions, iterate_chunks
from encoscope.falcon.captions.store import CaptionStore
from encoscope.store.passes import Shard, merge_partials, run_pass
from oracles import captions as oracle


class Arrays(CaptionStore):
    """A store of given arrays, a shard each; counts what is read."""

    def __init__(self, *arrays: np.ndarray, normalised: bool = True) -> None:
        vlm = {"source": "test", "digest": "0"}
        shards = [{"embeddings": "-", "captions": "-", "column": "caption", "rows": len(array)} for array in arrays]
        manifest = {"width": arrays[0].shape[1], "normalised": normalised, "vlm": vlm, "hash": "0", "shards": shards}
        super().__init__(Path("nowhere"), manifest)
        self.arrays = arrays
        self.read = 0

    def embeddings(self, shard):
        self.read += 1
        return self.arrays[self.shards.index(shard)]


def random(rows: int, width: int = 32, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


def halves(rows: int, width: int = 32, seed: int = 0) -> np.ndarray:
    """Unit vectors of four entries +-1/2: their products are exact, and nearly all of them are ties."""
    rng = np.random.default_rng(seed)
    values = np.zeros((rows, width), np.float16)
    for row in values:
        row[rng.choice(width, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    return values


@pytest.mark.parametrize(("chunk", "block"), [(8192, 1024), (64, 7), (5, 100)])
@pytest.mark.parametrize("score", ["cosine", "softmax"])
def test_it_is_the_full_sort(chunk, block, score) -> None:
    store = Arrays(random(150, seed=1), random(1, seed=2), random(83, seed=3))
    queries = np.random.default_rng(4).standard_normal((20, 32)).astype(np.float32)
    scores, indices = find_top_captions(queries, store, 5, score, chunk=chunk, block=block)
    everything = np.concatenate(store.arrays).astype(np.float32)
    expected = oracle.top(queries, everything, 5, softmax=score == "softmax")
    assert np.array_equal(indices, expected[1])
    assert np.allclose(scores, expected[0], rtol=1e-4, atol=1e-6)
    assert scores.dtype == np.float32 and indices.dtype == np.int64


@pytest.mark.parametrize("chunk", [1, 3, 4, 17, 300])
@pytest.mark.parametrize("width", [4, 8, 32])
def test_ties_come_in_the_order_of_the_captions(chunk, width) -> None:
    store = Arrays(halves(120, width, seed=1), halves(71, width, seed=2))
    queries = halves(9, width, seed=3).astype(np.float32)
    everything = np.concatenate(store.arrays).astype(np.float32)
    for k in (1, 5, 40):
        scores, indices = find_top_captions(queries, store, k, chunk=chunk, block=4)
        expected = oracle.top(queries, everything, k)
        assert np.array_equal(indices, expected[1]) and np.array_equal(scores, expected[0])
    assert len(np.unique(everything @ queries[0])) < 10  # there were ties to break


def test_each_shard_is_read_once_however_many_queries() -> None:
    store = Arrays(random(50), random(50, seed=1))
    find_top_captions(random(64).astype(np.float32), store, chunk=8, block=5)
    assert store.read == 2


def test_fewer_captions_than_asked_for_and_no_queries() -> None:
    store = Arrays(random(3))
    scores, indices = find_top_captions(torch.randn(2, 32), store, 5, "softmax")
    assert indices.shape == (2, 3) and sorted(indices[0].tolist()) == [0, 1, 2]
    assert np.allclose(scores.sum(1), 1, atol=1e-5)
    scores, indices = find_top_captions(np.zeros((0, 32), np.float32), store)
    assert scores.shape == indices.shape == (0, 3)


def test_lengths_do_not_matter_for_a_cosine() -> None:
    values, queries = random(40), np.random.default_rng(5).standard_normal((6, 32))
    long = Arrays((values * np.linspace(0.5, 4, 40)[:, None]).astype(np.float16), normalised=False)
    found = find_top_captions(queries, long)
    expected = oracle.top(queries, values.astype(np.float32), 5)
    assert np.array_equal(found[1], expected[1]) and np.allclose(found[0], expected[0], atol=2e-3)
    again = find_top_captions(1e3 * queries, long)
    assert np.array_equal(found[1], again[1]) and np.allclose(found[0], again[0], atol=1e-6)


def test_softmax_over_a_store_of_one_sided_shards_stays_finite() -> None:
    query = np.eye(1, 32, dtype=np.float32)
    store = Arrays(np.repeat(-query, 1000, 0).astype(np.float16), np.repeat(query, 2, 0).astype(np.float16))
    scores, indices = find_top_captions(query, store, 3, "softmax", chunk=100)
    assert indices.tolist() == [[1000, 1001, 0]] and np.allclose(scores, [[0.5, 0.5, 0]])


def test_a_caption_without_numbers_hides_no_other() -> None:
    values = random(30)
    expected = find_top_captions(values[7:8].astype(np.float32), Arrays(values.copy()), 1)
    values[3], values[4, 5] = np.nan, np.inf
    found = find_top_captions(values[7:8].astype(np.float32), Arrays(values), 1)
    assert found[1].tolist() == expected[1].tolist() == [[7]]


def test_vectors_that_cannot_be_compared_are_refused() -> None:
    store = Arrays(random(3))
    with pytest.raises(UsageError, match=r"vectors of 8 numbers .* captions of 32"):
        find_top_captions(np.ones((2, 8)), store)
    for wrong in (0.0, np.nan):
        with pytest.raises(UsageError, match="of length 0, or that are no numbers"):
            find_top_captions(np.full((2, 32), wrong), store)
    with pytest.raises(UsageError, match="the best 0 captions"):
        find_top_captions(np.ones((2, 32)), store, 0)


@pytest.mark.parametrize("score", ["cosine", "softmax"])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_shards_of_the_search_add_up_to_the_whole(count, score) -> None:
    store = Arrays(halves(120, 8, seed=1), halves(71, 8, seed=2))
    queries = torch.from_numpy(halves(9, 8, seed=3).astype(np.float32))

    def read(shard):
        return shard.select(iterate_chunks(store, 17, queries.device))

    partials = [
        run_pass(read, TopCaptions(queries, 30, score, block=4, chunk=17), Shard(index, count))
        for index in range(count)
    ]
    scores, indices = merge_partials(reversed(partials)).finalize()
    expected = oracle.top(
        queries.numpy(), np.concatenate(store.arrays).astype(np.float32), 30, softmax=score == "softmax"
    )
    assert np.array_equal(indices.numpy(), expected[1])
    assert np.allclose(scores.numpy(), expected[0], rtol=1e-5)
