"""How images are parted (NAVE): every layer, each image alone and all together, with the features of each region."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from encoscope.progress import track_steps
from encoscope.units import Unit, unit_weights

LEAVES = 20
Parted: TypeAlias = tuple[LoadedImage, np.ndarray, trees.Merges]
"""A photo, its leaves on the grid, and the merges of its own tree; none where all share one."""

Parter: TypeAlias = Callable[[Sequence[LoadedImage]], Iterator[Parted]]

FOLDER = "nave"
_TOP = 4  # features of a region
_CHUNK = 8  # images that are in memory at once


@dataclass(frozen=True)
class Gauge:
    """What regions are held against: units of layers, with their mean and standard deviation over the images."""

    encoder: Encoder
    units: tuple[Unit, ...]
    mean: Float[np.ndarray, " units"]
    std: Float[np.ndarray, " units"]

    @classmethod
    def of(cls, encoder: Encoder, units: Sequence[Unit], mean: np.ndarray, std: np.ndarray) -> Gauge:
        """The units that have a map."""
        chosen = [place for place, unit in enumerate(units) if unit.kind in ("channel", "group", "direction")]
        return cls(encoder, tuple(units[place] for place in chosen), mean[chosen], std[chosen])

    def planes(self, photo: LoadedImage, grid: tuple[int, int]) -> Float[np.ndarray, "units rows columns"]:
        """Every unit's map over the whole photo, on a grid."""
        if not self.units:
            return np.zeros((0, *grid), dtype=np.float32)
        batch = self.encoder.prepare(photo, geometry="whole")
        seen = self.encoder.observe(batch.pixels, list(dict.fromkeys(str(unit.layer) for unit in self.units)))
        canvas, valid = batch.geometries[0].canvas, batch.geometries[0].valid
        # the grid covers the photo, a map the canvas with its padding
        whole = [max(1, round(cells * side / part)) for cells, side, part in zip(grid, canvas, valid, strict=True)]
        found = []
        for unit in self.units:
            maps = seen.activations[str(unit.layer)].maps
            if len(unit.channels) == 1:
                plane = maps[:, unit.index]
            else:
                plane = torch.einsum("c,bchw->bhw", unit_weights(unit, self.encoder).to(maps.device), maps)
            large = torch.nn.functional.interpolate(plane[:, None], whole, mode="bilinear", align_corners=False)
            found.append(large[0, 0, : grid[0], : grid[1]].cpu().numpy())
        return np.stack(found)

    def tops(
        self,
        planes: Float[np.ndarray, "units rows columns"],
        labels: Int[np.ndarray, "rows columns"],
        merges: Sequence[tuple[int, int]],
        layers: Sequence[str],
    ) -> tuple[NodeTop, ...]:
        """The features of some layers that stand out in each region of each cut: every node that the photo holds."""
        places = [place for place, unit in enumerate(self.units) if unit.layer in layers]
        if not places:
            return ()
        leaves = len(merges) + 1
        flat = labels.ravel()
        area = np.bincount(flat, minlength=leaves).astype(np.float64)
        sums = np.stack([np.bincount(flat, planes[place].ravel(), minlength=leaves) for place in places])
        mean, std = self.mean[places], np.where(self.std[places] > 0, self.std[places], np.inf)
        found = []
        for node, below in trees.members(merges, leaves).items():
            size = area[below].sum()
            if not size:
                continue
            score = (sums[:, below].sum(1) / size - mean) / std
            best = [one for one in np.argsort(-score, kind="stable")[:_TOP].tolist() if score[one] > 0]
            if best:
                links = (
                    CircuitLink(self.units[places[one]].text, Measure(float(f"{score[one]:.3g}"), SIGMA))
                    for one in best
                )
                found.append(NodeTop(node, tuple(links)))
        return tuple(found)


def specifications(layers: Sequence[str]) -> list[SegmentationInfo]:
    """What images are parted by: all layers as one, then each alone; and each of these for all images together."""
    groups = [tuple(layers)] if len(layers) > 1 else []
    groups += [(layer,) for layer in layers]
    return [
        SegmentationInfo("+".join(group) + ("" if scope == "image" else " joint"), group, scope, LEAVES)
        for scope in ("image", "joint")
        for group in groups
    ]


