"""CLIP-Dissect's soft-WPMI, one unit, concept and image at a time."""

from __future__ import annotations

import math


def likelihood(similarity, activations, concept: int, top_k: int, a: float) -> float:
    """log p(t | B_k)."""
    images = sorted(range(len(activations)), key=lambda x: (-activations[x], x))[:top_k]
    total = 0.0
    for rank, image in enumerate(images):
        powers = [math.exp(a * value) for value in similarity[image]]
        shown = powers[concept] / sum(powers)
        belongs = 0.998 - rank / len(images) * (0.998 - 0.97)
        total += math.log(1 + belongs * (shown - 1) + 1e-7)
    return total


def soft_wpmi(similarity, activations, top_k: int = 100, a: float = 10, strength: float = 1):
    """[units][concepts] for activations [images][units]: each unit's likelihood without the mean one over units."""
    units, concepts = len(activations[0]), len(similarity[0])
    found = [
        [likelihood(similarity, [row[unit] for row in activations], t, top_k, a) for t in range(concepts)]
        for unit in range(units)
    ]
    scores = []
    for unit in range(units):
        row = []
        for t in range(concepts):
            common = math.log(sum(math.exp(found[other][t]) for other in range(units)) / units)
            row.append(found[unit][t] - strength * common)
        scores.append(row)
    return scores
