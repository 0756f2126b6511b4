"""Where in each image of a dataset units respond most, read from the maps of one forward pass an image."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError
from encoscope.images import Batch, GeometryKind
from encoscope.probing.cutting import Frame, read_frame
from encoscope.probing.ids import rank_ids
from encoscope.probing.prefetch import prefetch
from encoscope.probing.receptive_field import ReceptiveField, compute_receptive_field
from encoscope.probing.topk import TopK
from encoscope.probing.windows import Window, Windows, find_windows
from encoscope.progress import Progress, track
from encoscope.store import JournaledFolder, content_key
from encoscope.store.passes import Shard, run_pass
from encoscope.units import Unit, unit_weights

_log = logging.getLogger("encoscope")

VERSION = 1
_FILE = "windows.npz"
_CHUNK = 64  # images that are added at once
_SAVE_SECONDS = 30.0
_LARGEST = 2**22  # windows that a table keeps of all channels of a layer; else of those asked for alone


def has_map(unit: Unit) -> bool:
    """Tell whether a unit has a value at each cell of one layer's map.

    Args:
        unit: The unit.

    Returns:
        True for channels, groups and directions of a layer, also at one position.
    """
    return unit.layer is not None and unit.kind in ("channel", "group", "direction")


def search_windows(
    encoder: Encoder,
    files: Sequence[str],
    ids: Sequence[str],
    units: Sequence[Unit],
    count: int,
    *,
    side: int,
    geometry: GeometryKind = "whole",
    peaks: bool = False,
    progress: Progress = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[list[Window]]:
    """Find for each unit the images in which it responds most, with the best place in each: one forward pass an image.

    The windows of a layer's channels are kept, so that another channel of it needs no pass; a search that was stopped
    is resumed.

    Args:
        encoder: The network.
        files: The images' files.
        ids: Their ids. The same image twice counts once.
        units: Units with maps.
        count: How many images of each unit.
        side: Side of the patches, in the pixels in which they are cut.
        geometry: How images are laid out before patches are cut.
        peaks: Rank by the largest cell, as VITAL's authors do, and not by the mean over a patch's cells.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        cache_dir: The folder for what was found; None is the user's cache.

    Returns:
        For each unit its windows, the largest value first, ties by image id; at most ``count``.

    Raises:
        EncoscopeError: No image can be read.
    """
    search = _Search(encoder, tuple(files), tuple(ids), count, side, geometry, peaks)
    tables: dict[str, _Table] = {}
    cache_dir = choose_cache_dir(encoder, cache_dir)
    for layer in dict.fromkeys(str(unit.layer) for unit in units):
        for table in _make_tables(search, layer, [unit for unit in units if unit.layer == layer], cache_dir):
            tables[table.key] = table
    open_tables = [table for table in tables.values() if table.done < len(files)]
    if open_tables:
        run_pass(partial(_read_windows, search, open_tables, progress), _Tables(open_tables))
        for table in open_tables:
            table.done = len(files)
            table.save()
    order = np.argsort(rank_ids(ids))  # the file of each rank
    owners = [next(table for table in tables.values() if unit in table.columns) for unit in units]
    return [table.list_windows(table.columns[unit], order) for table, unit in zip(owners, units, strict=True)]


@dataclass(frozen=True)
class _Search:
    """What is the same for all tables of a search."""

    encoder: Encoder
    files: tuple[str, ...]
    ids: tuple[str, ...]
    count: int
    side: int
    geometry: GeometryKind
    peaks: bool


class _Table:
    """The best windows of some units of one layer, and how many files were searched for them."""

    def __init__(self, search: _Search, layer: str, units: Sequence[Unit], whole: bool, cache_dir: Any) -> None:
        self._search, self._layer = search, layer
        encoder, width = search.encoder, search.encoder.layer(layer).channels
        self.field = compute_receptive_field(encoder, layer)
        self.columns = {unit: unit.index if whole else index for index, unit in enumerate(units)}
        self.vectors = None if whole else torch.stack([unit_weights(unit, encoder) for unit in units])
        # where in its patch a unit looks: in the middle, or at its own position
        shares = [[0.5, 0.5]] * width if whole else [_find_share(self.field, encoder, unit) for unit in units]
        self.shares = torch.tensor(shares, dtype=torch.float64)
        self.top = TopK(search.count, width if whole else len(units))
        self.done = 0
        manifest: dict[str, Any] = {
            "version": VERSION,
            **identify_encoder(encoder),
            "layer": layer,
            "units": "all" if whole else [unit.as_key() for unit in units],
            "count": search.count,
            "side": search.side,
            "geometry": search.geometry,
            "peaks": search.peaks,
            "files": content_key({"files": hashlib.sha256("\n".join(search.ids).encode()).hexdigest()}),
        }
        self.key = content_key(manifest)
        self._folder = JournaledFolder.keyed(
            "windows",
            manifest,
            cache_dir=cache_dir,
            restart=True,
            about={"trial": record_trial(encoder, [layer])},
            accepts=lambda kept: is_same_network(encoder, kept.get("trial"), [layer], f"windows of {layer}"),
        )
        self._load()

    @property
    def layer(self) -> str:
        """The layer whose maps are read."""
        return self._layer

    def measure(self, maps: Float[Tensor, "channels rows columns"], frame: Frame, batch: Batch) -> Windows:
        """Find the best window of each unit in one image."""
        maps = maps.float().cpu()
        if self.vectors is not None:
            maps = torch.einsum("uc,cij->uij", self.vectors, maps)
        rows, columns = batch.geometries[0].valid_cells((maps.shape[1], maps.shape[2]))
        return find_windows(
            maps[:, :rows, :columns],
            self.field,
            side=self._search.side,
            size=(frame.pixels.shape[1], frame.pixels.shape[2]),
            canvas=batch.geometries[0].valid,
            shares=self.shares,
            peaks=self._search.peaks,
        )

    def add(self, ranks: Int64[np.ndarray, " images"], windows: Sequence[Windows]) -> None:
        """Add some images."""
        values = np.stack([value.numpy() for value, _ in windows])
        corners = np.stack([corner.numpy() for _, corner in windows])
        self.top.partial_fit(values, ranks[:, None] << 32 | corners[:, :, 0] << 16 | corners[:, :, 1])

    def save(self) -> None:
        """Keep what was found so far; without a cache a search is only slower."""
        values, packed = self.top.finalize()
        with suppress(EncoscopeError), self._folder.write(_FILE) as temporary:
            np.savez(temporary, values=values, packed=packed, done=self.done)

    def list_windows(self, column: int, order: Int64[np.ndarray, " files"]) -> list[Window]:
        """The windows of one unit, the largest value first."""
        values, packed = self.top.finalize()
        return [
            Window(int(order[number >> 32]), float(value), (int(number >> 16 & 0xFFFF), int(number & 0xFFFF)))
            for value, number in zip(values[:, column], packed[:, column], strict=True)
        ]

    def _load(self) -> None:
        file = self._folder.find(_FILE)
        if file is not None:
            with np.load(file, allow_pickle=False) as kept:
                self.top.restore(kept["values"], kept["packed"])
                self.done = int(kept["done"])


class _Tables:
    """Several tables, filled in one pass."""

    def __init__(self, tables: Sequence[_Table]) -> None:
        self.tables = tables

    def partial_fit(
        self, tables: Sequence[_Table], ranks: Int64[np.ndarray, " images"], windows: Sequence[Sequence[Windows]]
    ) -> _Tables:
        """Add some images to some of the tables."""
        for table, best in zip(tables, windows, strict=True):
            table.add(ranks, best)
        return self

    def merge(self, other: _Tables) -> _Tables:
        """Add the tables of another shard, in the same order."""
        for mine, theirs in zip(self.tables, other.tables, strict=True):
            mine.top.merge(theirs.top)
        return self


def _make_tables(search: _Search, layer: str, units: Sequence[Unit], cache_dir: Any) -> list[_Table]:
    """One table of all channels of a layer, and one of what else is asked for in it."""
    width = search.encoder.layer(layer).channels
    channels = [unit for unit in dict.fromkeys(units) if unit.kind == "channel" and unit.position is None]
    whole = search.count * width <= _LARGEST
    others = [unit for unit in dict.fromkeys(units) if not (whole and unit in channels)]
    tables = [_Table(search, layer, channels, True, cache_dir)] if whole and channels else []
    return tables + ([_Table(search, layer, others, False, cache_dir)] if others else [])


def _read_windows(
    search: _Search, tables: Sequence[_Table], progress: Progress, shard: Shard
) -> Iterator[tuple[Sequence[_Table], np.ndarray, list[list[Windows]]]]:
    """The windows of some images at a time; what was found is kept now and then."""
    ranks = rank_ids(search.ids)
    firsts = {identity: number for number, identity in reversed(list(enumerate(search.ids)))}
    start = min(table.done for table in tables)
    numbers = list(shard.select(range(start, len(search.files))))
    layers = list(dict.fromkeys(table.layer for table in tables))
    read = partial(_read_batch, search)
    stream = track(prefetch(read, numbers, 2), len(numbers), "search", progress, initial=start)
    waiting: dict[int, list[Windows]] = {}
    chunk: list[int] = []
    saved = time.monotonic()
    readable, reason = start > 0, ""
    for number, item in zip(numbers, stream, strict=True):
        if isinstance(item, str):
            reason = reason or item
            _log.warning("skipped: %s", item)
        elif firsts[search.ids[number]] == number:
            readable = True
            frame, batch = item
            seen = search.encoder.observe(batch, layers=layers)
            chunk.append(number)
            for index, table in enumerate(tables):
                maps = seen.activations[table.layer].maps[0]
                waiting.setdefault(index, []).append(table.measure(maps, frame, batch))
        last = number == numbers[-1]
        if chunk and (last or len(chunk) == _CHUNK):
            for index, table in enumerate(tables):
                new = [row for row, each in enumerate(chunk) if each >= table.done]  # others were added before
                if new:
                    yield [table], ranks[[chunk[row] for row in new]], [[waiting[index][row] for row in new]]
            waiting, chunk = {}, []
            if time.monotonic() - saved > _SAVE_SECONDS and not last:
                for table in tables:
                    table.done = max(table.done, number + 1)
                    table.save()
                saved = time.monotonic()
    if not readable:
        raise EncoscopeError(f"none of {len(search.files)} images could be read; the first: {reason}")


def _read_batch(search: _Search, number: int) -> tuple[Frame, Batch] | str:
    """An image as patches are cut from it, and as the network takes it; or why it cannot be read."""
    frame = read_frame(search.encoder, Path(search.files[number]), search.geometry)
    if isinstance(frame, str):
        return frame
    if frame.id != search.ids[number]:
        raise EncoscopeError(f"{search.files[number]} changed while the dataset was being read: run it again")
    return frame, search.encoder.prepare(frame.image, geometry=search.geometry)


def _find_share(field: ReceptiveField, encoder: Encoder, unit: Unit) -> list[float]:
    if unit.position is None:
        return [0.5, 0.5]
    center = field.center(*unit.position)
    return [pixel / side for pixel, side in zip(center, encoder.preprocess.size, strict=True)]
