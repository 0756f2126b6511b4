"""Every granularity of one image: a Ward tree over its pixels or micro-clusters, and an automatic K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.defaults import RANDOM_STATE
from encoscope.nave.composite import Composite
from encoscope.nave.kmeans import KMeansResult, lloyd
from encoscope.nave.ward import WardTree, ward_tree

PIXELS = 4096
"""Up to this many pixels the tree's points are the pixels themselves (a 64 x 64 grid: 134 MB of distances)."""

MICRO_CLUSTERS = 512
"""How many k-means micro-clusters stand in for more pixels than that."""

AUTO = range(3, 11)
"""The numbers of clusters that ``n_clusters="auto"`` chooses from."""


@concise_repr
@dataclass(frozen=True)
class Granularity:
    """A Ward tree of one image.

    Attributes:
        tree: The tree.
        points: ``[pixels]``, the tree's point of every pixel (row-major on the grid).
        within: The sum of squared distances of the pixels to their points; 0 when the points are the pixels.
    """

    tree: WardTree
    points: Int[np.ndarray, " pixels"]
    within: float = 0.0

    @property
    def micro_clusters(self) -> int | None:
        """How many micro-clusters the tree stands on; None when it stands on the pixels themselves."""
        return None if self.tree.points == len(self.points) else self.tree.points

    def cut(self, n_clusters: int) -> Int[np.ndarray, " pixels"]:
        """Cut the tree.

        Args:
            n_clusters: K.

        Returns:
            ``[pixels]``, the cluster of each pixel, numbered by first appearance. Cuts at different K are nested.
        """
        labels = self.tree.cut(n_clusters)[self.points]
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]

    def inertia(self, n_clusters: int) -> float:
        """Compute the inertia of a cut.

        Args:
            n_clusters: K.

        Returns:
            The sum of squared distances of the pixels to the mean of their cluster.
        """
        return self.within + float(self.tree.costs[: self.tree.points - n_clusters].sum())


def grow_granularity(features: Composite, *, random_state: int = RANDOM_STATE) -> Granularity:
    """Grow the Ward tree of one image.

    Args:
        features: Composite features of a batch of one; give float64 maps, as the vectors of near pixels nearly cancel.
        random_state: The seed of the micro-clusters that stand for more than 4,096 pixels.

    Returns:
        The tree, with the point of every pixel.
    """
    if features.pixels <= PIXELS:
        gram = features.gram()[0].double()
        norms = gram.diagonal()
        squared = (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(0)
        return Granularity(ward_tree(squared.cpu().numpy()), np.arange(features.pixels))
    return _over_micro_clusters(features, random_state)


def _over_micro_clusters(features: Composite, random_state: int) -> Granularity:
    clusters = find_micro_clusters(features, random_state)
    used, points, sizes = np.unique(clusters.labels[0].cpu().numpy(), return_inverse=True, return_counts=True)
    tree = grow_tree(clusters.centroids[0].double().cpu().numpy()[used], sizes)
    return Granularity(tree, points, float(clusters.inertia[0]))


def find_micro_clusters(features: Composite, random_state: int) -> KMeansResult:
    """Run a fine k-means from a random choice of pixels; with so many clusters the start does not matter.

    Args:
        features: Composite features of one image or sample.
        random_state: The seed of the choice.

    Returns:
        Up to 512 clusters.
    """
    count = min(MICRO_CLUSTERS, features.pixels)
    chosen = np.random.default_rng(random_state).choice(features.pixels, count, replace=False)
    start = features.rows(torch.from_numpy(chosen)[None].to(features.device))
    return lloyd(features, start.unsqueeze(1), max_iter=10)


def grow_tree(means: Float[np.ndarray, "points dim"], weights: Num[np.ndarray, " points"]) -> WardTree:
    """Grow Ward's tree over the means of micro-clusters.

    Args:
        means: ``[points, dim]``.
        weights: ``[points]``, the pixels of each.

    Returns:
        The tree.
    """
    squared = np.square(means).sum(1)
    return ward_tree(np.maximum(squared[:, None] + squared[None, :] - 2 * means @ means.T, 0), weights)


def compute_inertia(features: Composite, labels: Int[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """Compute the sum of squared distances of every pixel's composite vector to the mean of its cluster.

    Args:
        features: Composite features of a batch.
        labels: ``[B, pixels]``, the cluster of each pixel.

    Returns:
        ``[B]``, one for each image.
    """
    k = int(labels.max()) + 1
    members = torch.zeros(features.batch, k, features.pixels, dtype=features.dtype, device=features.device)
    members.scatter_(1, labels.unsqueeze(1), 1)
    sums = features.sums(members)
    explained = sums.double().square().sum(2) / members.sum(2).clamp_min(1)
    return (features.squared_norms.double().sum(1) - explained.sum(1)).clamp_min(0)


def find_elbow(clusters: Sequence[int], inertias: Sequence[float]) -> int:
    """Find the K where the curve of inertia over K bends most.

    With K and inertia I both scaled to [0, 1], it is the K farthest below the chord from the first to the last point:
    ``argmax_K (1 - x_K) - y_K``, ``x_K = (K - K_first) / (K_last - K_first)``,
    ``y_K = (I_K - I_last) / (I_first - I_last)``. A flat curve gives the first K.

    Args:
        clusters: The numbers of clusters, ascending.
        inertias: The inertia at each.

    Returns:
        The K.

    Example:
        >>> find_elbow([3, 4, 5, 6], [10.0, 3.0, 2.5, 2.0])
        4
    """
    k = np.asarray(clusters, dtype=np.float64)
    inertia = np.asarray(inertias, dtype=np.float64)
    fall = inertia[0] - inertia[-1]
    if len(k) < 3 or not fall > 0:
        return int(k[0])
    below = (k[-1] - k) / (k[-1] - k[0]) - (inertia - inertia[-1]) / fall
    return int(k[below.argmax()])


def find_smallest_drop(clusters: Sequence[int], inertias: Sequence[float]) -> int:
    """Find K as the authors' code does for K = -1: before the step at which inertia falls least.

    With consecutive K, of the relative changes ``(I_{K+1} - I_K) / I_K`` the one nearest to zero is at K; the result
    is K - 1, since that code adds 2 to the position of a list that begins at 3.

    Args:
        clusters: The numbers of clusters, consecutive and ascending.
        inertias: The inertia at each.

    Returns:
        The number of clusters, from the first of ``clusters`` less 1 on.

    Example:
        >>> find_smallest_drop([3, 4, 5, 6], [10.0, 6.0, 5.9, 3.0])
        3
    """
    inertia = np.asarray(inertias, dtype=np.float64)
    before = np.maximum(inertia[:-1], np.finfo(np.float64).tiny)
    return int(clusters[0]) - 1 + int(np.argmax(np.diff(inertia) / before))
