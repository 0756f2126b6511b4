"""LOST: find an object in an image by the similarity of its patches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from encoscope.discovery.patches import CanvasSize, extract_patches, objects_from_patches, select_component
from encoscope.discovery.result import DiscoveredObjects
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage


def lost(
    encoder: Encoder, image: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native", k: int = 100
) -> DiscoveredObjects:
    """Find one object: the patches similar to the patch that is similar to the fewest others.

    Args:
        encoder: The encoder.
        image: The image.
        layer: As for ``extract_patches``.
        size: As for ``extract_patches``.
        k: Number of patches of lowest degree among which patches similar to the seed are taken (the paper's 100).

    Returns:
        One object, or none.

    Raises:
        UsageError: If ``k`` is less than 1, or if the encoder has no patches to compare.

    Source: LOST (Siméoni et al., 2021), section 3.
    """
    if k < 1:
        raise UsageError(f"k is a number of patches, at least 1, not {k}")
    patches = extract_patches(encoder, image, layer, size)
    mask, _ = expand_seed(patches.features, patches.grid, k)
    return objects_from_patches([mask], patches.geometry)


def expand_seed(
    features: Float[np.ndarray, "patches channels"], grid: tuple[int, int], k: int = 100
) -> tuple[Bool[np.ndarray, "rows columns"], int]:
    """Find the seed patch and the patches of its object.

    Args:
        features: One vector for each patch, row by row.
        grid: (rows, columns) of the patches.
        k: Number of patches of lowest degree among which patches similar to the seed are taken.

    Returns:
        The mask of the object's patches, and the index of the seed. Of patches with equal degrees the first is the
        seed.

    Source: LOST, sections 3.2 and 3.3.
    """
    similarity = features @ features.T
    # section 3.2: a patch's degree is the number of patches it is positively correlated with; the seed's is the lowest
    degree = (similarity >= 0).sum(1)
    order = np.argsort(degree, kind="stable")
    seed = int(order[0])
    # section 3.3: of the k patches of lowest degree, those positively correlated with the seed
    low = order[:k]
    similar = low[similarity[seed, low] >= 0]
    # the mask: patches whose summed correlation with these is positive; of it, the component that holds the seed
    mask = (similarity[:, similar].sum(1) >= 0).reshape(grid)
    return select_component(mask, seed), seed
