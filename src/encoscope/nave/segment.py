"""Segment images one by one: frozen encoder, composite features, clustering, labels on the original pixels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import ImageError, UsageError
from encoscope.images import LoadedImage, SkippedImage, is_dataset, read_image, read_images
from encoscope.nave.composite import Composite
from encoscope.nave.features import Maps, chunks, encode
from encoscope.nave.granularity import AUTO, Granularity, elbow, granularity, inertia_of
from encoscope.nave.kmeans import kmeans
from encoscope.nave.pca import pca_labels
from encoscope.nave.segmentation import Segmentation, by_size, model_of
from encoscope.nave.settings import Clusters, NaveSettings, Resolution, Size

_log = logging.getLogger("encoscope")


def segment(
    encoder: Encoder,
    images: Any,
    *,
    clusters: Clusters = 5,
    layers: Sequence[str] | str | None = None,
    grouping: str = "kmeans",
    weighting: str | Sequence[float] = "paper",
    resolution: Resolution = "first-layer",
    size: Size = "model",
    n_init: int = 4,
    seed: int = 0,
    batch: int = 8,
) -> Segmentation | list[Segmentation]:
    """Part images by what a frozen encoder treats alike (NAVE, Algorithm 1).

    images: one image (path, PIL image, array, tensor, Photo) gives one Segmentation; a folder, several images or a
        torch Dataset give a list. Nothing is cropped: the short side is resized to ``size``, sides are padded to the
        network's stride, padding takes no part, and labels come back on the original pixels by nearest neighbour.
    clusters: K; several give nested cuts of one Ward tree, a Segmentation each; "auto" takes the elbow of the inertia
        over 3 to 10.
    layers: names from ``encoder.layers``; default: the last three stages of a CNN, the last block of a ViT.
    grouping: "kmeans" (k-means++, best of ``n_init`` starts), "ward" (deterministic), "pca" (appendix F).
    weighting: "paper" divides each layer's unit vectors by 1 + its channels, so that early, narrow layers weigh most;
        "equal"; or one factor a layer.
    resolution: of the clustered grid: the first layer's own ("first-layer", the paper's advice), the network's input
        ("image"), or that many cells along the short side.
    size: the short side in pixels, "model" (the network's own) or "native" (not resized).
    batch: images at a time; does not change the result.

    Clusters are numbered by size, 0 the largest. Raises UsageError for impossible settings, ImageError or MissingError
    for an image that cannot be read; unreadable files of a folder are left out with a warning.
    """
    settings = NaveSettings.of(
        encoder,
        clusters=clusters,
        layers=layers,
        grouping=grouping,
        weighting=weighting,
        resolution=resolution,
        size=size,
        n_init=n_init,
        seed=seed,
    )
    single = is_single(images)
    channels = encoder.preprocess.channels
    items = [read_image(images, channels=channels)] if single else read_images(images, channels=channels)
    found: list[Segmentation] = []
    for result in _stream(encoder, items, settings, batch):
        if not isinstance(result, SkippedImage):
            found.append(result[1])
        elif single or not isinstance(images, str | os.PathLike):
            raise ImageError(result.reason)
        else:
            _log.warning("left out: %s", result.reason)
    if not found:
        raise ImageError("there was no image to segment")
    return found[0] if single and not isinstance(settings.clusters, tuple) else found


def segment_stream(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], *, batch: int = 8, **settings: Any
) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
    """``segment``, with its settings, for a stream of any length, in its order, holding ``batch`` photos at a time.

    Several numbers of clusters give as many results a photo, one after the other. What cannot be segmented comes back
    as Skipped. Settings are checked, and UsageError raised, before the first photo is taken.
    """
    return _stream(encoder, items, NaveSettings.of(encoder, **settings), batch)


def is_single(images: Any) -> bool:
    """Whether this is one image, not a folder or a collection."""
    if isinstance(images, str | os.PathLike):
        return not Path(images).is_dir() and not is_dataset(images)
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim < 4
    return isinstance(images, LoadedImage | Image.Image)


def _stream(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], settings: NaveSettings, batch: int
) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
    if batch < 1:
        raise UsageError(f"batch is the number of images at a time, at least 1, not {batch}")
    for chunk in chunks(items, batch):
        results: dict[int, list[Segmentation] | SkippedImage] = {}
        photos_here: dict[int, LoadedImage] = {}
        for position, item in enumerate(chunk):
            if isinstance(item, SkippedImage):
                results[position] = item
            else:
                photos_here[position] = item
        positions, group = list(photos_here), list(photos_here.values())
        for maps in encode(encoder, group, settings):
            found = _segment_maps(encoder, [group[member] for member in maps.positions], maps, settings)
            results.update({positions[member]: cuts for member, cuts in zip(maps.positions, found, strict=True)})
        for position in range(len(chunk)):
            result = results[position]
            if isinstance(result, SkippedImage):
                yield result
            else:
                yield from ((photos_here[position], found) for found in result)


@dataclass(frozen=True)
class _Grouped:
    """One clustering of one image, on the grid."""

    labels: Int[np.ndarray, " pixels"]
    n_clusters: int
    inertia: float
    tree: Granularity | None = None


def _segment_maps(
    encoder: Encoder, group: Sequence[LoadedImage], maps: Maps, settings: NaveSettings
) -> list[list[Segmentation]]:
    """The segmentations of each of some photos that share one geometry: one, or one for each number of clusters."""
    needs_tree = settings.grouping == "ward" or isinstance(settings.clusters, tuple)
    features = maps.features(settings, dtype=torch.float64 if needs_tree else None)
    grid = maps.grid(settings.resolution)
    _check_clusters(settings.clusters, features, group[0])
    model = model_of(encoder, settings.layers)
    found = []
    for photo, way, groupings in zip(group, maps.geometries, _group(features, settings), strict=True):
        grow = partial(_grow, encoder, photo, settings)
        found.append([])
        for grouped in groupings:
            labels = by_size(grouped.labels).astype(np.uint8).reshape(features.grid)
            found[-1].append(
                Segmentation(
                    labels=way.to_original(labels, grid),
                    grid_labels=labels,
                    n_clusters=grouped.n_clusters,
                    inertia=grouped.inertia,
                    geometry=way,
                    grid=grid,
                    settings=settings.as_dict(),
                    seed=settings.seed,
                    path=photo.path,
                    _photo=photo,
                    _model=model,
                    _granularity=grouped.tree or grow,
                )
            )
    return found


def _check_clusters(clusters: int | str | tuple[int, ...], features: Composite, photo: LoadedImage) -> None:
    most = max(AUTO) if isinstance(clusters, str) else max(clusters) if isinstance(clusters, tuple) else clusters
    if most > features.pixels:
        rows, columns = features.grid
        raise UsageError(
            f"{most} clusters of {features.pixels} cells ({rows} x {columns}) in {photo.path or 'the image'}: "
            "ask for fewer clusters, or more cells with resolution or size"
        )


def _group(features: Composite, settings: NaveSettings) -> list[list[_Grouped]]:
    """The groupings of every image of a batch: one, or one for each of several numbers of clusters."""
    clusters = settings.clusters
    if settings.grouping == "ward" or isinstance(clusters, tuple):
        numbers = clusters if isinstance(clusters, tuple) else (int(clusters),)
        images = torch.arange(features.batch, device=features.device).split(1)
        return [_cuts(features.select(image), numbers, settings.seed) for image in images]
    if settings.grouping == "pca":
        labels = pca_labels(features, int(clusters))
        inertia = inertia_of(features, labels)
        return [[_Grouped(row.cpu().numpy(), int(clusters), float(i))] for row, i in zip(labels, inertia, strict=True)]
    candidates = AUTO if clusters == "auto" else (int(clusters),)
    fits = {k: kmeans(features, k, n_init=settings.n_init, seed=settings.seed) for k in candidates}
    groupings = []
    for image in range(features.batch):
        k = elbow(candidates, [float(fits[k].inertia[image]) for k in candidates])
        groupings.append([_Grouped(fits[k].labels[image].cpu().numpy(), k, float(fits[k].inertia[image]))])
    return groupings


def _cuts(features: Composite, numbers: Sequence[int], seed: int) -> list[_Grouped]:
    tree = granularity(features, seed=seed)
    return [_Grouped(tree.cut(k), k, tree.inertia(k), tree) for k in numbers]


def _grow(encoder: Encoder, photo: LoadedImage, settings: NaveSettings) -> Granularity:
    """The tree of one photo, from a forward pass of its own: maps are not kept for the few times it is asked for."""
    (maps,) = encode(encoder, [photo], settings)
    return granularity(maps.features(settings, dtype=torch.float64), seed=settings.seed)
