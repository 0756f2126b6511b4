"""Normalized cuts of patches: TokenCut (Wang et al., 2022) and MaskCut (CutLER: Wang et al., 2023)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import eigh

from encoscope.discovery.patches import CanvasSize, extract_patches, objects_from_patches, select_component
from encoscope.discovery.result import DiscoveredObjects
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage

EPSILON = 1e-5
"""Weight of an edge between unlike patches (both papers)."""


def tokencut(
    encoder: Encoder, image: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native", tau: float = 0.2
) -> DiscoveredObjects:
    """Find one object: the side of the graph's normalized cut with the patch of the largest eigenvector entry.

    Args:
        encoder: The encoder.
        image: The image.
        layer: As for ``extract_patches``.
        size: As for ``extract_patches``.
        tau: Cosine above which two patches are similar (the paper's 0.2).

    Returns:
        One object.

    Raises:
        UsageError: If the encoder has no patches to compare.

    Source: TokenCut, section 3.
    """
    patches = extract_patches(encoder, image, layer, size)
    vector = compute_second_eigenvector(patches.features, tau)
    side, seed = select_foreground(vector)
    return objects_from_patches([select_component(patches.map(side), seed)], patches.geometry)


def maskcut(
    encoder: Encoder,
    image: LoadedImage,
    *,
    layer: str | None = None,
    size: CanvasSize = "native",
    tau: float = 0.15,
    n_objects: int = 3,
    corners: int = 2,
) -> DiscoveredObjects:
    """Find up to ``n_objects`` objects by normalized cuts in turn, each without the patches of the earlier objects.

    A cut that finds an object again (IoU above 0.5 with the one before), or at most 1 % of the image, ends the search,
    as in the authors' code. The paper also resizes to 480 x 480 pixels and refines the masks with a conditional random
    field; neither is done here.

    Args:
        encoder: The encoder.
        image: The image.
        layer: As for ``extract_patches``.
        size: As for ``extract_patches``.
        tau: Cosine above which two patches are similar (the paper's 0.15).
        n_objects: The most objects to find (the paper's 3).
        corners: A foreground that holds this many corners of the image or more is taken for the background (2 in the
            paper's text, 3 in its authors' code).

    Returns:
        The objects; no pixel belongs to two of them.

    Raises:
        UsageError: If ``n_objects`` is less than 1, or if the encoder has no patches to compare.

    Source: CutLER, section 3.2.
    """
    if n_objects < 1:
        raise UsageError(f"n_objects is a number of objects, at least 1, not {n_objects}")
    patches = extract_patches(encoder, image, layer, size)
    features, masks = patches.features, []
    taken = np.zeros(patches.grid, dtype=bool)
    for _ in range(n_objects):
        vector = compute_second_eigenvector(np.where(taken.reshape(-1, 1), 0.0, features), tau)
        side, seed = select_foreground(vector, patches.grid, corners)
        mask = select_component(patches.map(side), seed)
        if masks and (_iou(mask, masks[-1]) > 0.5 or mask.mean() <= 0.01):
            break
        masks.append(mask)
        taken |= mask
    return objects_from_patches(
        [mask & ~np.any(masks[:index], axis=0) if index else mask for index, mask in enumerate(masks)], patches.geometry
    )


def compute_second_eigenvector(
    features: Float[np.ndarray, "patches channels"], tau: float
) -> Float[np.ndarray, " patches"]:
    """Compute the eigenvector y of (D - E) y = l D y with the second smallest l.

    E is 1 between patches of cosine above ``tau``, else 1e-5; D holds its row sums. y is D^(-1/2) z, where z is an
    eigenvector of the symmetric matrix D^(-1/2) (D - E) D^(-1/2).

    Args:
        features: One vector for each patch.
        tau: Cosine above which two patches are similar.

    Returns:
        The eigenvector; its sign is arbitrary.

    Raises:
        UsageError: If there are fewer than two patches.

    Source: TokenCut, equations 3 to 5.
    """
    if len(features) < 2:
        raise UsageError("a cut needs at least two patches: use a larger image")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    edges = np.where(unit @ unit.T > tau, 1.0, EPSILON)
    root = 1 / np.sqrt(edges.sum(1))
    laplacian = np.eye(len(edges)) - root[:, None] * edges * root[None]
    _, vectors = eigh(laplacian, subset_by_index=[1, 1])
    return vectors[:, 0] * root


def select_foreground(
    vector: Float[np.ndarray, " patches"], grid: tuple[int, int] | None = None, corners: int = 4
) -> tuple[Bool[np.ndarray, " patches"], int]:
    """Select the side of the cut that is the object. The cut is at the vector's mean.

    Args:
        vector: The eigenvector.
        grid: (rows, columns) of the patches; None for TokenCut's rule alone.
        corners: With a grid, a side that holds this many corners of the image or more is the background.

    Returns:
        The mask of the object's patches, and the index of its seed. The object is the side with the entry of largest
        magnitude, which is the seed. If that side is the background, it is the other side, and the seed is the entry
        there that is farthest from the mean.

    Source: TokenCut, section 3.2; CutLER, section 3.2, for the corners.
    """
    above = vector > vector.mean()
    seed = int(np.abs(vector).argmax())
    side = above if above[seed] else ~above
    if grid is not None:
        n_corners = side.reshape(grid)[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
        if n_corners >= corners:
            side = ~side
            distance = np.abs(vector - vector.mean())
            seed = int(np.where(side, distance, -1).argmax())
    return side, seed


def _iou(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / max(1, (mask | other).sum()))
