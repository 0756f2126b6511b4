"""Approximate search among hundreds of millions of captions: an inverted index proposes candidates, which are compared.

FAISS (``pip install 'encoscope[faiss]'``) keeps a few dozen bytes of each caption in lists around centroids (IVF-PQ).
A search looks through the nearest lists for candidates, which are then compared exactly, with their vectors from the
shards. What it misses is measured: see `measure_recall`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon.captions.search import find_top_captions, iterate_chunks, normalize_queries
from encoscope.falcon.captions.store import CaptionStore
from encoscope.progress import Progress, track_steps
from encoscope.store import JournaledFolder

MIN_CAPTIONS = 10_000
"""The least captions that an index can be trained on; fewer are searched exactly in less time than indexing takes."""

_FILE, _ABOUT = "index.faiss", "index.json"
_CODES = 64  # bytes a caption, at most
_TRAINING = 64  # captions for each centroid, as FAISS asks for 39 to 256
_BLOCK = 64  # queries whose candidates' vectors are in memory at once


@dataclass(frozen=True)
class CaptionIndex:
    """What is known about an index.

    Attributes:
        store: The digest of its captions.
        lists: Its inverted lists.
        codes: Bytes kept for each caption.
        queries: Captions of the store, with noise added, that its recall was measured with.
        recall: The share of their exact best five that a search with the default ``probes`` and ``candidates`` finds.
            Crops are other queries: measure theirs with `measure_recall`.
    """

    store: str
    lists: int
    codes: int
    queries: int
    recall: float


def build_index(
    store: CaptionStore, *, lists: int | None = None, random_state: int = RANDOM_STATE, progress: Progress = None
) -> CaptionIndex:
    """Index a store's captions, in the store's own folder; an index that fits the store is kept as it is.

    Args:
        store: The captions.
        lists: Inverted lists; None takes four times the square root of the number of captions.
        random_state: The seed of the training sample, of FAISS, and of the queries for the recall.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        What is known about the index.

    Raises:
        UsageError: For a store of fewer than 10,000 captions.
        MissingError: When FAISS is not installed.
        EncoscopeError: For a full disk.
    """
    faiss = _faiss()
    if len(store) < MIN_CAPTIONS:
        raise UsageError(f"{len(store)} captions need no index: from {MIN_CAPTIONS} on, one can be trained")
    known = _about(store)
    if known is not None and (lists is None or known.lists == lists):
        return known
    lists = min(lists or int(4 * sqrt(len(store))), len(store) // _TRAINING)
    codes = max(size for size in range(1, min(_CODES, max(1, store.width // 2)) + 1) if store.width % size == 0)
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(store.width), store.width, lists, codes, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = random_state + 1
    rng = np.random.default_rng(random_state)
    sample = np.sort(rng.choice(len(store), min(len(store), max(_TRAINING * lists, MIN_CAPTIONS)), replace=False))
    index.train(_vectors(store, sample).numpy())
    with track_steps(len(store), "index", progress) as step:
        for _, part in iterate_chunks(store, 8192, torch.device("cpu")):
            index.add(part.numpy())
            step(len(part))
    folder = JournaledFolder(store.path)
    with folder.write(_FILE) as temporary:
        faiss.write_index(index, str(temporary))
    chosen = _vectors(store, rng.choice(len(store), 100, replace=False))
    noise = torch.from_numpy(rng.standard_normal(chosen.shape, dtype=np.float32)) / sqrt(store.width)
    noisy = chosen + 0.5 * noise
    about = CaptionIndex(store.digest, lists, codes, len(noisy), _recall(noisy, store, index, 5))
    with folder.write(_ABOUT) as temporary:
        temporary.write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")
    return about


def find_likely_captions(
    queries: Float[np.ndarray, "queries width"] | Float[Tensor, "queries width"],
    store: CaptionStore,
    k: int = 5,
    *,
    probes: int = 32,
    candidates: int = 200,
) -> tuple[Float[np.ndarray, "queries best"], Int[np.ndarray, "queries best"]]:
    """Search the index: the scores are exact cosines, but some of the best captions may be missed.

    Args:
        queries: Vectors of crops, of any length but 0.
        store: The captions.
        k: The captions of each query.
        probes: Inverted lists that are searched.
        candidates: Captions of each query that are compared exactly.

    Returns:
        The scores, best first, and the indices of the captions; where fewer than ``k`` are found, the rest have index
        -1 and score -inf.

    Raises:
        MissingError: When the store has no index, or FAISS is not installed.
        EncoscopeError: For a damaged index.
    """
    return _search(normalize_queries(queries, store.width).cpu(), store, _read(store), k, probes, candidates)


def measure_recall(
    queries: Float[np.ndarray, "queries width"] | Float[Tensor, "queries width"],
    store: CaptionStore,
    k: int = 5,
    *,
    probes: int = 32,
    candidates: int = 200,
) -> float:
    """Measure the share of the exact best ``k`` captions that `find_likely_captions` finds, with one exact search.

    Args:
        queries: Vectors of crops.
        store: The captions.
        k: The captions of each query.
        probes: Inverted lists that are searched.
        candidates: Captions of each query that are compared exactly.

    Returns:
        The mean share over queries, from 0 to 1.
    """
    return _recall(normalize_queries(queries, store.width).cpu(), store, _read(store), k, probes, candidates)


def _recall(queries: Tensor, store: CaptionStore, index: Any, k: int, probes: int = 32, candidates: int = 200) -> float:
    exact = find_top_captions(queries, store, k, progress=False)[1]
    likely = _search(queries / queries.norm(dim=1, keepdim=True), store, index, k, probes, candidates)[1]
    return float(np.mean([np.isin(best, proposed).mean() for best, proposed in zip(exact, likely, strict=True)]))


def _search(
    queries: Tensor, store: CaptionStore, index: Any, k: int, probes: int, candidates: int
) -> tuple[np.ndarray, np.ndarray]:
    if k < 1 or probes < 1 or candidates < k:
        raise UsageError(f"the best {k} of {candidates} candidates from {probes} lists cannot be found")
    index.nprobe = min(probes, index.nlist)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    indices = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        proposed = np.sort(index.search(block.numpy(), candidates)[1], axis=1)  # equals in the order of the captions
        distinct = np.unique(proposed[proposed >= 0])
        vectors = _vectors(store, distinct)
        for row, (query, names) in enumerate(zip(block, proposed, strict=True), start):
            names = names[names >= 0]
            exact = (vectors[np.searchsorted(distinct, names)] @ query).numpy()
            best = np.argsort(-exact, kind="stable")[:k]
            scores[row, : len(best)], indices[row, : len(best)] = exact[best], names[best]
    return scores, indices


def _vectors(store: CaptionStore, indices: np.ndarray) -> Tensor:
    """Vectors of captions, float32 and of unit length, in the order of the indices."""
    vectors = torch.empty(len(indices), store.width)
    for shard in store.shards:
        inside = (indices >= shard.first) & (indices < shard.first + shard.rows)
        if inside.any():
            rows = np.array(store.embeddings(shard)[indices[inside] - shard.first], dtype=np.float32)
            vectors[torch.from_numpy(inside)] = torch.from_numpy(rows)
    vectors.nan_to_num_(0, 0, 0)
    return vectors if store.normalised else functional.normalize(vectors, dim=1)


def _about(store: CaptionStore) -> CaptionIndex | None:
    """What is known of the store's index; None where there is none, or one of other captions."""
    try:
        file = JournaledFolder(store.path).check(_ABOUT)
        known = CaptionIndex(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, EncoscopeError, ValueError, TypeError):
        return None
    return known if known.store == store.digest and (store.path / _FILE).is_file() else None


def _read(store: CaptionStore) -> Any:
    faiss = _faiss()
    if _about(store) is None:
        raise MissingError(f"the captions at {store.path} have no index that fits them: build_index makes one")
    try:
        return faiss.read_index(str(store.path / _FILE))
    except RuntimeError as error:
        raise EncoscopeError(f"{store.path / _FILE} is damaged: delete it and build the index again") from error


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingError("an index of captions needs FAISS: pip install 'encoscope[faiss]'") from None
    return faiss
