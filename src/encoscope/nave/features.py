"""From photos to composite features: the whole image through the frozen encoder, padding left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.images import Batch, Geometry, LoadedImage
from encoscope.nave.composite import Composite, compose_features
from encoscope.nave.settings import NaveSettings, Resolution

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of some images that share one geometry: one tensor a layer, in the network's order.

    positions: of the images in the sequence that was encoded. geometries: one an image; canvas and valid part agree.
    """

    positions: list[int]
    geometries: tuple[Geometry, ...]
    layers: list[Float[Tensor, "batch _c _h _w"]]

    def grid(self, resolution: Resolution) -> tuple[int, int]:
        """(rows, columns) of the grid to cluster, padding included: the first layer's, the canvas, or N on its side."""
        canvas = self.geometries[0].canvas
        if resolution == "first-layer":
            return int(self.layers[0].shape[2]), int(self.layers[0].shape[3])
        if resolution == "image":
            return canvas
        cells = int(resolution) / min(canvas)
        return max(1, round(canvas[0] * cells)), max(1, round(canvas[1] * cells))

    def features(self, settings: NaveSettings, *, dtype: torch.dtype | None = None) -> Composite:
        """The composite features of these images, in a dtype of one's own or the maps'."""
        grid = self.grid(settings.resolution)
        maps = [layer.to(dtype=dtype) for layer in self.layers]
        return compose_features(maps, grid, valid=self.geometries[0].valid_cells(grid), weighting=settings.weighting)


def encode_images(encoder: Encoder, photos: Sequence[LoadedImage], settings: NaveSettings) -> Iterator[Maps]:
    """The photos through the encoder, those of one geometry together.

    Only photos that need the same padding share a batch: a network sees its padding, so a batch of mixed shapes would
    let one image change another's result.
    """
    size = cast('int | Literal["model", "native"]', settings.size)  # checked by Settings
    groups: dict[tuple, list[tuple[int, Batch]]] = {}
    for position, photo in enumerate(photos):
        prepared = encoder.prepare(photo, geometry="whole", size=size)
        way = prepared.geometries[0]
        groups.setdefault((way.canvas, way.valid), []).append((position, prepared))
    for members in groups.values():
        pixels = torch.cat([prepared.pixels for _, prepared in members])
        ways = tuple(prepared.geometries[0] for _, prepared in members)
        activations = encoder.activations(Batch(pixels, ways), settings.layers)
        yield Maps([position for position, _ in members], ways, [activations[name].maps for name in settings.layers])


def split_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of up to ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
