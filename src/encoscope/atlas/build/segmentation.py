"""How images are segmented (NAVE): every layer, each image alone and all together, with the features of each region."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int

from encoscope.atlas import trees
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import BuildPlan
from encoscope.atlas.records import (
    CircuitLink,
    ImageRecord,
    ImageSegmentation,
    LabelMap,
    Measure,
    NodeTop,
    SegmentationInfo,
)
from encoscope.atlas.writer import Writer
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import LoadedImage, SkippedImage, read_images
from encoscope.nave import Nave, segment_stream
from encoscope.nave.layers import choose_size
from encoscope.nave.settings import Size
from encoscope.progress import track_steps
from encoscope.units import Unit, unit_weights

LEAVES = 20
SIZE = "auto"
"""As by ``segment``; the features of regions are measured at the network's own size, as all others."""
Segmented: TypeAlias = tuple[LoadedImage, np.ndarray, trees.Merges]
"""An image, its leaves on the grid, and the merges of its own tree; no merges where all images share one tree."""

Segmenter: TypeAlias = Callable[[Sequence[LoadedImage]], Iterator[Segmented]]

FOLDER = "nave"
_TOP = 4  # features of a region
_CHUNK = 8  # images that are in memory at once


@dataclass(frozen=True)
class UnitStatistics:
    """What regions are compared with: units of layers, with their statistics over the images.

    Attributes:
        encoder: The encoder.
        units: Units that have a map.
        mean: Of every unit's values over the images.
        std: Standard deviation of every unit's values over the images.
    """

    encoder: Encoder
    units: tuple[Unit, ...]
    mean: Float[np.ndarray, " units"]
    std: Float[np.ndarray, " units"]

    @classmethod
    def select(cls, encoder: Encoder, units: Sequence[Unit], mean: np.ndarray, std: np.ndarray) -> UnitStatistics:
        """The units that have a map.

        Args:
            encoder: The encoder.
            units: Units of any kind.
            mean: Of every unit's values over the images.
            std: Standard deviation of every unit's values over the images.

        Returns:
            The statistics of channels, groups and directions.
        """
        chosen = [index for index, unit in enumerate(units) if unit.kind in ("channel", "group", "direction")]
        return cls(encoder, tuple(units[index] for index in chosen), mean[chosen], std[chosen])

    def compute_maps(self, image: LoadedImage, grid: tuple[int, int]) -> Float[np.ndarray, "units rows columns"]:
        """Every unit's map over the whole image, on a grid.

        Args:
            image: The image.
            grid: Rows and columns.

        Returns:
            The maps, resized without aligned corners.
        """
        if not self.units:
            return np.zeros((0, *grid), dtype=np.float32)
        batch = self.encoder.prepare(image, geometry="whole")
        seen = self.encoder.observe(batch.pixels, list(dict.fromkeys(str(unit.layer) for unit in self.units)))
        canvas, valid = batch.geometries[0].canvas, batch.geometries[0].valid
        # the grid covers the image, a map the canvas with its padding
        size = [max(1, round(cells * side / inner)) for cells, side, inner in zip(grid, canvas, valid, strict=True)]
        planes = []
        for unit in self.units:
            maps = seen.activations[str(unit.layer)].maps
            if len(unit.channels) == 1:
                plane = maps[:, unit.index]
            else:
                plane = torch.einsum("c,bchw->bhw", unit_weights(unit, self.encoder).to(maps.device), maps)
            large = torch.nn.functional.interpolate(plane[:, None], size, mode="bilinear", align_corners=False)
            planes.append(large[0, 0, : grid[0], : grid[1]].cpu().numpy())
        return np.stack(planes)

    def find_tops(
        self,
        maps: Float[np.ndarray, "units rows columns"],
        labels: Int[np.ndarray, "rows columns"],
        merges: Sequence[tuple[int, int]],
        layers: Sequence[str],
    ) -> tuple[NodeTop, ...]:
        """The features that stand out in each region of each cut of one image.

        Args:
            maps: What ``compute_maps`` gave for the image.
            labels: The image's leaves.
            merges: Of the tree over leaves.
            layers: Units of these layers alone are taken.

        Returns:
            An entry for every node of the tree that the image holds and in which some unit is above its mean.
        """
        chosen = [index for index, unit in enumerate(self.units) if unit.layer in layers]
        if not chosen:
            return ()
        leaves = len(merges) + 1
        flat = labels.ravel()
        area = np.bincount(flat, minlength=leaves).astype(np.float64)
        sums = np.stack([np.bincount(flat, maps[index].ravel(), minlength=leaves) for index in chosen])
        mean, std = self.mean[chosen], np.where(self.std[chosen] > 0, self.std[chosen], np.inf)
        tops = []
        for node, below in trees.list_members(merges, leaves).items():
            size = area[below].sum()
            if not size:
                continue
            scores = (sums[:, below].sum(1) / size - mean) / std
            best = [row for row in np.argsort(-scores, kind="stable")[:_TOP].tolist() if scores[row] > 0]
            if best:
                links = (
                    CircuitLink(self.units[chosen[row]].text, Measure(float(f"{scores[row]:.3g}"), SIGMA))
                    for row in best
                )
                tops.append(NodeTop(node, tuple(links)))
        return tuple(tops)


