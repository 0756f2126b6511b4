"""The simplest objects an encoder gives: one head's attention (DINO-seg), the first principal component."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from encoscope.discovery.patches import (
    CanvasSize,
    extract_patches,
    objects_from_patches,
    read_class_attention,
    select_largest_component,
)
from encoscope.discovery.result import DiscoveredObjects
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage


def dino_seg(
    encoder: Encoder,
    photo: LoadedImage,
    *,
    layer: str | None = None,
    size: CanvasSize = "native",
    head: int = 4,
    mass: float = 0.6,
) -> DiscoveredObjects:
    """One object: the largest part of what one head of the class token looks at (Caron et al., 2021; LOST, section 4).

    head: counted from 0; LOST's comparison takes 4, the last one stands in where there are fewer. mass: share of the
    head's attention that is kept, strongest patches first (0.6 in both papers).
    """
    if not 0 < mass <= 1 or head < 0:
        raise UsageError(f"mass lies in (0, 1] and head is at least 0, not {mass} and {head}")
    attention, found = read_class_attention(encoder, photo, layer, size)
    kept = select_heaviest(attention[min(head, len(attention) - 1)], mass)
    return objects_from_patches([select_largest_component(found.map(kept))], found.geometry)


def select_heaviest(attention: Float[np.ndarray, " patches"], mass: float) -> Bool[np.ndarray, " patches"]:
    """The patches of most attention that hold together at least this share of it."""
    order = np.argsort(attention, kind="stable")
    below = np.cumsum(attention[order]) / attention.sum()
    kept = np.zeros(len(attention), dtype=bool)
    kept[order] = below > 1 - mass
    return kept


def pca(
    encoder: Encoder, photo: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native"
) -> DiscoveredObjects:
    """One object: the largest part of the positive side of the patches' first principal component.

    The foreground threshold of DINOv2's figure 1 (Oquab et al., 2023). Of the two sides the object is the one with the
    smaller share of the image's border.
    """
    found = extract_patches(encoder, photo, layer, size)
    centred = found.features - found.features.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    side = found.map(centred @ axes[0] > 0)
    border = np.ones(found.grid, dtype=bool)
    border[1:-1, 1:-1] = False
    if side[border].mean() > 0.5:
        side = ~side
    return objects_from_patches([select_largest_component(side)], found.geometry)
