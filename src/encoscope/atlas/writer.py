"""Writing a site, record by record: stopped at any moment, the folder holds a valid atlas, and writing can resume."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
from jaxtyping import Float

from encoscope import plots, results
from encoscope.atlas import layout, thumbnails
from encoscope.atlas.codec import from_plain, merge_records, to_plain
from encoscope.atlas.records import ImageFile, Record, SegmentationInfo
from encoscope.atlas.rows import COLUMNS, Row, make_row, select_columns, write_parquet
from encoscope.errors import EncoscopeError, UsageError
from encoscope.store.files import Lock

AnyRecord = TypeVar("AnyRecord", bound=Record)

_EVERY = 10.0  # seconds between two writes of shards that are not full: at most these are lost when it is killed
_HELD = 32  # shards kept in memory


class Writer:
    """Adds records to a site; ``publish`` makes the pages show them.

    One process at a time writes to a site. A record whose key is there already is merged: the fields of the new one
    are added. Shards are written when they are full, every ten seconds, and by ``flush``. A Writer is a context
    manager; leaving the block publishes, also after an exception.

    Args:
        path: The site's folder; it is made if it is not there.
        title: What the pages call the atlas.
        model: What is said of the model: its source, its digest, ...; None where there is none.
        data: What is said of the images.
        settings: What is said of the settings.
        random_state: What is said of the seed.
        key: What must be equal for resuming a site that is there (digests, say).
        accepts: Tells from the manifest of a site of this key whether it may be resumed; None takes any.

    Raises:
        UsageError: The folder holds a site of another key.
        EncoscopeError: Another process writes to it, or it has lost its manifest.

    Example:
        ::

            from encoscope.atlas import FeatureRecord, Measure, Writer

            with Writer("MINE", title="Mine", model=None, data={"source": "photos"}, settings={}) as site:
                auc = Measure(0.91, "AUC", 0.52, "permuted features")
                site.add(FeatureRecord("layer4:485", "layer4", heldout_auc=auc))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        title: str,
        model: Mapping[str, Any] | None,
        data: Mapping[str, Any],
        settings: Mapping[str, Any],
        random_state: int | None = None,
        key: str = "",
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self.path = Path(path)
        for folder in (layout.DATA, layout.IMAGES):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path / ".lock")
        try:
            before = self._previous_manifest(key, accepts)
        except BaseException:
            self._lock.release()
            raise
        self._about = {
            "title": title,
            "model": model,
            "data": dict(data),
            "settings": dict(settings),
            "seed": random_state,
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
        self._positions: dict[str, dict[str, int]] = {kind: {} for kind in layout.KINDS}
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
        """Let others write; records that were not flushed are lost."""
        self._lock.release()

    # Records

    def add(self, record: Record) -> None:
        """Add a record, or its fields to the record of the same key.

        Args:
            record: A record of any kind.

        Raises:
            UsageError: It is no record of an atlas.
        """
        kind = _kind_of(record)
        position = self._positions[kind].get(record.key)
        if position is None:
            position = len(self._rows[kind])
            self._positions[kind][record.key] = position
            self._rows[kind].append({})
            shard = self._shard(kind, position)
            shard.append(record)
        else:
            shard = self._shard(kind, position)
            slot = position % layout.SHARD[kind]
            record = shard[slot] = merge_records(shard[slot], record)
        self._rows[kind][position] = make_row(record)
        self._dirty.add((kind, position // layout.SHARD[kind]))
        if time.monotonic() - self._flushed > _EVERY:
            self.flush()

    def get(self, kind: type[AnyRecord], key: str) -> AnyRecord | None:
        """A record as it is so far.

        Args:
            kind: The record's class.
            key: Its unit, image id, class index or name.

        Returns:
            The record; None when there is none.
        """
        name = _name_of(kind)
        position = self._positions[name].get(key)
        return None if position is None else self._record(kind, name, position)

    def records(self, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
        """All records of a kind.

        Args:
            kind: The records' class.

        Yields:
            The records, in the order in which they were first added.
        """
        name = _name_of(kind)
        for position in list(self._positions[name].values()):
            yield self._record(kind, name, position)

    def save_image(self, image: Any, *, side: int | None = None, quality: int = thumbnails.QUALITY) -> ImageFile:
        """Write a picture into the site.

        Args:
            image: A PIL image, a ``LoadedImage``, or pixels ``[height, width, 3 or 4]``.
            side: The long side is made at most this many pixels; None keeps the size.
            quality: Of the WebP file, 0 to 100.

        Returns:
            What records hold of it.
        """
        return thumbnails.save_image(self.path, image, side=side, quality=quality)

    # What is said about the whole

    def add_segmentation(self, info: SegmentationInfo) -> None:
        """Say how images were segmented.

        Args:
            info: Records of images name it by its id.
        """
        self._segmentations[info.id] = info

    def set_stage(self, name: str, done: int, total: int) -> None:
        """Say how far a stage of the work is; the about page shows it.

        Args:
            name: Of the stage.
            done: How many of its steps are done.
            total: How many steps it has.
        """
        self._stages[name] = {"done": done, "total": total}

    def is_finished(self, name: str) -> bool:
        """Whether all steps of a stage are done.

        Args:
            name: Of the stage.

        Returns:
            True when they are; False also for a stage that was never set.
        """
        stage = self._stages.get(name)
        return stage is not None and stage["done"] >= stage["total"]

    def set_method(self, name: str, **facts: str | int | float) -> None:
        """Say which method gave some of the records.

        Args:
            name: Of the method.
            facts: Other models and data that it took, with their digests, and its settings.
        """
        self._methods[name] = facts

    def add_control(self, text: str) -> None:
        """Say what a control on these pages is; the about page lists them.

        Args:
            text: One sentence.
        """
        if text not in self._controls:
            self._controls.append(text)

    def save_activations(
        self, units: Sequence[str], images: Sequence[str], values: Float[np.ndarray, "units images"]
    ) -> None:
        """Keep every unit's value on every image, for comparisons with other atlases (half precision).

        Args:
            units: As the atlas writes them.
            images: The ids of images.
            values: A row for each unit, a column for each image.

        Raises:
            UsageError: Values of another shape.
        """
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
                cards = [select_columns(kind, row) for row in rows[start : start + layout.ROWS]]
                layout.write_shard(
                    self.path,
                    layout.name_table(kind, number),
                    {"columns": COLUMNS[kind], "first": start, "rows": cards},
                )
        write_parquet(self.path / layout.TABLE, self._rows["features"])
        manifest = self.make_manifest()
        results.write(self.path / layout.MANIFEST, manifest)
        layout.write_shard(self.path, "manifest", manifest)
        layout.write_shard(self.path, "live", None)  # a server answers with what it can do instead
        layout.write_pages(self.path)

    def make_manifest(self) -> results.Document:
        """What the manifest says now."""
        about = self._about
        document = results.envelope(
            layout.KIND, [], model=about["model"], settings=about["settings"], seed=about["seed"], skipped=self.skipped
        )
        del document["results"]
        counts = {kind: len(rows) for kind, rows in self._rows.items()}
        layers = dict.fromkeys(row["layer"] for row in self._rows["features"] if row["layer"])
        colors = plots.palette(max([20, *(info.leaves for info in self._segmentations.values())]))
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
            "palette": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()],
        }

    # Shards

    def _record(self, kind: type[AnyRecord], name: str, position: int) -> AnyRecord:
        record = self._shard(name, position)[position % layout.SHARD[name]]
        return cast("AnyRecord", record)  # a shard of a kind holds records of that kind alone

    def _shard(self, kind: str, position: int) -> list[Record]:
        """The shard that holds a position, in memory; the one least recently used leaves."""
        slot = (kind, position // layout.SHARD[kind])
        if slot in self._held:
            self._held[slot] = self._held.pop(slot)
            return self._held[slot]
        if len(self._held) >= _HELD:
            oldest = next(iter(self._held))
            if oldest in self._dirty:
                self._write(*oldest)
            del self._held[oldest]
        name = layout.name_shard(*slot)
        exists = (self.path / layout.DATA / f"{name}.js").is_file()
        self._held[slot] = _read_records(self.path, *slot) if exists and position < len(self._rows[kind]) else []
        return self._held[slot]

    def _write(self, kind: str, number: int) -> None:
        name = layout.name_shard(kind, number)
        layout.write_shard(self.path, name, [to_plain(record) for record in self._held[kind, number]])
        self._dirty.discard((kind, number))

    def _load(self) -> None:
        """Take up the records that are there: the tables are made from the shards of records."""
        for kind, numbers in layout.list_shards(self.path).items():
            for number in numbers:
                if number * layout.SHARD[kind] != len(self._rows[kind]):
                    break  # a shard before it is missing: what follows has no position
                for record in _read_records(self.path, kind, number):
                    self._positions[kind][record.key] = len(self._rows[kind])
                    self._rows[kind].append(make_row(record))

    def _previous_manifest(
        self, key: str, accepts: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> dict[str, Any]:
        """The manifest of the site as it is, if there is one with the same key."""
        file = self.path / layout.MANIFEST
        if not file.exists():
            if any(numbers for numbers in layout.list_shards(self.path).values()):
                raise EncoscopeError(f"{self.path} holds an atlas without its manifest: start over in another folder")
            return {}
        manifest = results.read(file, layout.KIND)
        if manifest.get("key", "") != key:
            raise UsageError(
                f"{self.path} holds an atlas made from another model, other images or other settings: "
                "give another folder, or start over (--fresh)"
            )
        if accepts is not None and not accepts(manifest):
            raise UsageError(
                f"{self.path} holds an atlas of a network of the same weights that gives other outputs: give another "
                "folder, or start over (--fresh)"
            )
        return manifest


def clear_site(path: str | os.PathLike[str]) -> None:
    """Remove a site's own files, and no others, so that a new one can be written there.

    Args:
        path: The site's folder; nothing is removed where it holds no site.
    """
    site = Path(path)
    if not (site / layout.MANIFEST).exists() and not any(layout.list_shards(site).values()):
        return
    for folder in (layout.DATA, layout.IMAGES, layout.ASSETS, "nave"):
        shutil.rmtree(site / folder, ignore_errors=True)
    for name in (layout.MANIFEST, layout.TABLE, layout.ACTIVATIONS, "index.html"):
        (site / name).unlink(missing_ok=True)


def _read_records(site: Path, kind: str, number: int) -> list[Record]:
    return [from_plain(layout.KINDS[kind], item) for item in layout.read_shard(site, layout.name_shard(kind, number))]


def _name_of(kind: type[Record]) -> str:
    return next(name for name, known in layout.KINDS.items() if known is kind)


def _kind_of(record: Record) -> str:
    for name, kind in layout.KINDS.items():
        if isinstance(record, kind):
            return name
    raise UsageError(f"an atlas holds no {type(record).__name__}")
