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


def nested(
    tree: WardTree, leaves: int, weights: Num[np.ndarray, " points"] | None = None
) -> tuple[Int[np.ndarray, " points"], Merges]:
    """Every point's leaf when ``leaves`` remain (fewer when there are fewer points), and the merges from there on.

    Leaves are numbered by size, 0 the largest (by ``weights``, one a point unless given). Step i of the merges makes
    node L + i, for L leaves.
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
    for place in range(tree.points + done - 1, -1, -1):  # parents have higher numbers than their children
        parent[place] = parent[parent[place]]
    for point, root in enumerate(parent[: tree.points].tolist()):
        node[root] = int(labels[point])
    merges = []
    for step, (first, second) in enumerate(tree.merges[done:].tolist()):
        merges.append((node[first], node[second]))
        node[tree.points + done + step] = count + step
    return labels, tuple(merges)


def cut(merges: Sequence[tuple[int, int]], leaves: int, regions: int) -> Int[np.ndarray, " leaves"]:
    """The node that each leaf belongs to when ``regions`` remain."""
    if not 1 <= regions <= leaves:
        raise UsageError(f"{leaves} leaves can be cut into 1 to {leaves} regions, not {regions}")
    nodes = np.arange(leaves)
    for step, pair in enumerate(merges[: leaves - regions]):
        nodes[np.isin(nodes, pair)] = leaves + step
    return nodes


def members(merges: Sequence[tuple[int, int]], leaves: int) -> dict[int, list[int]]:
    """The leaves below every node, leaves themselves included."""
    found = {leaf: [leaf] for leaf in range(leaves)}
    for step, (first, second) in enumerate(merges):
        found[leaves + step] = sorted(found[first] + found[second])
    return found
