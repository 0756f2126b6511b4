"""Writing a site, record by record: stopped at any moment, what is there is a valid atlas, and it can go on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from encoscope import plots, results
from encoscope.atlas import layout, thumbnails
from encoscope.atlas.codec import from_plain, merged, to_plain
from encoscope.atlas.records import Picture, Record, SegmentationInfo
from encoscope.atlas.rows import CARDS, Row, card, row_of, write_parquet
from encoscope.errors import EncoscopeError, UsageError
from encoscope.store.lock import Lock

AnyRecord = TypeVar("AnyRecord", bound=Record)

_EVERY = 10.0  # seconds between two writes of shards that are not full: what a kill can cost
_HELD = 32  # shards kept in memory


class Writer:
    """Add records to a site; ``publish`` makes the pages show them. One process at a time; also a context manager.

    path: the site's folder, made if it is not there. title, model, data, settings, seed: what the atlas is of; they go
    into the manifest and onto its page. ``data`` and ``settings`` decide whether a later run may go on: see ``key``.
    key: what must be the same for going on with a site that is there (say, digests); UsageError when it is not.

    A record that is there already takes on the parts of a new one. Shards are written when they are full, every ten
    seconds, and by ``flush``; leaving the block publishes, also when it was left by an exception.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        title: str,
        model: Mapping[str, Any] | None,
        data: Mapping[str, Any],
        settings: Mapping[str, Any],
        seed: int | None = None,
        key: str = "",
    ) -> None:
        self.path = Path(path)
        for folder in (layout.DATA, layout.IMAGES):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path / ".lock")
        try:
            before = self._before(key)
        except BaseException:
            self._lock.release()
            raise
        self._about = {
            "title": title,
            "model": model,
            "data": dict(data),
            "settings": dict(settings),
            "seed": seed,
            "key": key,
        }
        self._stages: dict[str, dict[str, Any]] = before.get("stages", {})
        self._segmentations = {
            item["id"]: from_plain(SegmentationInfo, item) for item in before.get("segmentations", ())
        }
        self._controls: list[str] = before.get("controls", [])
        self._methods: dict[str, dict[str, Any]] = before.get("methods", {})
        self.skipped: list[Mapping[str, str]] = before.get("skipped", [])
        self._held: dict[tuple[str, int], list[Record]] = {}  # oldest use first
        self._dirty: set[tuple[str, int]] = set()
        self._places: dict[str, dict[str, int]] = {kind: {} for kind in layout.KINDS}
        self._rows: dict[str, list[Row]] = {kind: [] for kind in layout.KINDS}
        self._flushed = time.monotonic()
        self._load()
        self.publish()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.publish()
        finally:
            self.close()

    def close(self) -> None:
        """Let others write; nothing that was not flushed is kept."""
        self._lock.release()

    # Records

    def add(self, record: Record) -> None:
        """Add a record, or what it says anew to the one of the same key."""
        kind = _kind_of(record)
        place = self._places[kind].get(record.key)
        if place is None:
            place = len(self._rows[kind])
            self._places[kind][record.key] = place
            self._rows[kind].append({})
            shard = self._shard(kind, place)
            shard.append(record)
        else:
            shard = self._shard(kind, place)
            record = shard[place % layout.SHARD[kind]] = merged(shard[place % layout.SHARD[kind]], record)
        self._rows[kind][place] = row_of(record)
        self._dirty.add((kind, place // layout.SHARD[kind]))
        if time.monotonic() - self._flushed > _EVERY:
            self.flush()

    def get(self, kind: type[AnyRecord], key: str) -> AnyRecord | None:
        """The record as it is so far; None when there is none."""
        name = next(name for name, known in layout.KINDS.items() if known is kind)
        place = self._places[name].get(key)
        if place is None:
            return None
        found = self._shard(name, place)[place % layout.SHARD[name]]
        assert isinstance(found, kind)
        return found

    def records(self, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
        """All records of a kind, in the order they were first added."""
        name = next(name for name, known in layout.KINDS.items() if known is kind)
        for key in list(self._places[name]):
            found = self.get(kind, key)
            assert found is not None
            yield found

    def picture(self, image: Any, *, side: int | None = None, quality: int = thumbnails.QUALITY) -> Picture:
        """Keep a picture (PIL, Photo, or pixels ``[height, width, 3 or 4]``); the long side at most ``side``."""
        return thumbnails.save(self.path, image, side=side, quality=quality)

    # What is said about the whole

    def segmentation(self, info: SegmentationInfo) -> None:
        """Say how images were parted; their records' parts name it."""
        self._segmentations[info.id] = info

    def stage(self, name: str, done: int, total: int) -> None:
        """Say how far a part of the work is. ``finished`` asks for it, and the about page shows it."""
        self._stages[name] = {"done": done, "total": total}

    def finished(self, name: str) -> bool:
        """Whether a part of the work was done to its end."""
        stage = self._stages.get(name)
        return stage is not None and stage["done"] >= stage["total"]

    def method(self, name: str, **facts: str | int | float) -> None:
        """Say what made a part of the records: other models and data it took, with their digests, and settings."""
        self._methods[name] = facts

    def control(self, text: str) -> None:
        """Say in one sentence what a control on these pages is; the about page lists them."""
        if text not in self._controls:
            self._controls.append(text)

    def activations(
        self, units: Sequence[str], images: Sequence[str], values: Float[np.ndarray, "units images"]
    ) -> None:
        """Keep every unit's value on every image, for comparisons with other atlases (half precision)."""
        if values.shape != (len(units), len(images)):
            raise UsageError(f"values of shape {values.shape} for {len(units)} units and {len(images)} images")
        scale = np.maximum(np.abs(values).max(axis=1, initial=0), np.finfo(np.float32).tiny)
        with results.atomic_write(self.path / layout.ACTIVATIONS) as temporary:
            np.savez_compressed(
                temporary,
                allow_pickle=False,
                units=np.array(units),
                images=np.array(images),
                values=(values / scale[:, None]).astype(np.float16),
                scale=scale,
            )

    # To disk

    def flush(self) -> None:
        """Write all records that are not on disk yet."""
        for kind, number in sorted(self._dirty):
            self._write(kind, number)
        self._flushed = time.monotonic()

    def publish(self) -> None:
        """Write everything, and make the pages show it: tables, then the manifest, then the pages themselves."""
        self.flush()
        for kind, rows in self._rows.items():
            for number, start in enumerate(range(0, len(rows), layout.ROWS)):
                cards = [card(kind, row) for row in rows[start : start + layout.ROWS]]
                layout.write_shard(
                    self.path, layout.table_name(kind, number), {"columns": CARDS[kind], "first": start, "rows": cards}
                )
        write_parquet(self.path / layout.TABLE, self._rows["features"])
        manifest = self.manifest()
        results.write(self.path / layout.MANIFEST, manifest)
        layout.write_shard(self.path, "manifest", manifest)
        layout.write_shard(self.path, "live", None)  # a server answers with what it can do instead
        layout.write_pages(self.path)

    def manifest(self) -> results.Document:
        """What the manifest says now."""
        about = self._about
        document = results.envelope(
            layout.KIND, [], model=about["model"], settings=about["settings"], seed=about["seed"], skipped=self.skipped
        )
        del document["results"]
        counts = {kind: len(rows) for kind, rows in self._rows.items()}
        layers = dict.fromkeys(row["layer"] for row in self._rows["features"] if row["layer"])
        colours = plots.palette(max([20, *(info.leaves for info in self._segmentations.values())]))
        return {
            **document,
            "title": about["title"],
            "data": about["data"],
            "key": about["key"],
            "counts": counts,
            "tables": {kind: -(-count // layout.ROWS) for kind, count in counts.items()},
            "shard": layout.SHARD,
            "layers": list(layers),
            "segmentations": [{"id": key, **to_plain(info)} for key, info in self._segmentations.items()],
            "stages": self._stages,
            "methods": self._methods,
            "controls": self._controls,
            "palette": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours.tolist()],
        }

    # Shards

    def _shard(self, kind: str, place: int) -> list[Record]:
        """The shard that holds a place, in memory; the one least recently used leaves."""
        slot = (kind, place // layout.SHARD[kind])
        if slot in self._held:
            self._held[slot] = self._held.pop(slot)
            return self._held[slot]
        if len(self._held) >= _HELD:
            oldest = next(iter(self._held))
            if oldest in self._dirty:
                self._write(*oldest)
            del self._held[oldest]
        name = layout.shard_name(*slot)
        there = (self.path / layout.DATA / f"{name}.js").is_file()
        self._held[slot] = _records(self.path, *slot) if there and place < len(self._rows[kind]) else []
        return self._held[slot]

    def _write(self, kind: str, number: int) -> None:
        name = layout.shard_name(kind, number)
        layout.write_shard(self.path, name, [to_plain(record) for record in self._held[kind, number]])
        self._dirty.discard((kind, number))

    def _load(self) -> None:
        """Take up the records that are there: the shards of records are the truth, tables are made from them."""
        for kind, numbers in layout.details(self.path).items():
            for number in numbers:
                if number * layout.SHARD[kind] != len(self._rows[kind]):
                    break  # a shard before it is missing: what follows has no place
                for record in _records(self.path, kind, number):
                    self._places[kind][record.key] = len(self._rows[kind])
                    self._rows[kind].append(row_of(record))

    def _before(self, key: str) -> dict[str, Any]:
        """The manifest of the site as it is, if there is one with the same key."""
        file = self.path / layout.MANIFEST
        if not file.exists():
            if any(numbers for numbers in layout.details(self.path).values()):
                raise EncoscopeError(f"{self.path} holds an atlas without its manifest: start over in another folder")
            return {}
        found = results.read(file, layout.KIND)
        if found.get("key", "") != key:
            raise UsageError(
                f"{self.path} holds an atlas made from another model, other images or other settings: "
                "give another folder, or start over (--fresh)"
            )
        return found


def clear(path: str | os.PathLike[str]) -> None:
    """Remove a site's own files, and no others, so that a new one can be written there."""
    site = Path(path)
    if not (site / layout.MANIFEST).exists() and not any(layout.details(site).values()):
        return
    for folder in (layout.DATA, layout.IMAGES, layout.ASSETS, "nave"):
        shutil.rmtree(site / folder, ignore_errors=True)
    for name in (layout.MANIFEST, layout.TABLE, layout.ACTIVATIONS, "index.html"):
        (site / name).unlink(missing_ok=True)


def _records(site: Path, kind: str, number: int) -> list[Record]:
    return [from_plain(layout.KINDS[kind], item) for item in layout.read_shard(site, layout.shard_name(kind, number))]


def _kind_of(record: Record) -> str:
    for name, kind in layout.KINDS.items():
        if isinstance(record, kind):
            return name
    raise UsageError(f"an atlas holds no {type(record).__name__}")
