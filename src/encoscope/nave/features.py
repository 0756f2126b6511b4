"""From images to composite features: the whole image through the frozen encoder, padding left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.images import Batch, Geometry, LoadedImage, SkippedImage
from encoscope.nave.attention_heads import read_head_maps
from encoscope.nave.composite import Composite, compose_features
from encoscope.nave.settings import NaveSettings, Resolution
from encoscope.nave.upsampler import upsample_maps

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of some images that share one geometry: one tensor for each layer, in the network's order.

    Attributes:
        positions: The positions of the images in the sequence that was encoded.
        geometries: One for each image; canvas and valid extent agree.
        layers: ``[B, C, h, w]`` for each layer.
        heads: ``[B, heads, rows, columns]``, the class token's attention, where the grouping goes by it.
    """

    positions: list[int]
    geometries: tuple[Geometry, ...]
    layers: list[Float[Tensor, "batch _c _h _w"]]
    heads: Float[Tensor, "batch _n _h _w"] | None = None

    def grid(self, resolution: Resolution) -> tuple[int, int]:
        """Compute the grid to cluster, padding included.

        Args:
            resolution: "first-layer", "double" (twice that), "image" (the canvas), or cells along the canvas's short
                side.

        Returns:
            (rows, columns).
        """
        canvas = self.geometries[0].canvas
        if resolution in ("first-layer", "double"):
            times = 2 if resolution == "double" else 1
            return times * int(self.layers[0].shape[2]), times * int(self.layers[0].shape[3])
        if resolution == "image":
            return canvas
        cells = int(resolution) / min(canvas)
        return max(1, round(canvas[0] * cells)), max(1, round(canvas[1] * cells))

    def features(self, settings: NaveSettings, *, dtype: torch.dtype | None = None) -> Composite:
        """Compose the features of these images.

        Args:
            settings: The settings.
            dtype: The type to compute in; None for the maps' own.

        Returns:
            The composite features.
        """
        grid = self.grid(settings.resolution)
        maps = [layer.to(dtype=dtype) for layer in self.layers]
        return compose_features(
            maps,
            grid,
            valid=self.geometries[0].valid_cells(grid),
            weighting=settings.weighting,
            normalization=settings.normalization,
        )

    def select(self, layers: Sequence[str], names: Sequence[str]) -> Maps:
        """Take some of the layers.

        Args:
            layers: The names of all layers that these maps are of, in the network's order.
            names: Those to take.

        Returns:
            The maps of these layers, in the network's order.
        """
        kept = [maps for name, maps in zip(layers, self.layers, strict=True) if name in names]
        return Maps(self.positions, self.geometries, kept, self.heads)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """One image with its composite features.

    Attributes:
        image: The image.
        features: Its composite features, a batch of one.
        geometry: How the image came into the network.
        grid: (rows, columns) of the grid of the features, padding included.
    """

    image: LoadedImage
    features: Composite
    geometry: Geometry
    grid: tuple[int, int]


def encode_images(encoder: Encoder, images: Sequence[LoadedImage], settings: NaveSettings) -> Iterator[Maps]:
    """Run images through the encoder, those of one geometry together.

    Only images that need the same padding share a batch: a network sees its padding, so a batch of mixed shapes would
    let one image change another's result.

    Args:
        encoder: The encoder.
        images: The images.
        settings: The settings, from ``NaveSettings.of``.

    Yields:
        The maps of each group of images.
    """
    size = cast('int | Literal["model", "native"]', settings.size)  # checked by Settings
    groups: dict[tuple, list[tuple[int, Batch]]] = {}
    for position, image in enumerate(images):
        prepared = encoder.prepare(image, geometry="whole", size=size)
        geometry = prepared.geometries[0]
        groups.setdefault((geometry.canvas, geometry.valid), []).append((position, prepared))
    for members in groups.values():
        pixels = torch.cat([prepared.pixels for _, prepared in members])
        geometries = tuple(prepared.geometries[0] for _, prepared in members)
        batch = Batch(pixels, geometries)
        activations = encoder.activations(batch, settings.layers)
        layers = [activations[name].maps for name in settings.layers]
        if settings.upsampler is not None:
            layers = upsample_maps(settings.upsampler, layers, pixels)
        heads = read_head_maps(encoder, batch) if settings.grouping == "attn" else None
        yield Maps([position for position, _ in members], geometries, layers, heads)


def encode_stream(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], settings: NaveSettings, batch_size: int
) -> Iterator[EncodedImage | SkippedImage]:
    """Compose the features of each image of a stream, in its order, holding one batch at a time.

    Args:
        encoder: The encoder.
        items: Images, and images that could not be read.
        settings: The settings, from ``NaveSettings.of``.
        batch_size: Images at a time.

    Yields:
        The images with their features; what could not be read comes back as it is.
    """
    for chunk in split_chunks(items, batch_size):
        readable = [position for position, item in enumerate(chunk) if isinstance(item, LoadedImage)]
        group = [item for item in chunk if isinstance(item, LoadedImage)]
        encoded: dict[int, EncodedImage] = {}
        for maps in encode_images(encoder, group, settings):
            features, grid = maps.features(settings), maps.grid(settings.resolution)
            for member, (position, geometry) in enumerate(zip(maps.positions, maps.geometries, strict=True)):
                alone = features.select(torch.tensor([member], device=features.device))
                encoded[readable[position]] = EncodedImage(group[position], alone, geometry, grid)
        for position, item in enumerate(chunk):
            yield item if isinstance(item, SkippedImage) else encoded[position]


def split_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Split items into consecutive lists.

    Args:
        items: The items.
        size: The length of a list; the last may be shorter.

    Yields:
        The lists.
    """
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
