"""LOST and TokenCut patch by patch, as their papers write them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eig

from oracles.boxes import components


def dot(x, y):
    return float(np.dot(x, y))


def _part_with(mask, seed):
    """The connected component of a mask that holds the seed, by flood fill."""
    for value, part in components(mask.astype(int)):
        if value == 1 and part.ravel()[seed]:
            return part
    return np.zeros_like(mask)


def lost(features, grid, k):
    """Section 3: binary degrees, the seed of lowest degree, its expansion, the mask around it."""
    count = len(features)
    alike = [[dot(features[p], features[q]) >= 0 for q in range(count)] for p in range(count)]
    degree = [sum(row) for row in alike]
    seed = min(range(count), key=lambda p: (degree[p], p))
    low = sorted(range(count), key=lambda p: (degree[p], p))[:k]
    similar = [q for q in low if alike[seed][q]]
    mask = np.array([sum(dot(features[q], features[s]) for s in similar) >= 0 for q in range(count)])
    return _part_with(mask.reshape(grid), seed), seed


def tokencut(features, grid, tau, epsilon=1e-5):
    """Section 3: the graph, the generalised eigenproblem solved whole, the cut at the mean, the seed's component."""
    count = len(features)
    edges = np.empty((count, count))
    for p in range(count):
        for q in range(count):
            cosine = dot(features[p], features[q]) / np.sqrt(
                dot(features[p], features[p]) * dot(features[q], features[q])
            )
            edges[p, q] = 1 if cosine > tau else epsilon
    degrees = np.diag(edges.sum(1))
    values, vectors = eig(degrees - edges, degrees)
    vector = vectors[:, np.argsort(values.real)[1]].real
    seed = int(np.argmax(np.abs(vector)))
    above = vector > np.mean(vector)
    side = above if above[seed] else ~above
    return _part_with(side.reshape(grid), seed), seed
