"""How images are parted (NAVE): every layer, each image alone and all together, with the features of each region."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from encoscope.atlas import trees
from encoscope.atlas.building.photographs import SIGMA
from encoscope.atlas.building.plan import Plan
from encoscope.atlas.records import ImageParts, ImageRecord, LabelMap, Link, Measure, NodeTop, SegmentationInfo
from encoscope.atlas.writer import Writer
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import Photo, Skipped, photos
from encoscope.nave import Nave, segment_stream
from encoscope.progress import track
from encoscope.units import Unit, weights

LEAVES = 20
Parted: TypeAlias = tuple[str, Photo, np.ndarray, trees.Merges]
"""An image's id, itself, its leaves on the grid, and the merges of its own tree; none where all share one."""

FOLDER = "nave"
_TOP = 4  # features of a region


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

    def maps(self, photo: Photo, grid: tuple[int, int], layers: Sequence[str]) -> list[tuple[int, np.ndarray]]:
        """The units of some layers, by their place, with their maps over the whole photo on a grid."""
        wanted = [place for place, unit in enumerate(self.units) if unit.layer in layers]
        if not wanted:
            return []
        batch = self.encoder.prepare(photo, geometry="whole")
        names = list(dict.fromkeys(str(self.units[place].layer) for place in wanted))
        seen = self.encoder.observe(batch.pixels, names).activations
        canvas, valid = batch.geometries[0].canvas, batch.geometries[0].valid
        found = []
        for place in wanted:
            unit = self.units[place]
            maps = seen[str(unit.layer)].maps
            vector = weights(unit, self.encoder).to(maps.device)
            plane = maps[:, unit.index] if len(unit.channels) == 1 else torch.einsum("c,bchw->bhw", vector, maps)
            # the grid covers the photo, the map the canvas with its padding
            rows = max(1, round(grid[0] * canvas[0] / valid[0]))
            columns = max(1, round(grid[1] * canvas[1] / valid[1]))
            large = torch.nn.functional.interpolate(
                plane[:, None], (rows, columns), mode="bilinear", align_corners=False
            )[0, 0, : grid[0], : grid[1]]
            found.append((place, large.cpu().numpy()))
        return found

    def tops(
        self, photo: Photo, labels: np.ndarray, merges: Sequence[tuple[int, int]], leaves: int, layers: Sequence[str]
    ) -> tuple[NodeTop, ...]:
        """The features that stand out in each region of each cut: every node of the tree that the photo holds."""
        maps = self.maps(photo, (labels.shape[0], labels.shape[1]), layers)
        if not maps:
            return ()
        flat = labels.ravel()
        area = np.bincount(flat, minlength=leaves).astype(np.float64)
        sums = np.stack([np.bincount(flat, plane.ravel(), minlength=leaves) for _, plane in maps])  # [units, leaves]
        places = np.array([place for place, _ in maps])
        found = []
        for node, below in trees.members(merges, leaves).items():
            size = area[below].sum()
            if not size:
                continue
            score = (sums[:, below].sum(1) / size - self.mean[places]) / np.where(
                self.std[places] > 0, self.std[places], np.inf
            )
            best = np.argsort(-score, kind="stable")[:_TOP]
            links = tuple(
                Link(self.units[places[one]].text, Measure(float(f"{score[one]:.3g}"), SIGMA))
                for one in best
                if score[one] > 0
            )
            if links:
                found.append(NodeTop(node, links))
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


def part_images(writer: Writer, made: Plan, gauge: Gauge) -> None:
    """Every image's parts that it does not have yet; the fits over all images are kept for new ones."""
    wanted = specifications(made.layers)
    total = len(made.any) * len(wanted)
    done = 0
    for info in wanted:
        todo = [image for image in made.any.ids if _lacks(writer, image, info.id)]
        done += len(made.any) - len(todo)
        if info.scope == "joint":
            nave = _fit(writer, made, info)
            info, leaves = shared_tree(nave, info)
            stream = _jointly(nave, leaves, made, todo)
        else:
            stream = _alone(made, info, todo)
        writer.segmentation(_described(info, made))
        for image, photo, labels, merges in track(stream, len(todo), f"segment {info.id}", made.progress):
            whole = merges or info.merges
            tops = gauge.tops(photo, labels, whole, len(whole) + 1, info.layers)
            record = writer.get(ImageRecord, image)
            if record is not None:
                parts = (*record.parts, ImageParts(info.id, LabelMap.of(labels), merges, tops))
                writer.add(ImageRecord(image, parts=parts))
            done += 1
            writer.stage("segment", done, total)
    writer.stage("segment", total, total)


def alone(
    encoder: Encoder, items: Iterable[Photo | Skipped], layers: Sequence[str], cells: int, seed: int
) -> Iterator[tuple[Photo, np.ndarray, trees.Merges] | Skipped]:
    """Photos with their leaves on the grid, numbered by size, and the merges of their own trees."""
    settings = {"layers": list(layers), "resolution": cells, "grouping": "ward", "weighting": "equal", "seed": seed}
    for result in segment_stream(encoder, items, clusters=2, **settings):
        if isinstance(result, Skipped):
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


def _alone(made: Plan, info: SegmentationInfo, todo: Sequence[str]) -> Iterator[Parted]:
    for result in alone(made.encoder, _photos(made, todo), info.layers, made.options.cells, made.options.seed):
        if not isinstance(result, Skipped):
            photo, labels, merges = result
            yield photo.id, photo, labels, merges


def _jointly(nave: Nave, leaves: np.ndarray, made: Plan, todo: Sequence[str]) -> Iterator[Parted]:
    for result in nave.predict_stream(_photos(made, todo), [len(leaves)]):
        if not isinstance(result, Skipped):
            photo, segmentation = result
            yield photo.id, photo, leaves[segmentation.grid_labels], ()


def _fit(writer: Writer, made: Plan, info: SegmentationInfo) -> Nave:
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


def _described(info: SegmentationInfo, made: Plan) -> SegmentationInfo:
    settings = {"method": "nave", "weighting": "equal", "grouping": "ward", "cells": str(made.options.cells)}
    return SegmentationInfo(**{**info.__dict__, "settings": settings})


def _home(site: Path, name: str) -> Path:
    return site / FOLDER / name.replace(" ", "-").replace("/", "_")


def _photos(made: Plan, images: Sequence[str]) -> Iterator[Photo | Skipped]:
    return photos((made.file(image) for image in images), channels=made.encoder.preprocess.channels)


def _lacks(writer: Writer, image: str, name: str) -> bool:
    record = writer.get(ImageRecord, image)
    return record is not None and all(part.segmentation != name for part in record.parts)
