"""Joining fragments, literally: regions found again after every step, vectors written out."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def regions_of(labels):
    """Every connected region as a boolean mask, in reading order of their first cells."""
    masks = []
    for cluster in np.unique(labels):
        numbered, count = ndimage.label(labels == cluster)
        masks += [numbered == number for number in range(1, count + 1)]
    return sorted(masks, key=lambda mask: np.flatnonzero(mask)[0])


def join(labels, vectors, min_region):
    """``vectors`` are [rows * columns, dim]."""
    labels = labels.copy()
    while True:
        masks = regions_of(labels)
        if len(masks) == 1:
            return labels
        small = min(masks, key=lambda mask: mask.sum())  # the first of equals
        if small.sum() >= min_region * labels.size:
            return labels
        grown = ndimage.binary_dilation(small)  # by a cross, which is 4-connectivity
        beside = [mask for mask in masks if mask is not small and (mask & grown).any()]
        mean = vectors[small.ravel()].mean(0)
        distances = [np.square(vectors[mask.ravel()].mean(0) - mean).sum() for mask in beside]
        labels[small] = labels[beside[int(np.argmin(distances))]][0]
