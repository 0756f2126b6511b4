"""Algorithms 2 and 3 of NAVE's appendix A, line by line, and connected components by flood fill."""

from __future__ import annotations

import numpy as np


def outer_box(mask: np.ndarray) -> tuple[float, ...]:
    coord = (mask > 0).nonzero()
    xmin, xmax = min(coord[1]), max(coord[1])
    ymin, ymax = min(coord[0]), max(coord[0])
    return xmin, ymin, xmax, ymax


def inner_box(mask: np.ndarray) -> tuple[float, ...]:
    height, width = mask.shape
    coord = (mask > 0).nonzero()
    xs = np.median(coord[1])
    ys = np.median(coord[0])
    xd = min(abs(xs - min(coord[1])), abs(xs - max(coord[1])))
    yd = min(abs(ys - min(coord[0])), abs(ys - max(coord[0])))
    xmin = np.clip(xs - xd, 0, width)
    xmax = np.clip(xs + xd, 0, width)
    ymin = np.clip(ys - yd, 0, height)
    ymax = np.clip(ys + yd, 0, height)
    return xmin, ymin, xmax, ymax


def components(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(cluster, mask) of every 4-connected component."""
    height, width = labels.shape
    seen = np.zeros(labels.shape, dtype=bool)
    found = []
    for y in range(height):
        for x in range(width):
            if seen[y, x]:
                continue
            cluster, mask, waiting = labels[y, x], np.zeros(labels.shape, dtype=bool), [(y, x)]
            while waiting:
                row, column = waiting.pop()
                if not (0 <= row < height and 0 <= column < width):
                    continue
                if seen[row, column] or labels[row, column] != cluster:
                    continue
                seen[row, column] = mask[row, column] = True
                waiting += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
            found.append((int(cluster), mask))
    return found
