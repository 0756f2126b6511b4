"""Segment images one by one: frozen encoder, composite features, clustering, labels on the original pixels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import ImageError, UsageError, explain_calls
from encoscope.images import LoadedImage, SkippedImage, read_image, read_images
from encoscope.nave.attention_heads import assign_to_heads
from encoscope.nave.composite import Composite
from encoscope.nave.feature_colors import color_with
from encoscope.nave.features import Maps, encode_images, split_chunks
from encoscope.nave.fragments import join_fragments
from encoscope.nave.granularity import (
    AUTO,
    Granularity,
    compute_inertia,
    find_elbow,
    find_smallest_drop,
    grow_granularity,
)
from encoscope.nave.inputs import ImageLike, is_single
from encoscope.nave.kmeans import KMeansResult, kmeans
from encoscope.nave.pca import pca_labels
from encoscope.nave.segmentation import Segmentation, model_of, renumber_by_size
from encoscope.nave.settings import BATCH_SIZE, Clusters, Layers, NaveSettings, Resolution, Size, Upsampler, Weighting
from encoscope.progress import Progress, track
from encoscope.results import ResultList
from encoscope.settings import refuse_unknown

ABSOLUTE_TOLERANCE = 1e-5
"""Of the authors' k-means."""

_log = logging.getLogger("encoscope")


Cut: TypeAlias = int | Literal["auto", "smallest-drop"] | None  # one number of clusters


@overload
def segment(
    encoder: Encoder | nn.Module | str,
    images: ImageLike,
    *,
    preset: str | None = None,
    n_clusters: Cut = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    min_region: float | None = None,
    n_init: int | None = None,
    tolerance: str | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
) -> Segmentation: ...
@overload
def segment(
    encoder: Encoder | nn.Module | str,
    images: ImageLike,
    *,
    preset: str | None = None,
    n_clusters: Sequence[int],
    layers: Layers | None = None,
    grouping: str | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    min_region: float | None = None,
    n_init: int | None = None,
    tolerance: str | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
) -> ResultList[Segmentation]: ...
@overload
def segment(
    encoder: Encoder | nn.Module | str,
    images: Iterable[Any],
    *,
    preset: str | None = None,
    n_clusters: Clusters | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    min_region: float | None = None,
    n_init: int | None = None,
    tolerance: str | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
) -> ResultList[Segmentation]: ...
@explain_calls
def segment(
    encoder: Encoder | nn.Module | str,
    images: Any,
    *,
    preset: str | None = None,
    n_clusters: Clusters | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    weighting: Weighting | None = None,
    normalization: str | None = None,
    resolution: Resolution | None = None,
    size: Size | None = None,
    upsampler: Upsampler | None = None,
    min_region: float | None = None,
    n_init: int | None = None,
    tolerance: str | None = None,
    random_state: int = NaveSettings.random_state,
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    **unknown: Any,
) -> Segmentation | ResultList[Segmentation]:
    """Segment images into what a frozen encoder treats alike (NAVE).

    Nothing is cropped: the short side is resized to ``size``, the sides are padded to the network's stride, padding
    takes no part, and labels come back on the original pixels by nearest neighbor. Clusters are numbered by size, 0 the
    largest. `NaveSettings` says what each setting means and what its default is.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50".
        images: One image (a path, a PIL image, an array, a tensor) or several: a list, a torch Dataset. The path of a
            folder, and a dataset string, stand for the list of their images.
        preset: "default", "paper" or "authors"; None is "default".
        n_clusters: K, from 1 to 256; several give nested cuts of one Ward tree, a result each; "auto" takes the elbow
            of the inertia over 3 to 10, "smallest-drop" the rule of the authors' code.
        layers: Names from ``encoder.layers``, as a list or with commas.
        grouping: "kmeans", "ward", "pca", or "attn": the heads of a transformer's last block.
        weighting: "paper", "equal", "variance", or one factor for each layer.
        normalization: "unit", "centered" or "none".
        resolution: "first-layer", "double", "image", or cells along the short side of the grid that is clustered.
        size: "auto", "model", "native", or the short side in pixels.
        upsampler: "py:module:function" or a function: maps and image to maps of a higher resolution.
        min_region: Connected regions below this share of the image join the one beside them that they resemble most.
        n_init: Starts of k-means, the best of which is kept.
        tolerance: "relative" or "absolute": when k-means stops.
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        A Segmentation for one image; a list for several images or several numbers of clusters.

    Raises:
        UsageError: For settings that cannot be.
        ImageError: For an image that cannot be read; unreadable files of a folder are left out with a warning.
        MissingError: For a file or weights that are not there.

    Example:
        >>> seg = encoscope.segment("zoo:resnet-caltech101", "cat.jpg", n_clusters=5)  # doctest: +SKIP
        >>> seg.overlay().save("cat.overlay.png")  # doctest: +SKIP

    Source: NAVE, Algorithm 1.
    """
    refuse_unknown("segment", unknown, [*NaveSettings.infos(), "batch_size", "progress"])
    changes: dict[str, Any] = {
        "n_clusters": n_clusters,
        "grouping": grouping,
        "weighting": weighting,
        "normalization": normalization,
        "resolution": resolution,
        "size": size,
        "upsampler": upsampler,
        "min_region": min_region,
        "n_init": n_init,
        "tolerance": tolerance,
        "random_state": random_state,
    }
    NaveSettings.without_layers(preset, **changes)  # wrong values fail before the network is loaded
    encoder = as_encoder(encoder)
    settings = NaveSettings.of(encoder, preset, layers=layers, **changes)
    single = is_single(images)
    channels = encoder.preprocess.image_channels
    items = [read_image(images, channels=channels)] if single else read_images(images, channels=channels)
    segmentations: ResultList[Segmentation] = ResultList()
    stream = segment_with(encoder, items, settings, batch_size=batch_size)
    for result in stream if single else track(stream, None, "segment", progress):
        if not isinstance(result, SkippedImage):
            segmentations.append(result[1])
        elif single or not isinstance(images, str | os.PathLike):
            raise ImageError(result.reason)
        else:
            _log.warning("left out: %s", result.reason)
    if not segmentations:
        raise ImageError("there was no image to segment")
    return segmentations[0] if single and not isinstance(settings.n_clusters, tuple) else segmentations


