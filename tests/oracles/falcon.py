"""FALCON literally: image by image, word by word; downright boxing pixel by pixel."""

from __future__ import annotations

import numpy as np


def highs(h, feature, alpha):
    """T_i = {j : h_ji > alpha}."""
    return [j for j in range(len(h)) if h[j][feature] > alpha]


def lows(h, feature, alpha, epsilon, beta, count):
    """L_i, equation 2: the ``count`` most similar of {j : h_ji < epsilon, h_jV . h_mu >= beta}."""
    rest = [c for c in range(len(h[0])) if c != feature]
    chosen = highs(h, feature, alpha)
    mean = [sum(float(h[j][c]) for j in chosen) / len(chosen) for c in rest]
    found = []
    for j in range(len(h)):
        similarity = sum(float(h[j][c]) * m for c, m in zip(rest, mean, strict=True))
        if h[j][feature] < epsilon and similarity >= beta:
            found.append((-similarity, j))
    return [j for _, j in sorted(found)[:count]]


def exact_groups(h, alpha, more_than):
    """The authors' groups: images by their exact set of features that reach alpha."""
    sets: dict[tuple[int, ...], list[int]] = {}
    for j in range(len(h)):
        members = tuple(c for c in range(len(h[0])) if h[j][c] >= alpha)
        if members:
            sets.setdefault(members, []).append(j)
    return {members: images for members, images in sets.items() if len(images) > more_than}


def downright_box(mask):
    """The largest box, by the two passes over all pixels: [x0, y0, x1, y1] inclusive, or None for an empty mask."""
    height, width = mask.shape
    nothing = None
    start_x = [[nothing] * width for _ in range(height)]
    start_y = [[nothing] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            left = start_x[y][x - 1] if x else nothing
            above = start_x[y - 1][x] if y else nothing
            if mask[y, x] or (left is not None and above is not None):
                start_x[y][x] = min(v for v in (left, above, x) if v is not None)
    for x in range(width):
        for y in range(height):
            left = start_y[y][x - 1] if x else nothing
            above = start_y[y - 1][x] if y else nothing
            if mask[y, x] or (left is not None and above is not None):
                start_y[y][x] = min(v for v in (left, above, y) if v is not None)
    best, largest = None, 0
    for y in range(height):
        for x in range(width):
            ends_right = start_x[y][x] is not None and (x == width - 1 or start_x[y][x + 1] is None)
            ends_below = start_y[y][x] is not None and (y == height - 1 or start_y[y + 1][x] is None)
            if ends_right and ends_below:
                area = (x + 1 - start_x[y][x]) * (y + 1 - start_y[y][x])
                if area > largest:
                    best, largest = [start_x[y][x], start_y[y][x], x, y], area
    return best


def clarity(vectors):
    """Mean cosine over all ordered pairs of different crops."""
    n = len(vectors)
    unit = [v / np.linalg.norm(v) for v in vectors]
    return sum(float(unit[i] @ unit[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
