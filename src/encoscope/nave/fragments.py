"""Join small regions of a segmentation to the neighboring region that they resemble most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from scipy import ndimage

from encoscope.nave.composite import Composite


@dataclass
class _Node:
    """A connected region: its cluster, its cells, the sum of their composite vectors, and the regions beside it."""

    cluster: int
    count: int
    total: Float[np.ndarray, " dim"]
    beside: set[int]

    @property
    def mean(self) -> Float[np.ndarray, " dim"]:
        return self.total / self.count


def join_fragments(
    labels: Integer[np.ndarray, "rows columns"], features: Composite, min_region: float
) -> Integer[np.ndarray, "rows columns"]:
    """Join every connected region below a share of the image to a region beside it.

    The smallest region comes first (of equal ones, the first in reading order). It takes the cluster of the region
    beside it whose mean composite vector is nearest to its own, and becomes one with all regions of that cluster that
    it touches; until no region is too small.

    Args:
        labels: ``[rows, columns]``, the cluster of each cell.
        features: The composite features of the same cells, of a batch of one.
        min_region: The share of all cells that a region must have, 0 to 1.

    Returns:
        ``[rows, columns]``, the clusters after joining. A cluster whose regions are all joined to others is gone.
    """
    regions, count = number_components(labels)
    least = min_region * labels.size
    sizes = np.bincount(regions.ravel(), minlength=count)
    if count < 2 or sizes.min() >= least:
        return labels
    nodes = _make_nodes(labels, regions, sizes, features)
    owner = np.arange(count)
    while len(nodes) > 1:
        small = min(nodes, key=lambda number: (nodes[number].count, number))
        node = nodes[small]
        if node.count >= least:
            break
        chosen = min(sorted(node.beside), key=lambda other: float(np.square(nodes[other].mean - node.mean).sum()))
        cluster = nodes[chosen].cluster
        group = {small, *(other for other in node.beside if nodes[other].cluster == cluster)}
        keeper = min(group)
        nodes[keeper] = _unite([nodes[number] for number in sorted(group)], group, cluster)
        for number in group - {keeper}:
            del nodes[number]
            owner[owner == number] = keeper
        for other in nodes[keeper].beside:
            nodes[other].beside = nodes[other].beside - group | {keeper}
    clusters = np.array([nodes[number].cluster for number in owner.tolist()])
    return clusters[regions].astype(labels.dtype)


def number_components(
    labels: Integer[np.ndarray, "rows columns"],
) -> tuple[Int[np.ndarray, "rows columns"], int]:
    """Number the connected components (4-connectivity) of all clusters in reading order.

    Args:
        labels: ``[rows, columns]``, the cluster of each cell.

    Returns:
        The component of each cell, and how many there are.
    """
    numbered = np.zeros(labels.shape, dtype=np.int64)
    count = 0
    for cluster in np.unique(labels):
        components = np.zeros(labels.shape, dtype=np.int32)
        ndimage.label(labels == cluster, output=components)
        numbered += np.where(components > 0, components + count, 0)
        count += int(components.max())
    _, first, inverse = np.unique(numbered, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape), count


def _make_nodes(
    labels: Integer[np.ndarray, "rows columns"],
    regions: Int[np.ndarray, "rows columns"],
    sizes: Int[np.ndarray, " regions"],
    features: Composite,
) -> dict[int, _Node]:
    numbers = torch.from_numpy(regions.reshape(1, 1, -1)).to(features.device)
    members = (numbers == torch.arange(len(sizes), device=features.device).view(1, -1, 1)).to(features.dtype)
    sums = features.sums(members)[0].double().cpu().numpy()
    _, first = np.unique(regions, return_index=True)
    clusters = labels.ravel()[first]
    nodes = {number: _Node(int(clusters[number]), int(size), sums[number], set()) for number, size in enumerate(sizes)}
    for first_cells, second_cells in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        different = first_cells != second_cells
        for left, right in set(zip(first_cells[different].tolist(), second_cells[different].tolist(), strict=True)):
            nodes[left].beside.add(right)
            nodes[right].beside.add(left)
    return nodes


def _unite(members: list[_Node], numbers: set[int], cluster: int) -> _Node:
    beside = set().union(*(member.beside for member in members)) - numbers
    total = np.sum([member.total for member in members], axis=0)
    return _Node(cluster, sum(member.count for member in members), total, beside)
