"""The patches of an image as methods compare them, and masks of patches in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from encoscope.discovery.attention import AttentionKeys, read_attention_keys
from encoscope.discovery.result import DiscoveredObjects, objects_from_masks
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Geometry, LoadedImage

CanvasSize: TypeAlias = int | Literal["native", "model"]
"""The short side of an image in pixels, "native" for its own size, or "model" for the network's."""


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """The patches of one image.

    Attributes:
        features: One vector for each patch, row by row.
        grid: (rows, columns) of the patches.
        geometry: How the image's pixels lie on the network's input.
    """

    features: Float[np.ndarray, "patches channels"]
    grid: tuple[int, int]
    geometry: Geometry

    def map(self, values: np.ndarray) -> np.ndarray:
        """Lay out values of patches on the grid.

        Args:
            values: One value for each patch.

        Returns:
            ``[rows, columns]``.
        """
        return values.reshape(self.grid)


def extract_patches(
    encoder: Encoder, image: LoadedImage, layer: str | None = None, size: CanvasSize = "native"
) -> PatchFeatures:
    """Extract a feature vector for each patch of an image: a block's keys, or a CNN's map.

    Args:
        encoder: The encoder.
        image: The image.
        layer: The name of a block, or of a layer of a CNN; None takes the last block or stage.
        size: The short side in pixels. "native" pads the image to whole patches, as the protocol of LOST does, and
            resizes nothing. A network that takes one size only gets the whole image squashed to that size.

    Returns:
        The patches. A vector of a transformer holds the keys of all heads.

    Raises:
        UsageError: For an unknown layer, and for a transformer whose keys cannot be read.

    Source: LOST, section 3.1.
    """
    batch = encoder.prepare(image, geometry="whole", size=size if encoder.resizable else "model")
    geometry = batch.geometries[0]
    if any(info.kind == "tokens" for info in encoder.layers):
        attention = read_attention_keys(encoder, batch, layer)
        keys = attention.keys[0, :, attention.prefix :].transpose(0, 1).flatten(1)
        return PatchFeatures(_to_array(keys), attention.grid, geometry)
    name = layer or encoder.depths[-1]
    maps = encoder.activations(batch, name)[encoder.layer(name).name].maps[0]
    return PatchFeatures(_to_array(maps.flatten(1).T), (maps.shape[1], maps.shape[2]), geometry)


def read_class_attention(
    encoder: Encoder, image: LoadedImage, layer: str | None = None, size: CanvasSize = "native"
) -> tuple[Float[np.ndarray, "heads patches"], PatchFeatures]:
    """Read the class token's attention to the patches of an image.

    Args:
        encoder: The encoder, a vision transformer.
        image: The image.
        layer: The name of a block; None takes the last.
        size: As for ``extract_patches``.

    Returns:
        The attention of each head to each patch, and the patches.

    Raises:
        UsageError: For a network without a class token, and for attention that depends on more than queries and keys.
    """
    batch = encoder.prepare(image, geometry="whole", size=size if encoder.resizable else "model")
    attention: AttentionKeys = read_attention_keys(encoder, batch, layer)
    if attention.attention is None or not attention.prefix:
        lacking = "class token" if not attention.prefix else "attention that queries and keys alone determine"
        raise UsageError(f"{encoder.source} has no {lacking}, so a class token's attention cannot be read")
    keys = attention.keys[0, :, attention.prefix :].transpose(0, 1).flatten(1)
    return _to_array(attention.attention[0, :, 0, attention.prefix :]), PatchFeatures(
        _to_array(keys), attention.grid, batch.geometries[0]
    )


def select_component(mask: Bool[np.ndarray, "rows columns"], random_state: int) -> Bool[np.ndarray, "rows columns"]:
    """Select the 4-connected component of a mask that holds a patch.

    Args:
        mask: A mask of patches.
        random_state: The index of the patch, counted row by row.

    Returns:
        The component; empty if the mask does not hold the patch.

    Example:
        >>> select_component(np.array([[True, False, True]]), 2).tolist()
        [[False, False, True]]
    """
    numbers = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=numbers)
    number = numbers.ravel()[random_state]
    return (numbers == number) & (number > 0)


def select_largest_component(mask: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Select the largest 4-connected component of a mask.

    Args:
        mask: A mask of patches.

    Returns:
        The component with the most patches; of equal ones the first. Empty for an empty mask.

    Example:
        >>> select_largest_component(np.array([[True, False, True, True]])).tolist()
        [[False, False, True, True]]
    """
    numbers = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=numbers)
    counts = np.bincount(numbers.ravel())
    counts[0] = 0
    return (numbers == counts.argmax()) & (counts.max(initial=0) > 0)


def objects_from_patches(masks: Sequence[Bool[np.ndarray, "rows columns"]], geometry: Geometry) -> DiscoveredObjects:
    """Turn masks of patches into objects of the image.

    Args:
        masks: One mask of patches for each object; empty masks are left out.
        geometry: How the image's pixels lie on the network's input.

    Returns:
        The objects. Boxes end at the outer edges of the patches, clipped to the image.
    """
    pixel_masks, boxes = [], []
    for cells in masks:
        if not cells.any():
            continue
        grid = (cells.shape[0], cells.shape[1])
        rows, columns = (_find_cells(geometry, grid, axis) for axis in (0, 1))
        pixel_masks.append(cells[np.ix_(rows, columns)])
        ys, xs = (np.flatnonzero(cells.any(axis)) for axis in (1, 0))
        top, bottom = _find_edges(geometry, grid, 0, ys)
        left, right = _find_edges(geometry, grid, 1, xs)
        boxes.append((left, top, right, bottom))
    return objects_from_masks(pixel_masks, boxes, geometry.original)


def _find_cells(geometry: Geometry, grid: tuple[int, int], axis: int) -> np.ndarray:
    """The index of the patch that each row (column) of the image lies in."""
    centre = (np.arange(geometry.original[axis]) + 0.5) * geometry.resized[axis] / geometry.original[axis]
    position = (centre - geometry.offset[axis]) * grid[axis] / geometry.canvas[axis]
    return np.clip(np.floor(position).astype(np.int64), 0, grid[axis] - 1)


def _find_edges(geometry: Geometry, grid: tuple[int, int], axis: int, cells: np.ndarray) -> tuple[float, float]:
    """The outer edges of the first and last patch, in the image's pixels."""
    length = geometry.original[axis]
    ends = np.array([cells[0], cells[-1] + 1]) * geometry.canvas[axis] / grid[axis] + geometry.offset[axis]
    low, high = np.clip(ends * length / geometry.resized[axis], 0, length)
    return float(low), float(high)


def _to_array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