def segment_stream(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], *, batch_size: int = BATCH_SIZE, **settings: Any
) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
    """Segment a stream of images of any length, in its order, holding one batch at a time.

    Args:
        encoder: The encoder.
        items: Images, and images that could not be read.
        batch_size: Images at a time; it does not change the result.
        **settings: Those of `NaveSettings`, checked before the first image is taken.

    Returns:
        An iterator over pairs of an image and its segmentation. Several numbers of clusters give as many pairs for an
        image, one after the other. What cannot be segmented comes back as SkippedImage.

    Raises:
        UsageError: For settings that cannot be.
    """
    return segment_with(encoder, items, NaveSettings.of(encoder, **settings), batch_size=batch_size)


def segment_with(
    encoder: Encoder,
    items: Iterable[LoadedImage | SkippedImage],
    settings: NaveSettings,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
    """Do what `segment_stream` does, with settings that were checked already.

    Args:
        encoder: The encoder.
        items: Images, and images that could not be read.
        settings: The settings, from ``NaveSettings.of``.
        batch_size: Images at a time; it does not change the result.

    Returns:
        An iterator over pairs of an image and its segmentation, and images that could not be segmented.

    Raises:
        UsageError: For a batch size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is the number of images at a time, at least 1, not {batch_size}")
    return _stream(encoder, items, settings, batch_size)


def _stream(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], settings: NaveSettings, batch_size: int
) -> Iterator[tuple[LoadedImage, Segmentation] | SkippedImage]:
    encoder.warn_if_random()
    for chunk in split_chunks(items, batch_size):
        results: dict[int, list[Segmentation] | SkippedImage] = {}
        readable: dict[int, LoadedImage] = {}
        for position, item in enumerate(chunk):
            if isinstance(item, SkippedImage):
                results[position] = item
            else:
                readable[position] = item
        positions, group = list(readable), list(readable.values())
        for maps in encode_images(encoder, group, settings):
            members = [group[member] for member in maps.positions]
            segmentations = segment_maps(encoder, members, maps, settings)
            results.update(zip((positions[member] for member in maps.positions), segmentations, strict=True))
        for position in range(len(chunk)):
            result = results[position]
            if isinstance(result, SkippedImage):
                yield result
            else:
                yield from ((readable[position], segmentation) for segmentation in result)


@dataclass(frozen=True)
class _Grouped:
    """One clustering of one image, on the grid."""

    labels: Int[np.ndarray, " pixels"]
    n_clusters: int
    inertia: float
    tree: Granularity | None = None


def segment_maps(
    encoder: Encoder, group: Sequence[LoadedImage], maps: Maps, settings: NaveSettings
) -> list[list[Segmentation]]:
    """Segment images that share one geometry, whose maps are there.

    Args:
        encoder: The encoder that the maps come from.
        group: The images.
        maps: Their maps of ``settings.layers``.
        settings: The settings, from ``NaveSettings.of``.

    Returns:
        For each image its segmentation, or one for each number of clusters.
    """
    needs_tree = settings.grouping == "ward" or isinstance(settings.n_clusters, tuple)
    features = maps.features(settings, dtype=torch.float64 if needs_tree else None)
    grid = maps.grid(settings.resolution)
    _check_clusters(settings.n_clusters, features, group[0])
    model = model_of(encoder, settings.layers)
    segmentations = []
    groups = _group_by_heads(features, maps, grid) if settings.grouping == "attn" else _group(features, settings)
    for index, (image, geometry, groupings) in enumerate(zip(group, maps.geometries, groups, strict=True)):
        grow = partial(_grow_tree, encoder, image, settings)
        segmentations.append([])
        for grouped in groupings:
            if settings.min_region:
                grouped = _join_fragments(grouped, features.select(torch.tensor([index])), settings.min_region)
            labels = renumber_by_size(grouped.labels).astype(np.uint8).reshape(features.grid)
            segmentations[-1].append(
                Segmentation(
                    labels=geometry.to_original(labels, grid),
                    grid_labels=labels,
                    n_clusters=grouped.n_clusters,
                    inertia=grouped.inertia,
                    geometry=geometry,
                    grid=grid,
                    settings=settings.as_dict(),
                    seed=settings.random_state,
                    path=image.path,
                    _image=image,
                    _model=model,
                    _granularity=grouped.tree or grow,
                    _color=partial(color_with, encoder, image, settings),
                )
            )
    return segmentations


def _check_clusters(clusters: int | str | tuple[int, ...], features: Composite, image: LoadedImage) -> None:
    most = max(AUTO) if isinstance(clusters, str) else max(clusters) if isinstance(clusters, tuple) else clusters
    if most > features.pixels:
        rows, columns = features.grid
        raise UsageError(
            f"{most} clusters of {features.pixels} cells ({rows} x {columns}) in {image.path or 'the image'}: "
            "ask for fewer clusters, or more cells with resolution or size"
        )


def _group(features: Composite, settings: NaveSettings) -> list[list[_Grouped]]:
    """The groupings of every image of a batch: one, or one for each of several numbers of clusters."""
    clusters = settings.n_clusters
    if settings.grouping == "ward" or isinstance(clusters, tuple):
        numbers = clusters if isinstance(clusters, tuple) else (int(clusters),)
        images = torch.arange(features.batch, device=features.device).split(1)
        return [_cuts(features.select(image), numbers, settings.random_state) for image in images]
    if settings.grouping == "pca":
        labels = pca_labels(features, int(clusters))
        inertia = compute_inertia(features, labels)
        return [[_Grouped(row.cpu().numpy(), int(clusters), float(i))] for row, i in zip(labels, inertia, strict=True)]
    candidates = AUTO if isinstance(clusters, str) else (clusters,)
    find = find_smallest_drop if clusters == "smallest-drop" else find_elbow
    fits = {k: _fit(features, k, settings) for k in candidates}
    groupings = []
    for image in range(features.batch):
        k = find(candidates, [float(fits[k].inertia[image]) for k in candidates])
        if k not in fits:
            fits[k] = _fit(features, k, settings)
        groupings.append([_Grouped(fits[k].labels[image].cpu().numpy(), k, float(fits[k].inertia[image]))])
    return groupings


def _fit(features: Composite, n_clusters: int, settings: NaveSettings) -> KMeansResult:
    relative = settings.tolerance == "relative"
    tol, starts, seed = 1e-4 if relative else ABSOLUTE_TOLERANCE, settings.n_init, settings.random_state
    return kmeans(features, n_clusters, n_init=starts, tol=tol, relative=relative, random_state=seed)


def _group_by_heads(features: Composite, maps: Maps, grid: tuple[int, int]) -> list[list[_Grouped]]:
    assert maps.heads is not None
    labels = assign_to_heads(maps.heads, grid, features.grid)
    inertia = compute_inertia(features, labels)
    heads = int(maps.heads.shape[1])
    return [[_Grouped(row.cpu().numpy(), heads, float(i))] for row, i in zip(labels, inertia, strict=True)]


def _join_fragments(grouped: _Grouped, features: Composite, min_region: float) -> _Grouped:
    labels = join_fragments(grouped.labels.reshape(features.grid), features, min_region).ravel()
    inertia = compute_inertia(features, torch.from_numpy(labels)[None].to(features.device))
    return replace(grouped, labels=labels, inertia=float(inertia[0]))


def _cuts(features: Composite, numbers: Sequence[int], random_state: int) -> list[_Grouped]:
    tree = grow_granularity(features, random_state=random_state)
    return [_Grouped(tree.cut(k), k, tree.inertia(k), tree) for k in numbers]


def _grow_tree(encoder: Encoder, image: LoadedImage, settings: NaveSettings) -> Granularity:
    """The tree of one image, from a forward pass of its own: maps are not kept for the few times it is asked for."""
    (maps,) = encode_images(encoder, [image], settings)
    return grow_granularity(maps.features(settings, dtype=torch.float64), random_state=settings.random_state)