def part_images(writer: Writer, made: BuildPlan, gauge: Gauge) -> None:
    """Every image's parts, where it has not all of them; the fits over all images are kept for new ones."""
    parters: list[tuple[SegmentationInfo, Parter]] = []
    for info in specifications(made.layers):
        if info.scope == "joint":
            nave = _fit(writer, made, info)
            info, leaves = shared_tree(nave, info)
            parters.append((info, partial(_jointly, nave, leaves)))
        else:
            parters.append((info, partial(_alone, made, info)))
        writer.segmentation(_described(info, made))
    writer.method("segmentation (NAVE)", grouping="ward", weighting="equal", cells=made.options.cells, leaves=LEAVES)
    names = {info.id for info, _ in parters}
    todo = [image for image in made.any.ids if _lacks(writer, image, names)]
    done = len(made.any) - len(todo)
    with track_steps(len(todo), "segment", made.progress) as step:
        for start in range(0, len(todo), _CHUNK):
            part = todo[start : start + _CHUNK]
            there = [photo for photo in _photos(made, part) if isinstance(photo, LoadedImage)]
            planes: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
            found: dict[str, list[ImageSegmentation]] = {photo.id: [] for photo in there}
            for info, parter in parters:
                for photo, labels, merges in parter(there):
                    place = (photo.id, labels.shape)
                    if place not in planes:
                        planes[place] = gauge.planes(photo, (labels.shape[0], labels.shape[1]))
                    tops = gauge.tops(planes[place], labels, merges or info.merges, info.layers)
                    found[photo.id].append(ImageSegmentation(info.id, LabelMap.of(labels), merges, tops))
            for image, parts in found.items():
                writer.add(ImageRecord(image, segmentations=tuple(parts)))
            done += len(part)
            writer.stage("segment", done, len(made.any))
            step(len(part))
    writer.stage("segment", len(made.any), len(made.any))


def alone(
    encoder: Encoder, items: Iterable[LoadedImage | SkippedImage], layers: Sequence[str], cells: int, seed: int
) -> Iterator[Parted | SkippedImage]:
    """Photos with their leaves on the grid, numbered by size, and the merges of their own trees."""
    settings = {
        "layers": list(layers),
        "resolution": cells,
        "grouping": "ward",
        "weighting": "equal",
        "random_state": seed,
    }
    for result in segment_stream(encoder, items, n_clusters=2, **settings):
        if isinstance(result, SkippedImage):
            yield result
            continue
        photo, segmentation = result
        tree = segmentation.granularity
        size = np.bincount(tree.points, minlength=tree.tree.points)
        leaf, merges = trees.nested(tree.tree, LEAVES, size)
        yield photo, leaf[tree.points].reshape(segmentation.grid_labels.shape), merges


def shared_tree(nave: Nave, info: SegmentationInfo) -> tuple[SegmentationInfo, np.ndarray]:
    """A joint fit's merges and sizes, and for each of the fit's own cluster numbers the leaf it is here."""
    book = nave.codebook_
    assert book.tree is not None
    leaf, merges = trees.nested(book.tree, LEAVES, book.counts)
    leaves = len(merges) + 1
    own = nave.at(leaves).codebook_.clusters
    mapping = np.zeros(leaves, dtype=np.int64)
    mapping[own] = leaf
    sizes = np.bincount(leaf, weights=book.counts, minlength=leaves).astype(int)
    whole = SegmentationInfo(info.id, info.layers, info.scope, leaves, merges, tuple(sizes.tolist()))
    return whole, mapping


def load_fit(site: Path, info: SegmentationInfo, encoder: Encoder) -> Nave:
    """A joint fit of a site. MissingError when it does not hold one."""
    return Nave.load(_home(site, info.id), encoder)


def _alone(made: BuildPlan, info: SegmentationInfo, there: Sequence[LoadedImage]) -> Iterator[Parted]:
    for result in alone(made.encoder, there, info.layers, made.options.cells, made.options.seed):
        if not isinstance(result, SkippedImage):
            yield result


def _jointly(nave: Nave, leaves: np.ndarray, there: Sequence[LoadedImage]) -> Iterator[Parted]:
    for result in nave.predict_stream(there, [len(leaves)]):
        if not isinstance(result, SkippedImage):
            photo, segmentation = result
            yield photo, leaves[segmentation.grid_labels], ()


def _fit(writer: Writer, made: BuildPlan, info: SegmentationInfo) -> Nave:
    home = _home(writer.path, info.id)
    try:
        return Nave.load(home, made.encoder)
    except (MissingError, EncoscopeError):  # none, or one that was half written
        pass
    nave = Nave(
        made.encoder,
        n_clusters=LEAVES,
        layers=list(info.layers),
        grouping="ward",
        weighting="equal",
        resolution=made.options.cells,
        random_state=made.options.seed,
        progress=made.progress,
    ).fit([made.file(image) for image in made.any.ids])
    nave.save(home)
    return nave


def _described(info: SegmentationInfo, made: BuildPlan) -> SegmentationInfo:
    settings = {"method": "nave", "weighting": "equal", "grouping": "ward", "cells": str(made.options.cells)}
    return SegmentationInfo(**{**info.__dict__, "settings": settings})


def _home(site: Path, name: str) -> Path:
    return site / FOLDER / name.replace(" ", "-").replace("/", "_")


def _photos(made: BuildPlan, images: Sequence[str]) -> Iterator[LoadedImage | SkippedImage]:
    return read_images((made.file(image) for image in images), channels=made.encoder.preprocess.channels)


def _lacks(writer: Writer, image: str, names: set[str]) -> bool:
    record = writer.get(ImageRecord, image)
    return record is not None and {part.segmentation for part in record.segmentations} != names
