"""The patches of a dataset's images that activate a unit most (VITAL's references of intermediate neurons)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder
from encoscope.encoder.capture import draw_random_pixels
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import GeometryKind, list_images
from encoscope.probing.cutting import (
    Frame,
    Patch,
    check_side,
    compute_patch_values,
    cut_window,
    load_patches,
    read_frame,
    resize_windows,
)
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.map_search import Window, has_map, search_windows
from encoscope.probing.prefetch import prefetch
from encoscope.probing.result import Probe
from encoscope.probing.run import probe
from encoscope.progress import Progress, track_steps
from encoscope.store.passes import Shard, run_pass
from encoscope.units import Unit, measure_units, parse_unit, unit_weights

__all__ = ["PRESELECTED", "Patch", "Scoring", "find_top_patches", "load_patches"]

Scoring: TypeAlias = Literal["maps", "stride", "preselect"]
PRESELECTED = 10_000
"""How many images "preselect" searches for each unit."""
RESCORED = 2
"""How many patches "maps" scores exactly for each patch that is kept."""


def find_top_patches(
    encoder: Encoder,
    dataset: Any,
    units: Sequence[Unit | str],
    count: int = 50,
    *,
    patch: int = 64,
    scoring: Scoring = "stride",
    stride: int | None = None,
    candidates: int | None = None,
    geometry: GeometryKind = "whole",
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[list[Patch]]:
    """Find for each unit the patches on which its value is largest, at most one patch for each image.

    Every image is resized so that its short side is the network's, and nothing is cropped, or as the network's own
    preprocessing does it. A patch is resized (bilinear) to the network's input. All units share one pass.

    "stride" and "preselect" score patches at regular distances, beginning at the top left corner: those of every image,
    or for each unit those of the images in which its map has the largest cell (its value is largest, where it has no
    map). "maps" reads from the maps of whole
    images where each unit is largest, takes one patch there in each of the best images, and scores these alone; a
    patch that several units share is scored once. What it keeps differs from "stride" where a unit responds otherwise
    to the patch, enlarged, than to the same place in the whole image: the more so, the deeper the layer. Units without
    a map (features, class tokens, sums over layers, functions) are searched by "stride" all the same; features that are
    the mean of a map have that map.

    Args:
        encoder: The network.
        dataset: As for ``probe``; images that cannot be read are left out.
        units: The units, at least one.
        count: Patches for each unit.
        patch: Side of a patch, pixels of the resized image; at most the network's input.
        scoring: "maps", "stride" or "preselect".
        stride: Distance between patches, pixels; if left out, int(0.8 patch) for "stride" and 32 for "preselect".
        candidates: In how many images "maps" scores a patch for each unit (if left out, twice ``count``), and
            "preselect" all patches (10,000).
        geometry: What patches are cut from: "whole", or "model", the network's own resize and crop, as the authors'
            code does.
        batch_size: Patches, or images of the probe, in a batch.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        cache_dir: The folder of what the maps showed; None is the user's cache.

    Returns:
        For each unit its patches, the largest value first, ties by image id. There may be fewer than ``count``, if
        there are fewer images.

    Raises:
        UsageError: A unit is unknown, a number is out of range, or the patch is larger than the network's input.
        EncoscopeError: No image can be read.
    """
    parsed = [parse_unit(unit, encoder) for unit in units]
    if not parsed:
        raise UsageError("no units given")
    if scoring not in ("maps", "stride", "preselect"):
        raise UsageError(f"scoring is 'maps', 'stride' or 'preselect', not {scoring!r}")
    step = stride if stride is not None else 32 if scoring == "preselect" else int(0.8 * patch)
    number = candidates if candidates is not None else PRESELECTED if scoring == "preselect" else RESCORED * count
    for name, value in (("count", count), ("patch", patch), ("stride", step), ("candidates", number)):
        if value < 1:
            raise UsageError(f"{name} is a number from 1 on, not {value}")
    check_side(encoder, patch)
    files = [str(path) for path in list_images(dataset).paths]
    search: dict[str, Any] = {"side": patch, "geometry": geometry, "progress": progress, "cache_dir": cache_dir}
    read = {"side": patch, "geometry": geometry, "batch_size": batch_size, "progress": progress}
    mapped = {index: unit for index, unit in enumerate(find_mapped_units(encoder, parsed)) if unit is not None}
    if scoring == "stride":
        mapped = {}
    results: dict[int, list[Patch]] = {}
    chosen: dict[int, set[str]] = {}
    preselects = scoring == "preselect" and len(files) > number
    if mapped and (scoring == "maps" or preselects):
        ids = hash_files([Path(file) for file in files], cache_dir=cache_dir, progress=progress)
        windows = search_windows(encoder, files, ids, list(mapped.values()), number, peaks=preselects, **search)
        if preselects:
            each_chosen = [{ids[window.file] for window in best} for best in windows]
            chosen = dict(zip(mapped, each_chosen, strict=True))
        else:
            patches = score_windows(encoder, files, [parsed[index] for index in mapped], windows, count, **read)
            results = dict(zip(mapped, patches, strict=True))
    if preselects:
        for index, unit in enumerate(parsed):
            if index not in chosen and unit.is_spanned:
                probed = probe(
                    encoder, dataset, unit.space, batch_size=batch_size, progress=progress, cache_dir=cache_dir
                )
                chosen[index] = _take_strongest(probed, probed.values @ unit_weights(unit, encoder).numpy(), number)
        if len(chosen) == len(parsed):
            needed, ids = set().union(*chosen.values()), hash_files([Path(file) for file in files], cache_dir=cache_dir)
            files = [file for file, identity in zip(files, ids, strict=True) if identity in needed]
    rest = [index for index in range(len(parsed)) if index not in results]
    if rest:
        left = [parsed[index] for index in rest]

        def compute(pixels: Tensor) -> Tensor:
            return measure_units(encoder, pixels, left)

        def read_patches(shard: Shard) -> Iterator[tuple[list[Patch], np.ndarray]]:
            yield from compute_patch_values(encoder, list(shard.select(files)), compute, stride=step, **read)

        top = TopPatches(len(rest), count, [chosen.get(index) for index in rest])
        results |= dict(zip(rest, run_pass(read_patches, top).finalize(), strict=True))
    return [results[index] for index in range(len(parsed))]


def find_mapped_units(encoder: Encoder, units: Sequence[Unit]) -> list[Unit | None]:
    """Find for each unit one that has the same value and a map.

    Args:
        encoder: The network.
        units: The units.

    Returns:
        Channels, groups and directions of layers themselves; for features the same channels of the last layer, if its
        mean is the features; None for units without a map.
    """
    pooled: str | None = None
    if any(unit.kind == "features" for unit in units) and encoder.depths:
        like = next(encoder.module.parameters(), None)
        noise = draw_random_pixels(1, encoder.preprocess.channels, encoder.preprocess.size, like)
        last = encoder.depths[-1]
        seen = encoder.observe(noise, layers=[last], features=True)
        mean = seen.activations[last].maps.mean((2, 3))
        if seen.features is not None and seen.features.shape == mean.shape:
            pooled = last if torch.allclose(seen.features, mean, rtol=1e-3, atol=1e-5) else None
    kinds: list[Unit | None] = []
    for unit in units:
        if unit.kind == "features" and pooled is not None:
            kind = "direction" if unit.direction is not None else "channel" if len(unit.channels) == 1 else "group"
            kinds.append(replace(unit, kind=kind, layer=pooled))
        else:
            kinds.append(unit if has_map(unit) else None)
    return kinds


def score_windows(
    encoder: Encoder,
    files: Sequence[str],
    units: Sequence[Unit],
    windows: Sequence[Sequence[Window]],
    count: int,
    *,
    side: int,
    geometry: GeometryKind = "whole",
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
) -> list[list[Patch]]:
    """Score exactly the patches around windows, each patch once, and keep the best of each unit.

    Args:
        encoder: The network.
        files: The files of the images.
        units: The units.
        windows: The windows of each unit.
        count: How many patches of each unit are kept.
        side: Side of the patches.
        geometry: What they are cut from.
        batch_size: Patches in a batch.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        For each unit its patches, the largest value first, ties by image id.
    """
    owners: dict[int, dict[tuple[int, int], list[int]]] = {}
    for index, each in enumerate(windows):
        for window in each:
            owners.setdefault(window.file, {}).setdefault(window.corner, []).append(index)
    kept: list[list[Patch]] = [[] for _ in units]
    waiting: list[tuple[Frame, tuple[int, int], list[int]]] = []
    numbers = sorted(owners)
    total = sum(len(corners) for corners in owners.values())

    def run() -> None:
        pixels = torch.stack([cut_window(frame, corner, side) for frame, corner, _ in waiting])
        values = measure_units(encoder, resize_windows(encoder, pixels), units).cpu()
        for (frame, corner, indices), row in zip(waiting, values, strict=True):
            for index in indices:
                kept[index].append(frame.make_patch(corner, side, float(row[index])))
        waiting.clear()

    with track_steps(total, "patches", progress) as step:
        for number, frame in zip(
            numbers,
            prefetch(lambda number: read_frame(encoder, Path(files[number]), geometry), numbers, 2),
            strict=True,
        ):
            if isinstance(frame, str):
                raise EncoscopeError(f"{frame}: it could be read before")
            for corner, indices in sorted(owners[number].items()):
                waiting.append((frame, corner, indices))
                if len(waiting) == batch_size:
                    run()
                    step(batch_size)
        if waiting:
            done = len(waiting)
            run()
            step(done)
    return [sorted(patches, key=lambda patch: (-patch.score, patch.id))[:count] for patches in kept]


class TopPatches:
    """For each of several units the patches of largest value, one an image: ``partial_fit``, ``merge``, ``finalize``.

    Args:
        units: How many units there are.
        count: Patches of each unit.
        chosen: For each unit the ids of the images that count; None for all images.
    """

    def __init__(self, units: int, count: int, chosen: Sequence[set[str] | None] | None = None) -> None:
        self.count, self.chosen = count, chosen or [None] * units
        self._best: list[dict[str, Patch]] = [{} for _ in range(units)]

    def partial_fit(self, patches: Sequence[Patch], scores: Float[np.ndarray, "patches units"]) -> TopPatches:
        """Add an image.

        Args:
            patches: All of its patches.
            scores: The value of each unit on each of them.

        Returns:
            Itself.
        """
        for number, kept in enumerate(self._best):
            if (chosen := self.chosen[number]) is not None and patches[0].id not in chosen:
                continue
            index = int(scores[:, number].argmax())  # the first of equal ones
            kept[patches[0].id] = replace(patches[index], score=float(scores[index, number]))
            if len(kept) >= 2 * self.count + 100:
                self._best[number] = self._take_largest(kept)
        return self

    def merge(self, other: TopPatches) -> TopPatches:
        """Add another shard's images.

        Args:
            other: Its patches, of the same units. An image that both hold counts once.

        Returns:
            Itself.
        """
        self._best = [
            self._take_largest({**mine, **theirs}) for mine, theirs in zip(self._best, other._best, strict=True)
        ]
        return self

    def finalize(self) -> list[list[Patch]]:
        """Give each unit's patches, the largest value first, ties by image id."""
        return [list(self._take_largest(kept).values()) for kept in self._best]

    def _take_largest(self, patches: dict[str, Patch]) -> dict[str, Patch]:
        order = sorted(patches.values(), key=lambda patch: (-patch.score, patch.id))
        return {patch.id: patch for patch in order[: self.count]}


def _take_strongest(probed: Probe, values: Float[np.ndarray, " images"], count: int) -> set[str]:
    """The ids of the images of largest value, ties by id; the same image again counts once."""
    order = np.lexsort((rank_ids(probed.ids), -values))
    return set(list(dict.fromkeys(probed.ids[row] for row in order))[:count])
