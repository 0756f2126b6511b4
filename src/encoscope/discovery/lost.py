"""LOST: localizing objects with self-supervised transformers and no labels (Siméoni et al., 2021)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from encoscope.discovery.patches import CanvasSize, extract_patches, objects_from_patches, select_component
from encoscope.discovery.result import DiscoveredObjects
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage


def lost(
    encoder: Encoder, photo: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native", k: int = 100
) -> DiscoveredObjects:
    """One object: the patches that agree with the patch least like all others.

    k: patches of lowest degree among which the seed is joined by similar ones (the paper's 100).
    """
    if k < 1:
        raise UsageError(f"k is a number of patches, at least 1, not {k}")
    found = extract_patches(encoder, photo, layer, size)
    mask, _ = expand_seed(found.features, found.grid, k)
    return objects_from_patches([mask], found.geometry)


def expand_seed(
    features: Float[np.ndarray, "patches channels"], grid: tuple[int, int], k: int = 100
) -> tuple[Bool[np.ndarray, "rows columns"], int]:
    """The object's patches, and the seed. Of equal degrees the first patch comes first."""
    similarity = features @ features.T
    # section 3.2: the degree of a patch is how many patches it is positively correlated with; the seed's is the lowest
    degree = (similarity >= 0).sum(1)
    order = np.argsort(degree, kind="stable")
    seed = int(order[0])
    # section 3.3: of the k patches of lowest degree, those positively correlated with the seed
    low = order[:k]
    similar = low[similarity[seed, low] >= 0]
    # the mask: positively correlated with them on the whole; of it, the connected part that holds the seed
    mask = (similarity[:, similar].sum(1) >= 0).reshape(grid)
    return select_component(mask, seed), seed
