"""Objects by one head's attention (DINO-seg), and by the first principal component."""

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
    image: LoadedImage,
    *,
    layer: str | None = None,
    size: CanvasSize = "native",
    head: int = 4,
    mass: float = 0.6,
) -> DiscoveredObjects:
    """Find one object: the largest component of the patches that one head of the class token attends to most.

    Args:
        encoder: The encoder.
        image: The image.
        layer: As for ``extract_patches``.
        size: As for ``extract_patches``.
        head: The head, counted from 0. LOST's comparison takes 4. If there are fewer heads, the last one is taken.
        mass: Share of the head's attention that is kept, the strongest patches first (0.6 in both papers).

    Returns:
        One object.

    Raises:
        UsageError: For ``mass`` or ``head`` out of range, and for a network whose class token's attention cannot be
            read.

    Source: DINO (Caron et al., 2021); LOST (Siméoni et al., 2021), section 4.
    """
    if not 0 < mass <= 1 or head < 0:
        raise UsageError(f"mass lies in (0, 1] and head is at least 0, not {mass} and {head}")
    attention, patches = read_class_attention(encoder, image, layer, size)
    kept = select_heaviest(attention[min(head, len(attention) - 1)], mass)
    return objects_from_patches([select_largest_component(patches.map(kept))], patches.geometry)


def select_heaviest(attention: Float[np.ndarray, " patches"], mass: float) -> Bool[np.ndarray, " patches"]:
    """Select the patches of most attention.

    Args:
        attention: The attention to each patch.
        mass: Share of the attention, in (0, 1].

    Returns:
        The mask of the fewest patches that hold at least this share.

    Example:
        >>> select_heaviest(np.array([0.1, 0.6, 0.3]), 0.8).tolist()
        [False, True, True]
    """
    order = np.argsort(attention, kind="stable")
    below = np.cumsum(attention[order]) / attention.sum()
    kept = np.zeros(len(attention), dtype=bool)
    kept[order] = below > 1 - mass
    return kept


def pca(
    encoder: Encoder, image: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native"
) -> DiscoveredObjects:
    """Find one object: the largest component of one side of the patches' first principal component.

    The patches are divided at zero, as for DINOv2's figure 1. The object is the side with the smaller share of the
    image's border.

    Args:
        encoder: The encoder.
        image: The image.
        layer: As for ``extract_patches``.
        size: As for ``extract_patches``.

    Returns:
        One object.

    Raises:
        UsageError: If the encoder has no patches to compare.

    Source: DINOv2 (Oquab et al., 2023), figure 1.
    """
    patches = extract_patches(encoder, image, layer, size)
    centred = patches.features - patches.features.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    side = patches.map(centred @ axes[0] > 0)
    border = np.ones(patches.grid, dtype=bool)
    border[1:-1, 1:-1] = False
    if side[border].mean() > 0.5:
        side = ~side
    return objects_from_patches([select_largest_component(side)], patches.geometry)
