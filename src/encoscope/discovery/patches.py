"""A photo's patches as a method compares them, and the way from patches back to the photo's pixels."""

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


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """features: a vector per patch, row by row over ``grid``. geometry: the photo's way onto the network's canvas."""

    features: Float[np.ndarray, "patches channels"]
    grid: tuple[int, int]
    geometry: Geometry

    def map(self, values: np.ndarray) -> np.ndarray:
        """Values of patches laid out on the grid."""
        return values.reshape(self.grid)


def extract_patches(
    encoder: Encoder, photo: LoadedImage, layer: str | None = None, size: CanvasSize = "native"
) -> PatchFeatures:
    """The last block's keys, all heads in one vector (LOST, section 3.1); for a CNN the last stage's map.

    layer: the block, or the layer of a CNN. size: "native" pads the photo to whole patches, as the protocol of LOST
    does, and nothing is resized; a network of one fixed size gets the whole photo squashed to it.
    """
    batch = encoder.prepare(photo, geometry="whole", size=size if encoder.resizable else "model")
    geometry = batch.geometries[0]
    if any(info.kind == "tokens" for info in encoder.layers):
        found = read_attention_keys(encoder, batch, layer)
        keys = found.keys[0, :, found.prefix :].transpose(0, 1).flatten(1)
        return PatchFeatures(_array(keys), found.grid, geometry)
    name = layer or encoder.depths[-1]
    maps = encoder.activations(batch, name)[encoder.layer(name).name].maps[0]
    return PatchFeatures(_array(maps.flatten(1).T), (maps.shape[1], maps.shape[2]), geometry)


def read_class_attention(
    encoder: Encoder, photo: LoadedImage, layer: str | None = None, size: CanvasSize = "native"
) -> tuple[Float[np.ndarray, "heads patches"], PatchFeatures]:
    """The class token's attention to each patch, by head, and the patches. UsageError without either."""
    batch = encoder.prepare(photo, geometry="whole", size=size if encoder.resizable else "model")
    found: AttentionKeys = read_attention_keys(encoder, batch, layer)
    if found.attention is None or not found.prefix:
        lack = "class token" if not found.prefix else "attention that queries and keys alone determine"
        raise UsageError(f"{encoder.source} has no {lack}, so a class token's attention cannot be read")
    keys = found.keys[0, :, found.prefix :].transpose(0, 1).flatten(1)
    return _array(found.attention[0, :, 0, found.prefix :]), PatchFeatures(
        _array(keys), found.grid, batch.geometries[0]
    )


def select_component(mask: Bool[np.ndarray, "rows columns"], seed: int) -> Bool[np.ndarray, "rows columns"]:
    """The 4-connected part of a mask that holds a patch (numbered row by row); empty where the mask does not."""
    numbers = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=numbers)
    number = numbers.ravel()[seed]
    return (numbers == number) & (number > 0)


def select_largest_component(mask: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """The 4-connected part of a mask with the most patches, the first at a tie; empty for an empty mask."""
    numbers = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, output=numbers)
    counts = np.bincount(numbers.ravel())
    counts[0] = 0
    return (numbers == counts.argmax()) & (counts.max(initial=0) > 0)


def objects_from_patches(found: Sequence[Bool[np.ndarray, "rows columns"]], geometry: Geometry) -> DiscoveredObjects:
    """Masks of patches as objects of the photo: boxes end at the patches' outer edges, clipped to the photo."""
    masks, boxes = [], []
    for cells in found:
        if not cells.any():
            continue
        grid = (cells.shape[0], cells.shape[1])
        rows, columns = (_cells(geometry, grid, axis) for axis in (0, 1))
        masks.append(cells[np.ix_(rows, columns)])
        ys, xs = (np.flatnonzero(cells.any(axis)) for axis in (1, 0))
        top, bottom = _edges(geometry, grid, 0, ys)
        left, right = _edges(geometry, grid, 1, xs)
        boxes.append((left, top, right, bottom))
    return objects_from_masks(masks, boxes, geometry.original)


def _cells(geometry: Geometry, grid: tuple[int, int], axis: int) -> np.ndarray:
    """The patch that each row (column) of the photo lies in."""
    centre = (np.arange(geometry.original[axis]) + 0.5) * geometry.resized[axis] / geometry.original[axis]
    at = (centre - geometry.offset[axis]) * grid[axis] / geometry.canvas[axis]
    return np.clip(np.floor(at).astype(np.int64), 0, grid[axis] - 1)


def _edges(geometry: Geometry, grid: tuple[int, int], axis: int, cells: np.ndarray) -> tuple[float, float]:
    """The outer edges of the first and last patch, in the photo's pixels."""
    length = geometry.original[axis]
    ends = np.array([cells[0], cells[-1] + 1]) * geometry.canvas[axis] / grid[axis] + geometry.offset[axis]
    low, high = np.clip(ends * length / geometry.resized[axis], 0, length)
    return float(low), float(high)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
