"""The upper end of Ward's tree, as an atlas keeps it: leaves, the order they merge in, and regions at every cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, Num

from encoscope.errors import UsageError

if TYPE_CHECKING:  # reading an atlas needs no torch
    from encoscope.nave.ward import WardTree

Merges = tuple[tuple[int, int], ...]


def truncate_tree(
    tree: WardTree, leaves: int, weights: Num[np.ndarray, " points"] | None = None
) -> tuple[Int[np.ndarray, " points"], Merges]:
    """The upper end of a tree: every point's leaf, and the merges from there on.

    Args:
        tree: A whole tree over points.
        leaves: How many leaves remain; fewer where there are fewer points.
        weights: Of the points, when leaves are ordered by size; None counts every point once.

    Returns:
        The leaf of every point, numbered by size with 0 the largest, and the merges: step i makes node L + i, for L
        leaves.
    """
    count = min(leaves, tree.points)
    labels = tree.cut(count)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(-np.bincount(labels, weights=weights), kind="stable")] = np.arange(count)
    labels = rank[labels]
    done = tree.points - count
    node = {}  # of the whole tree's nodes, those of the upper end
    parent = np.arange(2 * tree.points - 1)
    parent[tree.merges[:done].ravel()] = np.repeat(tree.points + np.arange(done), 2)
    for child in range(tree.points + done - 1, -1, -1):  # parents have higher numbers than their children
        parent[child] = parent[parent[child]]
    for point, root in enumerate(parent[: tree.points].tolist()):
        node[root] = int(labels[point])
    merges = []
    for step, (first, second) in enumerate(tree.merges[done:].tolist()):
        merges.append((node[first], node[second]))
        node[tree.points + done + step] = count + step
    return labels, tuple(merges)


def cut_tree(merges: Sequence[tuple[int, int]], leaves: int, regions: int) -> Int[np.ndarray, " leaves"]:
    """The node that each leaf belongs to when some number of regions remain.

    Args:
        merges: Pairs of nodes that become one, in order.
        leaves: How many leaves the tree has.
        regions: How many regions remain, 1 to ``leaves``.

    Returns:
        The node of every leaf.

    Raises:
        UsageError: A number of regions that the tree does not have.

    Example:
        >>> cut_tree([(0, 1), (2, 3)], 3, 2).tolist()
        [3, 3, 2]
    """
    if not 1 <= regions <= leaves:
        raise UsageError(f"{leaves} leaves can be cut into 1 to {leaves} regions, not {regions}")
    nodes = np.arange(leaves)
    for step, pair in enumerate(merges[: leaves - regions]):
        nodes[np.isin(nodes, pair)] = leaves + step
    return nodes


def list_members(merges: Sequence[tuple[int, int]], leaves: int) -> dict[int, list[int]]:
    """The leaves below every node, leaves themselves included.

    Args:
        merges: Pairs of nodes that become one, in order.
        leaves: How many leaves the tree has.

    Returns:
        The leaves of every node, in order.

    Example:
        >>> list_members([(0, 1)], 2)
        {0: [0], 1: [1], 2: [0, 1]}
    """
    members = {leaf: [leaf] for leaf in range(leaves)}
    for step, (first, second) in enumerate(merges):
        members[leaves + step] = sorted(members[first] + members[second])
    return members
