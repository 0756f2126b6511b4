"""From photos to composite features: the whole image through the frozen encoder, padding left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch

from encoscope.encoder import Encoder
from encoscope.images import Batch, Photo
from encoscope.nave.composite import Composite, composite
from encoscope.nave.settings import Resolution, Settings

Item = TypeVar("Item")


def composite_features(
    encoder: Encoder, batch: Batch, settings: Settings, *, dtype: torch.dtype | None = None
) -> tuple[Composite, tuple[int, int]]:
    """The composite features of a batch whose images share one geometry, and the (rows, columns) of the padded grid."""
    activations = encoder.activations(batch, settings.layers)
    maps = [activations[name].maps.to(dtype=dtype) for name in settings.layers]
    way = batch.geometries[0]
    grid = output_grid(settings.resolution, (int(maps[0].shape[2]), int(maps[0].shape[3])), way.canvas)
    return composite(maps, grid, valid=way.valid_cells(grid), weighting=settings.weighting), grid


def output_grid(resolution: Resolution, first: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The grid that is clustered: the first layer's, the canvas itself, or a number of cells along its short side."""
    if resolution == "first-layer":
        return first
    if resolution == "image":
        return canvas
    short = min(canvas)
    return max(1, round(canvas[0] * resolution / short)), max(1, round(canvas[1] * resolution / short))


def same_geometry(photos: Sequence[Photo], encoder: Encoder, settings: Settings) -> Iterator[tuple[list[int], Batch]]:
    """The photos as batches in which all share one geometry, each with the positions of its photos.

    Only photos that need the same padding go together: a network sees its padding, so a batch of mixed shapes would
    let one image change another's result.
    """
    groups: dict[tuple, list[tuple[int, Batch]]] = {}
    for position, photo in enumerate(photos):
        prepared = encoder.prepare(photo, geometry="whole", size=settings.size)
        way = prepared.geometries[0]
        groups.setdefault((way.canvas, way.valid), []).append((position, prepared))
    for members in groups.values():
        pixels = torch.cat([prepared.pixels for _, prepared in members])
        ways = tuple(prepared.geometries[0] for _, prepared in members)
        yield [position for position, _ in members], Batch(pixels, ways)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of up to ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
