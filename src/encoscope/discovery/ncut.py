"""Normalized cuts on patches: TokenCut (Wang et al., 2022) and MaskCut (CutLER: Wang et al., 2023)."""

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
    encoder: Encoder, photo: LoadedImage, *, layer: str | None = None, size: CanvasSize = "native", tau: float = 0.2
) -> DiscoveredObjects:
    """One object: the side of the graph's normalized cut that holds the patch with the largest eigenvector entry.

    tau: cosine from which two patches are alike (the paper's 0.2).
    """
    found = extract_patches(encoder, photo, layer, size)
    vector = compute_second_eigenvector(found.features, tau)
    side, seed = select_foreground(vector)
    return objects_from_patches([select_component(found.map(side), seed)], found.geometry)


def maskcut(
    encoder: Encoder,
    photo: LoadedImage,
    *,
    layer: str | None = None,
    size: CanvasSize = "native",
    tau: float = 0.15,
    n_objects: int = 3,
    corners: int = 2,
) -> DiscoveredObjects:
    """Up to ``n_objects`` objects: normalized cuts in turn, each with the patches of the earlier ones taken out.

    tau 0.15 and three objects are the paper's. corners: a foreground that holds this many corners of the image or more
    is taken for the background (the paper's text; its authors' code takes 3). After that code, a cut that finds an
    object again (IoU above 0.5 with the one before), or at most 1 % of the image, ends the search. The paper resizes
    to 480 x 480 pixels and refines masks with a conditional random field; neither is done here.
    """
    if n_objects < 1:
        raise UsageError(f"n_objects is how many objects are looked for, at least 1, not {n_objects}")
    found = extract_patches(encoder, photo, layer, size)
    features, masks = found.features, []
    taken = np.zeros(found.grid, dtype=bool)
    for _ in range(n_objects):
        vector = compute_second_eigenvector(np.where(taken.reshape(-1, 1), 0.0, features), tau)
        side, seed = select_foreground(vector, found.grid, corners)
        mask = select_component(found.map(side), seed)
        if masks and (_iou(mask, masks[-1]) > 0.5 or mask.mean() <= 0.01):
            break
        masks.append(mask)
        taken |= mask
    return objects_from_patches(
        [mask & ~np.any(masks[:place], axis=0) if place else mask for place, mask in enumerate(masks)], found.geometry
    )


def compute_second_eigenvector(
    features: Float[np.ndarray, "patches channels"], tau: float
) -> Float[np.ndarray, " patches"]:
    """The eigenvector y of (D - E) y = l D y with the second smallest l (TokenCut, eqs. 3 to 5).

    E: 1 between patches of cosine above ``tau``, 1e-5 else; D: its row sums. Found as D^(-1/2) z, z being an
    eigenvector of the symmetric D^(-1/2) (D - E) D^(-1/2). Its sign means nothing.
    """
    if len(features) < 2:
        raise UsageError("a cut needs at least two patches: take a larger image")
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
    """The side of the cut at the vector's mean that is the object, and its seed.

    It is the side with the entry of largest magnitude (TokenCut, section 3.2), whose patch is the seed; with a grid,
    the other one where that side holds ``corners`` corners of the image or more (CutLER, section 3.2), its seed then
    being its own extreme entry.
    """
    above = vector > vector.mean()
    seed = int(np.abs(vector).argmax())
    side = above if above[seed] else ~above
    if grid is not None:
        held = side.reshape(grid)[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
        if held >= corners:
            side = ~side
            away = np.abs(vector - vector.mean())
            seed = int(np.where(side, away, -1).argmax())
    return side, seed


def _iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max(1, (one | two).sum()))