def list_segmentations(layers: Sequence[str]) -> list[SegmentationInfo]:
    """How images are segmented: over all layers as one feature, then over each alone; one by one, then jointly.

    Args:
        layers: The atlas's layers.

    Returns:
        The segmentations, those of single images first.
    """
    groups = [tuple(layers)] if len(layers) > 1 else []
    groups += [(layer,) for layer in layers]
    return [
        SegmentationInfo("+".join(group) + ("" if scope == "image" else " joint"), group, scope, LEAVES)
        for scope in ("image", "joint")
        for group in groups
    ]


def segment_images(writer: Writer, plan: BuildPlan, statistics: UnitStatistics) -> None:
    """Add every image's segmentations, where it lacks any; the joint fits are kept for images that are uploaded.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
        statistics: Of the atlas's units.
    """
    segmenters = _make_segmenters(writer, plan)
    writer.set_method(
        "segmentation (NAVE)",
        grouping="ward",
        weighting="equal",
        size=choose_size(plan.encoder),
        cells=plan.settings.cells,
        leaves=LEAVES,
    )
    names = {info.id for info, _ in segmenters}
    todo = [image for image in plan.ids if _lacks_segmentations(writer, image, names)]
    done = len(plan.ids) - len(todo)
    with track_steps(len(todo), "segment", plan.progress) as step:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            images = [image for image in _read_images(plan, chunk) if isinstance(image, LoadedImage)]
            maps: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}  # by image and grid
            segmentations: dict[str, list[ImageSegmentation]] = {image.id: [] for image in images}
            for info, segmenter in segmenters:
                for image, labels, merges in segmenter(images):
                    key = (image.id, labels.shape)
                    if key not in maps:
                        maps[key] = statistics.compute_maps(image, (labels.shape[0], labels.shape[1]))
                    tops = statistics.find_tops(maps[key], labels, merges or info.merges, info.layers)
                    record = ImageSegmentation(info.id, LabelMap.from_array(labels), merges, tops)
                    segmentations[image.id].append(record)
            for image, records in segmentations.items():
                writer.add(ImageRecord(image, segmentations=tuple(records)))
            done += len(chunk)
            writer.set_stage("segment", done, len(plan.ids))
            step(len(chunk))
    writer.set_stage("segment", len(plan.ids), len(plan.ids))


def segment_alone(
    encoder: Encoder,
    items: Iterable[LoadedImage | SkippedImage],
    layers: Sequence[str],
    cells: int,
    random_state: int,
    size: Size = SIZE,
) -> Iterator[Segmented | SkippedImage]:
    """Segment images one by one.

    Args:
        encoder: The encoder.
        items: Images; those that were skipped are handed on.
        layers: The layers whose activations are clustered, as one feature.
        cells: Of the grid, along the short side.
        random_state: Of the clustering.
        size: Of the image as the network sees it; see ``NaveSettings``.

    Yields:
        Every image with its leaves on the grid, numbered by size, and the merges of its own tree.
    """
    settings = {
        "layers": list(layers),
        "resolution": cells,
        "grouping": "ward",
        "weighting": "equal",
        "size": size,
        "random_state": random_state,
    }
    for result in segment_stream(encoder, items, n_clusters=2, **settings):
        if isinstance(result, SkippedImage):
            yield result
            continue
        image, segmentation = result
        tree = segmentation.granularity
        counts = np.bincount(tree.points, minlength=tree.tree.points)
        leaf, merges = trees.truncate_tree(tree.tree, LEAVES, counts)
        yield image, leaf[tree.points].reshape(segmentation.grid_labels.shape), merges


