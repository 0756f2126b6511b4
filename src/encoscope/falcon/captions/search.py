"""The captions nearest to each of many vectors, exactly, in one pass over the store with constant memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from encoscope.errors import UsageError
from encoscope.falcon.captions.store import CaptionStore
from encoscope.progress import Progress, track_steps
from encoscope.store.passes import Shard, run_pass

TEMPERATURE = 100.0
"""Of the softmax: CLIP's own logit scale, and the authors'."""

_CHUNK = 8192  # captions turned to float32 at a time
_BLOCK = 1024  # queries multiplied with them at a time


def find_top_captions(
    queries: Float[np.ndarray, "queries width"] | Float[Tensor, "queries width"],
    store: CaptionStore,
    k: int = 5,
    score: str = "cosine",
    *,
    chunk: int = _CHUNK,
    block: int = _BLOCK,
    progress: Progress = None,
) -> tuple[Float[np.ndarray, "queries best"], Int[np.ndarray, "queries best"]]:
    """Find the ``k`` captions of highest score for each query. Each shard is read once for all queries.

    Args:
        queries: Vectors of crops, of any length but 0; the product is computed on their device.
        store: The captions.
        k: The captions of each query; of a store with fewer, all are given.
        score: "cosine", or "softmax": that of 100 times the cosines over all the store's captions, which has the same
            order.
        chunk: Captions multiplied at a time; it decides what memory is used, not the result.
        block: Queries multiplied at a time.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The scores, best first, and the indices of the captions. Captions of equal score come in the store's order.

    Raises:
        UsageError: For vectors of another width or of length 0, and ``k`` below 1.

    Source: FALCON, section 3.2.
    """
    vectors = normalize_queries(queries, store.width)
    if k < 1:
        raise UsageError(f"the best {k} captions cannot be found: ask for 1 or more")
    chunk = min(chunk, max(1, len(store)))

    def read_chunks(shard: Shard) -> Iterator[tuple[int, Tensor]]:
        with track_steps(len(store), "captions", progress) as step:
            for first, captions in shard.select(iterate_chunks(store, chunk, vectors.device)):
                yield first, captions
                step(len(captions))

    with torch.inference_mode():
        best = run_pass(read_chunks, TopCaptions(vectors, min(k, len(store)), score, block=block, chunk=chunk))
        scores, indices = best.finalize()
    return scores.cpu().numpy(), indices.cpu().numpy()


class TopCaptions:
    """The best captions of each query among those shown so far: ``partial_fit``, ``merge``, ``finalize``.

    Captions of equal score come in the store's order.

    Args:
        queries: Vectors of length 1.
        k: The captions of each query.
        score: "cosine" or "softmax".
        block: Queries multiplied at a time.
        chunk: The most captions that are shown at a time.
    """

    def __init__(
        self, queries: Float[Tensor, "queries width"], k: int, score: str = "cosine", *, block: int, chunk: int
    ) -> None:
        count, device = len(queries), queries.device
        self.queries, self.k, self.score = queries, k, score
        self.scores = torch.full((count, k), -torch.inf, device=device)
        self.indices = torch.full((count, k), -1, dtype=torch.int64, device=device)
        self._log_sums = torch.full((count,), -torch.inf, dtype=torch.float64, device=device)
        self._block = min(block, max(1, count))
        self._products = torch.empty(self._block * chunk, device=device)

    def partial_fit(self, first: int, captions: Float[Tensor, "captions width"]) -> TopCaptions:
        """Show captions that come after all those shown before.

        Args:
            first: The index of the first.
            captions: Their vectors, of length 1.

        Returns:
            Itself.
        """
        for start in range(0, len(self.queries), self._block):
            rows = slice(start, min(start + self._block, len(self.queries)))
            shape = rows.stop - rows.start, len(captions)
            cosines = torch.mm(self.queries[rows], captions.T, out=self._products[: shape[0] * shape[1]].view(shape))
            self._offer(rows, cosines, first)
            if self.score == "softmax":  # ``cosines`` is overwritten: it is needed no more
                added = torch.logsumexp(cosines.mul_(TEMPERATURE), dim=1)
                self._log_sums[rows] = torch.logaddexp(self._log_sums[rows], added.double())
        return self

    def merge(self, other: TopCaptions) -> TopCaptions:
        """Add another shard's captions.

        Args:
            other: What it found for the same queries.

        Returns:
            Itself.
        """
        scores = torch.cat([self.scores, other.scores], dim=1)
        indices = torch.cat([self.indices, other.indices], dim=1)
        # two stable sorts: by index, then by score
        order = indices.sort(dim=1, stable=True).indices
        order = order.gather(1, scores.gather(1, order).sort(dim=1, descending=True, stable=True).indices)[:, : self.k]
        self.scores, self.indices = scores.gather(1, order), indices.gather(1, order)
        self._log_sums = torch.logaddexp(self._log_sums, other._log_sums)
        return self

    def finalize(self) -> tuple[Float[Tensor, "queries best"], Int[Tensor, "queries best"]]:
        """Give the scores, best first, and the indices of the captions."""
        if self.score != "softmax":
            return self.scores, self.indices
        return torch.exp(TEMPERATURE * self.scores.double() - self._log_sums[:, None]).float(), self.indices

    def _offer(self, block: slice, scores: Tensor, first: int) -> None:
        """Take what is better than the last of the best. Captions are offered in order: an equal one comes too late.

        Selecting costs more than the product, and after the first chunks few queries have anything to select: only
        their rows are looked at.
        """
        last = self.scores[block, -1]
        rows = (scores.amax(dim=1) > last).nonzero()[:, 0]
        if not len(rows):
            return
        better = scores if len(rows) == len(scores) else scores[rows]
        # ``topk`` may take any of equals, so it only says how good a score must be
        enough = better.topk(min(self.k, better.shape[1]), dim=1).values[:, -1]
        hits = ((better >= enough[:, None]) & (better > last[rows, None])).nonzero()
        queries = rows + block.start
        row_of = torch.cat([torch.arange(len(rows), device=rows.device).repeat_interleave(self.k), hits[:, 0]])
        values = torch.cat([self.scores[queries].flatten(), better[hits[:, 0], hits[:, 1]]])
        captions = torch.cat([self.indices[queries].flatten(), hits[:, 1] + first])
        # two stable sorts: by query, within it by score, and equals stay in the order of their captions
        order = values.sort(descending=True, stable=True).indices
        order = order[row_of[order].sort(stable=True).indices]
        counts = torch.bincount(row_of, minlength=len(rows))
        starts = counts.cumsum(0) - counts
        chosen = order[starts[:, None] + torch.arange(self.k, device=rows.device)]
        self.scores[queries], self.indices[queries] = values[chosen], captions[chosen]


def iterate_chunks(store: CaptionStore, chunk: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Read the store's vectors in chunks, each once.

    Args:
        store: The captions.
        chunk: Captions of a chunk at most.
        device: Where the vectors are put.

    Yields:
        The index of a chunk's first caption, and its vectors as float32 of length 1.
    """
    for shard in store.shards:
        array = store.embeddings(shard)
        for start in range(0, shard.rows, chunk):
            vectors = torch.from_numpy(np.array(array[start : start + chunk])).to(device=device, dtype=torch.float32)
            vectors = vectors.nan_to_num_(0, 0, 0)  # one caption without numbers would hide the rest of its chunk
            yield shard.first + start, vectors if store.normalised else functional.normalize(vectors, dim=1)


def normalize_queries(queries: np.ndarray | Tensor, width: int) -> Tensor:
    """Scale queries to length 1.

    Args:
        queries: ``[queries, width]``.
        width: The numbers of a caption's vector.

    Returns:
        float32 vectors of length 1, on the device of the queries.

    Raises:
        UsageError: For another width, and vectors of length 0 or without numbers.
    """
    vectors = torch.as_tensor(queries).detach().float()
    if vectors.shape[1] != width:
        raise UsageError(f"vectors of {vectors.shape[1]} numbers cannot be compared with captions of {width}")
    lengths = vectors.norm(dim=1, keepdim=True)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise UsageError("vectors of length 0, or that are no numbers, are like no caption: leave them out")
    return vectors / lengths
