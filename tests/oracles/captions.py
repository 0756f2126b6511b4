"""The best captions by a full sort, and softmax over all of them at once."""

from __future__ import annotations

import numpy as np


def top(queries, captions, k: int, softmax: bool = False):
    """Scores and indices of the k best captions for each query; equals in the order of the captions."""
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores, indices = [], []
    for query in queries:
        cosines = np.array([float(np.float32(np.dot(query, caption))) for caption in captions])
        order = sorted(range(len(captions)), key=lambda i: (-cosines[i], i))[:k]
        if softmax:
            powers = np.exp(100 * (cosines - cosines.max()))
            cosines = powers / powers.sum()
        indices.append(order)
        scores.append(cosines[order])
    return np.array(scores), np.array(indices)
