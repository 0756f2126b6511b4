"""What a joint fit learns: composite vectors to compare pixels with, and the cluster that each stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.nave.composite import Composite
from encoscope.nave.granularity import find_micro_clusters, grow_tree
from encoscope.nave.joint import FeatureSource, JointState, LloydSums
from encoscope.nave.segmentation import renumber_by_size
from encoscope.nave.ward import WardTree
from encoscope.store.passes import run_pass


@dataclass(frozen=True, eq=False)
class Codebook:
    """A pixel belongs to the cluster of the micro-centroid that is nearest to its composite vector.

    Attributes:
        micro_centroids: ``[M, dim]``, K centroids of k-means, or the means of micro-clusters.
        counts: ``[M]``, the pixels nearest to each when it was fitted.
        clusters: ``[M]``, the cluster of each, 0 the largest.
        within: The sum of squared distances of the pixels to their micro-centroids.
        tree: Ward's tree over the micro-centroids; None for k-means.
    """

    micro_centroids: Float[np.ndarray, "micro dim"]
    counts: Float[np.ndarray, " micro"]
    clusters: Int[np.ndarray, " micro"]
    within: float
    tree: WardTree | None = None

    @classmethod
    def of_kmeans(cls, state: JointState) -> Codebook:
        """Take the centroids of a finished k-means, the largest cluster first.

        Args:
            state: The last state of the fit.

        Returns:
            The codebook.
        """
        order = torch.argsort(state.counts, descending=True, stable=True)
        return cls(state.centroids[order].numpy(), state.counts[order].numpy(), np.arange(len(order)), state.inertia)

    @classmethod
    def of_ward(cls, source: FeatureSource, sample: Composite, n_clusters: int, random_state: int) -> Codebook:
        """Fill micro-clusters of a sample by one pass over all pixels, and cut Ward's tree over their means at K.

        Args:
            source: Gives the composite features of a shard of the images.
            sample: Composite vectors of a sample of pixels.
            n_clusters: K.
            random_state: The seed of the micro-clusters' start.

        Returns:
            The codebook.
        """
        sums = run_pass(source, LloydSums(find_micro_clusters(sample, random_state).centroids[0]))
        used = (sums.counts > 0).numpy()
        means, counts = sums.finalize().numpy()[used], sums.counts.numpy()[used]
        within = max(0.0, sums.squared_norms - float(counts @ np.square(means).sum(1)))
        tree = grow_tree(means, counts)
        return cls(means, counts, np.zeros(len(means), dtype=np.int64), within, tree).at(n_clusters)

    @property
    def n_clusters(self) -> int:
        """How many clusters the micro-centroids stand for."""
        return int(self.clusters.max()) + 1

    def at(self, n_clusters: int) -> Codebook:
        """Give the same micro-centroids at another granularity.

        Args:
            n_clusters: K.

        Returns:
            Another codebook.

        Raises:
            UsageError: Without a tree, and when there are fewer micro-centroids than clusters.
        """
        if self.tree is None:
            raise UsageError('this fit has one granularity: use grouping="ward" for all of them')
        return replace(self, clusters=renumber_by_size(self.tree.cut(n_clusters), self.counts))

    @property
    def sizes(self) -> Int[np.ndarray, " k"]:
        """The pixels of each cluster."""
        return np.bincount(self.clusters, weights=self.counts).astype(np.int64)

    @property
    def centroids(self) -> Float[np.ndarray, "k dim"]:
        """The mean composite vector of each cluster."""
        members = np.eye(self.n_clusters)[self.clusters].T * self.counts  # [K, M]
        return (members @ self.micro_centroids) / np.maximum(members.sum(1, keepdims=True), 1)

    @property
    def inertia(self) -> float:
        """The sum of squared distances of the fitted pixels to the mean of their cluster."""
        if self.tree is None:
            return self.within
        return self.within + float(self.tree.costs[: self.tree.points - self.n_clusters].sum())

    def assign(self, features: Composite) -> tuple[Int[Tensor, "batch pixels"], Float[Tensor, " batch"]]:
        """Find the cluster of every pixel.

        Args:
            features: Composite features of a batch of images.

        Returns:
            The cluster of every pixel, ``[B, pixels]``, and each image's sum of squared distances of its pixels to
            their micro-centroids, ``[B]``.
        """
        centroids = torch.from_numpy(self.micro_centroids).to(features.device, features.dtype)
        values = features.scores(centroids.expand(features.batch, -1, -1)) - centroids.square().sum(1)[:, None] / 2
        best = values.max(dim=1)
        inertia = (features.squared_norms - 2 * best.values).double().clamp_min(0).sum(1)
        return torch.from_numpy(self.clusters).to(features.device)[best.indices], inertia
