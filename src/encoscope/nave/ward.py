"""Agglomerative clustering with Ward's linkage on weighted points, and every granularity from one tree.

The points are the pixels of one image where these are few, else k-means micro-clusters of pixels, each as heavy as its
members: then the tree is exactly Ward's from there on, at a cost that does not grow with the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from encoscope.errors import UsageError


@dataclass(frozen=True)
class WardTree:
    """A full binary tree over n points, cut anywhere.

    Attributes:
        merges: ``[n - 1, 2]``, the two nodes joined at each step, in order of cost; points are nodes 0..n-1, step i
            makes node n + i.
        costs: ``[n - 1]``, the increase of the within-cluster sum of squares at each step, not decreasing.
    """

    merges: Int[np.ndarray, "steps 2"]
    costs: Float[np.ndarray, " steps"]

    @property
    def points(self) -> int:
        """How many points the tree stands on."""
        return len(self.merges) + 1

    def cut(self, n_clusters: int) -> Int[np.ndarray, " points"]:
        """Cut the tree. A cluster of ``cut(k + 1)`` lies inside one of ``cut(k)``.

        Args:
            n_clusters: K.

        Returns:
            ``[points]``, the cluster of each point, numbered by their first point.

        Raises:
            UsageError: When there are fewer points than clusters.
        """
        if not 1 <= n_clusters <= self.points:
            raise UsageError(f"cannot cut a tree of {self.points} points into {n_clusters} clusters")
        parent = np.arange(2 * self.points - 1)
        done = self.points - n_clusters
        parent[self.merges[:done].ravel()] = np.repeat(self.points + np.arange(done), 2)
        for node in range(self.points + done - 1, -1, -1):  # parents have higher numbers than their children
            parent[node] = parent[parent[node]]
        _, first, inverse = np.unique(parent[: self.points], return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]


def ward_tree(
    squared_distances: Float[np.ndarray, "points points"], weights: Num[np.ndarray, " points"] | None = None
) -> WardTree:
    """Grow Ward's hierarchy by nearest-neighbor chains, in O(points^2) time and memory.

    Merging A and B costs |A||B| / (|A| + |B|) ||mean_A - mean_B||^2, kept up to date with the formula of Lance and
    Williams.

    Args:
        squared_distances: ``[points, points]``, squared Euclidean distances; where rounding made the two of a pair
            unlike, the smaller counts.
        weights: ``[points]``, how many observations each point stands for; None for 1 each.

    Returns:
        The tree.

    Source: Murtagh, 1983.
    """
    n = len(squared_distances)
    size = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64).copy()
    # a product of matrices is symmetric up to rounding only, and on pairs that tie a chain would run in circles
    cost = np.minimum(squared_distances, squared_distances.T)
    cost *= size[:, None] * size[None, :] / (size[:, None] + size[None, :])
    np.fill_diagonal(cost, np.inf)
    merges = np.empty((n - 1, 2), dtype=np.int64)
    costs = np.empty(n - 1)
    alive = np.ones(n, dtype=bool)
    chain: list[int] = []
    for step in range(n - 1):
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            tip = chain[-1]
            near = int(cost[tip].argmin())
            if len(chain) > 1 and cost[tip, near] >= cost[tip, chain[-2]]:
                near = chain[-2]  # a tie goes back, or the chain would run in circles
                break
            chain.append(near)
        del chain[-2:]
        merges[step] = min(tip, near), max(tip, near)
        costs[step] = cost[tip, near]
        _merge(cost, size, alive, keep=max(tip, near), drop=min(tip, near))
    return _in_order(merges, costs, n)


def _merge(
    cost: Float[np.ndarray, "points points"],
    size: Float[np.ndarray, " points"],
    alive: np.ndarray,
    *,
    keep: int,
    drop: int,
) -> None:
    """Join two clusters in place: row and column ``keep`` become the union's, ``drop`` leaves."""
    with np.errstate(invalid="ignore"):  # inf - inf in rows that already left
        joined = (size + size[keep]) * cost[keep] + (size + size[drop]) * cost[drop] - size * cost[keep, drop]
    joined /= size + size[keep] + size[drop]
    alive[drop] = False
    joined[~alive] = np.inf
    joined[keep] = np.inf
    cost[keep] = cost[:, keep] = joined
    cost[drop] = cost[:, drop] = np.inf
    size[keep] += size[drop]


def _in_order(merges: Int[np.ndarray, "steps 2"], costs: Float[np.ndarray, " steps"], n: int) -> WardTree:
    """Sort the merges by cost and name each cluster by the step that made it (chains find them in another order)."""
    order = np.argsort(costs, kind="stable")
    node = np.arange(n)  # the node that the slot of a point stands for now
    slots = np.arange(n)  # union-find over slots

    def find(slot: int) -> int:
        while slots[slot] != slot:
            slots[slot] = slots[slots[slot]]
            slot = int(slots[slot])
        return slot

    named = np.empty_like(merges)
    for step, (a, b) in enumerate(merges[order]):
        a, b = find(int(a)), find(int(b))
        named[step] = sorted((node[a], node[b]))
        slots[a] = b
        node[b] = n + step
    return WardTree(named, np.maximum.accumulate(costs[order]))
