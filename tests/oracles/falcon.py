"""FALCON literally: image by image, word by word; downright boxing pixel by pixel."""

from __future__ import annotations

import numpy as np


def highs(h, feature, alpha):
    """T_i = {j : h_ji > alpha}."""
    return [j for j in range(len(h)) if h[j][feature] > alpha]


def counterfactuals(h, feature, alpha, epsilon, beta, count):
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


def words_of(caption):
    """The words of captions as simple as "a red square": nothing to clean, nothing to lemmatise."""
    return [word for word in caption.split() if word != "a"]


def describe(h, paths, feature, *, alpha_stds, beta, by_id, cam, embed, captions, vectors, size):
    """FALCON for one feature, image by image: T_i and L_i, crops, top 5 captions, word scores."""
    import torch
    from PIL import Image

    entries = [float(value) for row in h for value in row]
    mean = sum(entries) / len(entries)
    std = (sum((value - mean) ** 2 for value in entries) / (len(entries) - 1)) ** 0.5
    alpha = mean + alpha_stds * std
    rank = {row: place for place, row in enumerate(by_id)}
    high = sorted(highs(h, feature, alpha), key=lambda j: (-h[j][feature], rank[j]))
    low = counterfactuals(h, feature, alpha, mean, beta, 10)
    scores, boxes, embedded = {}, [], []
    for j in high:
        pixels = np.asarray(Image.open(paths[j]))
        small, geometry = cam(paths[j])
        large = torch.nn.functional.interpolate(small[None, None], size=geometry.canvas, mode="bilinear")[0, 0].numpy()
        range_ = large.max() - large.min()
        box = downright_box(((large - large.min()) / range_ >= 0.6) if range_ > 0 else np.zeros_like(large, bool))
        box = [0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1] if box is None else back(box, geometry)
        boxes.append(box)
        crop = pixels[box[1] : box[3] + 1, box[0] : box[2] + 1]
        vector = embed(np.asarray(Image.fromarray(crop).resize((size[1], size[0]), Image.Resampling.BICUBIC)))
        embedded.append(vector)
        cosines = [float(vector @ text / np.linalg.norm(text)) for text in vectors]
        five = sorted(range(len(captions)), key=lambda p: (-cosines[p], p))[:5]
        best = {}
        for p in five:
            for word in words_of(captions[p]):
                best[word] = max(best.get(word, 0.0), cosines[p])
        for word, score in best.items():
            scores[word] = scores.get(word, 0.0) + score / len(high)
    ordered = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
    return {
        "high": [paths[j] for j in high],
        "low": [paths[j] for j in low],
        "words": ordered,
        "boxes": boxes,
        "vectors": embedded,
    }


def back(box, geometry):
    """A box of the network's canvas in the photo: the extremes of all photo pixels whose area meets it."""
    found = []
    for axis, (first, last) in ((1, (box[0], box[2])), (0, (box[1], box[3]))):
        inside = [
            pixel
            for pixel in range(geometry.original[axis])
            if (pixel + 1) * geometry.resized[axis] / geometry.original[axis] > first + geometry.offset[axis] + 1e-9
            and pixel * geometry.resized[axis] / geometry.original[axis] < last + 1 + geometry.offset[axis] - 1e-9
        ]
        found.append((inside[0], inside[-1]))
    (x0, x1), (y0, y1) = found
    return [x0, y0, x1, y1]
