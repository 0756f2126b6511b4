"""What a joint fit learns: composite vectors to compare pixels with, and the cluster that each stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.nave.composite import Composite
from encoscope.nave.granularity import micro_clusters, tree_over
from encoscope.nave.joint import JointState, LloydSums, Pass
from encoscope.nave.segmentation import by_size
from encoscope.nave.ward import WardTree


@dataclass(frozen=True, eq=False)
class Codebook:
    """A pixel belongs to the cluster of the word nearest to its composite vector.

    words: ``[M, dim]``: K centroids, or the means of micro-clusters. counts: pixels nearest to each when fitted.
    clusters: of each word, 0 the largest. within: sum of squared distances of the pixels to their words.
    tree: Ward's tree over the words; None for k-means.
    """

    words: Float[np.ndarray, "words dim"]
    counts: Float[np.ndarray, " words"]
    clusters: Int[np.ndarray, " words"]
    within: float
    tree: WardTree | None = None

    @classmethod
    def of_kmeans(cls, state: JointState) -> Codebook:
        """The centroids of a finished k-means, largest cluster first."""
        order = torch.argsort(state.counts, descending=True, stable=True)
        return cls(state.centroids[order].numpy(), state.counts[order].numpy(), np.arange(len(order)), state.inertia)

    @classmethod
    def of_ward(cls, features: Pass, sample: Composite, n_clusters: int, seed: int) -> Codebook:
        """Micro-clusters of a sample, filled by one pass over all pixels; Ward's tree over their means, cut at K."""
        sums = LloydSums(micro_clusters(sample, seed).centroids[0])
        for batch, _ in features():
            sums.partial_fit(batch)
        used = (sums.counts > 0).numpy()
        means, counts = sums.finalize().numpy()[used], sums.counts.numpy()[used]
        within = max(0.0, sums.squared_norms - float(counts @ np.square(means).sum(1)))
        tree = tree_over(means, counts)
        return cls(means, counts, np.zeros(len(means), dtype=np.int64), within, tree).at(n_clusters)

    @property
    def n_clusters(self) -> int:
        """How many clusters the words stand for."""
        return int(self.clusters.max()) + 1

    def at(self, n_clusters: int) -> Codebook:
        """The same words at another granularity. Raises UsageError without a tree, or when there are fewer words."""
        if self.tree is None:
            raise UsageError('this fit has one granularity: use grouping="ward" for all of them')
        return replace(self, clusters=by_size(self.tree.cut(n_clusters), self.counts))

    @property
    def sizes(self) -> Int[np.ndarray, " k"]:
        """The pixels of each cluster."""
        return np.bincount(self.clusters, weights=self.counts).astype(np.int64)

    @property
    def centroids(self) -> Float[np.ndarray, "k dim"]:
        """The mean composite vector of each cluster."""
        members = np.eye(self.n_clusters)[self.clusters].T * self.counts  # [K, M]
        return (members @ self.words) / np.maximum(members.sum(1, keepdims=True), 1)

    @property
    def inertia(self) -> float:
        """The sum of squared distances of the fitted pixels to the mean of their cluster."""
        if self.tree is None:
            return self.within
        return self.within + float(self.tree.costs[: self.tree.points - self.n_clusters].sum())

    def assign(self, features: Composite) -> tuple[Int[Tensor, "batch pixels"], Float[Tensor, " batch"]]:
        """The cluster of every pixel, and each image's sum of squared distances to its pixels' words."""
        words = torch.from_numpy(self.words).to(features.device, features.dtype)
        values = features.scores(words.expand(features.batch, -1, -1)) - words.square().sum(1)[:, None] / 2
        best = values.max(dim=1)
        inertia = (features.squared_norms - 2 * best.values).double().clamp_min(0).sum(1)
        return torch.from_numpy(self.clusters).to(features.device)[best.indices], inertia