def extract_shared_tree(nave: Nave, info: SegmentationInfo) -> tuple[SegmentationInfo, Int[np.ndarray, " clusters"]]:
    """The tree of a joint fit.

    Args:
        nave: Fitted with ``grouping="ward"``.
        info: The segmentation that it belongs to.

    Returns:
        The segmentation with its merges and sizes, and the leaf of each of the fit's own cluster numbers.

    Raises:
        EncoscopeError: The fit holds no tree.
    """
    book = nave.codebook_
    if book.tree is None:
        raise EncoscopeError(f"the joint fit of {info.id!r} holds no tree: build the atlas again with --fresh")
    leaf, merges = trees.truncate_tree(book.tree, LEAVES, book.counts)
    leaves = len(merges) + 1
    own = nave.at(leaves).codebook_.clusters
    mapping = np.zeros(leaves, dtype=np.int64)
    mapping[own] = leaf
    sizes = np.bincount(leaf, weights=book.counts, minlength=leaves).astype(int)
    return replace(info, leaves=leaves, merges=merges, sizes=tuple(sizes.tolist()), settings={}), mapping


def load_fit(site: Path, info: SegmentationInfo, encoder: Encoder) -> Nave:
    """Load a joint fit of a site.

    Args:
        site: The site's folder.
        info: The segmentation that it belongs to.
        encoder: The encoder that the atlas was built from.

    Returns:
        The fit.

    Raises:
        MissingError: The site does not hold it.
    """
    return Nave.load(_fit_folder(site, info.id), encoder)


def _make_segmenters(writer: Writer, plan: BuildPlan) -> list[tuple[SegmentationInfo, Segmenter]]:
    segmenters: list[tuple[SegmentationInfo, Segmenter]] = []
    for info in list_segmentations(plan.layers):
        if info.scope == "joint":
            nave = _fit(writer, plan, info)
            info, leaves = extract_shared_tree(nave, info)
            segmenters.append((info, partial(_segment_jointly, nave, leaves)))
        else:
            segmenters.append((info, partial(_segment_alone, plan, info)))
        settings = {"method": "nave", "weighting": "equal", "grouping": "ward", "cells": str(plan.settings.cells)}
        settings["size"] = str(choose_size(plan.encoder))
        writer.add_segmentation(replace(info, settings=settings))
    return segmenters


def _segment_alone(plan: BuildPlan, info: SegmentationInfo, images: Sequence[LoadedImage]) -> Iterator[Segmented]:
    settings = plan.settings
    for result in segment_alone(plan.encoder, images, info.layers, settings.cells, settings.random_state):
        if not isinstance(result, SkippedImage):
            yield result


def _segment_jointly(nave: Nave, leaves: np.ndarray, images: Sequence[LoadedImage]) -> Iterator[Segmented]:
    for result in nave.predict_stream(images, [len(leaves)]):
        if not isinstance(result, SkippedImage):
            image, segmentation = result
            yield image, leaves[segmentation.grid_labels], ()


def _fit(writer: Writer, plan: BuildPlan, info: SegmentationInfo) -> Nave:
    """The joint fit of a segmentation, from the site where it holds it."""
    folder = _fit_folder(writer.path, info.id)
    try:
        return Nave.load(folder, plan.encoder)
    except (MissingError, EncoscopeError):  # none, or one that was half written
        pass
    nave = Nave(
        plan.encoder,
        n_clusters=LEAVES,
        layers=list(info.layers),
        grouping="ward",
        weighting="equal",
        size=SIZE,
        resolution=plan.settings.cells,
        random_state=plan.settings.random_state,
        progress=plan.progress,
    ).fit([plan.file_of(image) for image in plan.ids])
    nave.save(folder)
    return nave


def _fit_folder(site: Path, name: str) -> Path:
    return site / FOLDER / name.replace(" ", "-").replace("/", "_")


def _read_images(plan: BuildPlan, images: Sequence[str]) -> Iterator[LoadedImage | SkippedImage]:
    return read_images((plan.file_of(image) for image in images), channels=plan.encoder.preprocess.image_channels)


def _lacks_segmentations(writer: Writer, image: str, names: set[str]) -> bool:
    record = writer.get(ImageRecord, image)
    return record is not None and {entry.segmentation for entry in record.segmentations} != names
