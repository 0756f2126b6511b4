"""A folder of ``.npy`` shards with a journal, a manifest of what made them and, when finished, a Parquet index.

The layout is LAION's for embeddings: ``NAME-000012.npy``, one row an item, mapped into memory when read. A shard is
written aside, synced, renamed and then entered in ``journal.jsonl``: a run that is killed at any moment goes on with
the shard that it was writing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.results import atomic_write
from encoscope.store.compact import merge_shards
from encoscope.store.files import explain_os_errors, file_stem, save_array, sync_folder
from encoscope.store.journal import Journal, StoreRow
from encoscope.store.keys import first_difference, to_plain_json
from encoscope.store.lock import Lock

FORMAT = "encoscope.store/1"
_MANIFEST, _JOURNAL, _INDEX, _LOCK = "manifest.json", "journal.jsonl", "index.parquet", "lock"


class Store:
    """Arrays on disk, appended shard by shard. Made by ``open`` (to write and read) or ``load`` (to read).

    path: the folder. manifest: what made the content. complete: whether ``finish`` was reached. Used as a context
    manager, or closed with ``close``; leaving it open in a process that dies harms nothing.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], complete: bool, lock: Lock | None) -> None:
        self.path = path
        self.manifest = manifest
        self.complete = complete
        self._lock = lock
        self._journal = Journal(path / _JOURNAL)
        self._positions: dict[str, tuple[int, int] | None] = {}
        for shard, entry in enumerate(self._journal.entries):
            self._place(shard, entry.rows)

    @classmethod
    def open(cls, path: str | os.PathLike[str], manifest: Mapping[str, Any], *, fresh: bool = False) -> Store:
        """Make a store, or go on with one that was made from the same manifest. Only one process at a time.

        manifest: what shapes the content (digests, layers, settings, version), of what JSON can hold. fresh: throw away
        what is there. Raises EncoscopeError when the folder holds something else, was made from another manifest, is
        being written by another process, or cannot be written to.
        """
        path, wanted = Path(path), to_plain_json(manifest)
        with explain_os_errors(path):
            _inspect(path)  # a folder of something else is not touched at all
            path.mkdir(parents=True, exist_ok=True)
            lock = Lock(path / _LOCK)
            try:
                found = _inspect(path)
                if found is not None and fresh:
                    _clear(path)
                    found = None
                if found is None:
                    _write_manifest(path, wanted, complete=False)
                    return cls(path, wanted, False, lock)
                differs = first_difference(found["manifest"], wanted)
                if differs:
                    where, old, new = differs
                    raise EncoscopeError(
                        f"{path} was made with {where} = {old}, not {new}: start over (--fresh), or use another folder"
                    )
                store = cls(path, wanted, bool(found["complete"]), lock)
                store._sweep()
                return store
            except BaseException:
                lock.release()
                raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Store:
        """Read a store as far as it is done, also while another process writes it.

        Raises MissingError when there is none, EncoscopeError when the folder holds something else.
        """
        path = Path(path)
        found = _inspect(path)
        if found is None:
            raise MissingError(f"no store at {path}")
        return cls(path, found["manifest"], bool(found["complete"]), None)

    # Reading

    def __len__(self) -> int:
        """Rows, those without arrays too."""
        return sum(len(entry.rows) for entry in self._journal.entries)

    def __contains__(self, identity: object) -> bool:
        """Whether there is a row of this id, done or not."""
        return identity in self._positions

    @property
    def rows(self) -> list[StoreRow]:
        """All rows, in the order in which they were appended."""
        return [row for entry in self._journal.entries for row in entry.rows]

    @property
    def shards(self) -> list[int]:
        """The numbers of the shards that hold arrays, in order."""
        return [number for number, entry in enumerate(self._journal.entries) if entry.files]

    @property
    def names(self) -> list[str]:
        """The names of the arrays, in the order of their first shard."""
        return list(dict.fromkeys(name for entry in self._journal.entries for name in entry.files))

    def shard_rows(self, shard: int) -> list[StoreRow]:
        """The rows that a shard's arrays hold, one for each row of the arrays."""
        return [row for row in self._entry(shard).rows if row.done]

    def position(self, identity: str) -> tuple[int, int] | None:
        """(shard, row in its arrays) of the first done row of this id; None where there is none."""
        return self._positions.get(identity)

    def read(self, name: str, shard: int) -> np.ndarray:
        """An array of a shard, mapped into memory and read-only: nothing is read before it is used."""
        files = self._entry(shard).files
        if name not in files:
            raise UsageError(f"shard {shard} of {self.path} has no array {name!r}{suggest_nearest(name, files)}")
        file = self.path / files[name]
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            why = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
            raise EncoscopeError(f"{file} {why}: start over with --fresh") from error

    # Writing

    def append(self, rows: Sequence[StoreRow], arrays: Mapping[str, np.ndarray]) -> int:
        """Write one shard and return its number; when this returns, the shard lasts.

        arrays: by name (any text, such as a layer's), each with one leading entry for each of ``rows`` whose status is
        "done", in their order; rows that were skipped have none. Raises EncoscopeError when it cannot be written:
        nothing of the shard then counts, and the store can go on.
        """
        self._writable()
        done = sum(row.done for row in rows)
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != done:
                raise UsageError(f"array {name!r} has shape {array.shape}, for {done} rows that are done")
            if array.dtype.hasobject:
                raise UsageError(f"array {name!r} has dtype {array.dtype}: only plain numbers and text can be stored")
        if done and not arrays:
            raise UsageError(f"{done} rows are done, but there is no array for them")
        number = len(self._journal.entries)
        files = {name: f"{file_stem(name)}-{number:06d}.npy" for name in arrays} if done else {}
        with explain_os_errors(self.path):
            if self.complete:
                _write_manifest(self.path, self.manifest, complete=False)
                self.complete = False
            for name, file in files.items():
                save_array(self.path / file, arrays[name])
            if files or not number:  # the first line makes the journal itself
                self._journal.path.touch()
                sync_folder(self.path)
            self._journal.append(rows, files)
        self._place(number, self._journal.entries[number].rows)
        return number

    def finish(self) -> None:
        """Say that all is there: mark the manifest, write ``index.parquet`` (id, path, label, status, shard, row)."""
        import pyarrow
        from pyarrow import parquet

        self._writable()
        columns: dict[str, list[Any]] = {name: [] for name in ("id", "path", "label", "status", "shard", "row")}
        for shard, entry in enumerate(self._journal.entries):
            place = 0
            for row in entry.rows:
                values = (row.id, row.path, row.label, row.status, shard, place if row.done else None)
                place += row.done
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
        text, number = pyarrow.string(), pyarrow.int64()
        table = pyarrow.table(columns, pyarrow.schema(zip(columns, [text] * 4 + [number] * 2, strict=True)))
        with explain_os_errors(self.path):
            with atomic_write(self.path / _INDEX) as temporary:
                parquet.write_table(table, temporary)
            _write_manifest(self.path, self.manifest, complete=True)
        self.complete = True

    def compact(self) -> None:
        """Make all shards one, so that ``read`` maps an array whole; needs the room of the largest array meanwhile.

        Every shard must have the same arrays. Readers that opened the store before must open it again.
        """
        self._writable()
        with explain_os_errors(self.path):
            self._journal = merge_shards(self.path, self._journal)
        self._positions = {}
        for shard, entry in enumerate(self._journal.entries):
            self._place(shard, entry.rows)

    def state(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays last saved under a name with ``save_state``, in memory; None if there are none."""
        file = self._state_file(name)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            raise EncoscopeError(f"{file} is damaged: start over with --fresh") from error

    def save_state(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a few small arrays (the centroids of a fit that goes on), in place of those saved before; atomic."""
        self._writable()
        with explain_os_errors(self.path):
            with atomic_write(self._state_file(name)) as temporary:
                np.savez(temporary, allow_pickle=False, **arrays)
            sync_folder(self.path)

    def remove(self) -> None:
        """Delete all that the store has written, and the folder if nothing else is in it."""
        self._writable()
        with explain_os_errors(self.path):
            _clear(self.path)
            (self.path / _MANIFEST).unlink()
            (self.path / _LOCK).unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()
        self.close()

    def close(self) -> None:
        """Let others write. Reading goes on working."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> None:
        if self._lock is None:
            raise UsageError(f"{self.path} is open for reading only: use Store.open to write")

    def _entry(self, shard: int) -> Any:
        if not 0 <= shard < len(self._journal.entries):
            raise UsageError(f"{self.path} has {len(self._journal.entries)} shards: there is no shard {shard}")
        return self._journal.entries[shard]

    def _place(self, shard: int, rows: Sequence[StoreRow]) -> None:
        place = 0
        for row in rows:
            if row.done and self._positions.get(row.id) is None:
                self._positions[row.id] = (shard, place)
            self._positions.setdefault(row.id, None)
            place += row.done

    def _state_file(self, name: str) -> Path:
        return self.path / f"state-{file_stem(name)}.npz"

    def _sweep(self) -> None:
        """Remove what a killed writer left: files aside, and shards that never reached the journal."""
        known = {file for entry in self._journal.entries for file in entry.files.values()}
        for file in self.path.iterdir():
            if _is_aside(file) or (file.suffix == ".npy" and file.name not in known):
                file.unlink()


def _inspect(path: Path) -> dict[str, Any] | None:
    """The manifest file of a store; None where a store can be made; EncoscopeError for anything else."""
    if not path.exists():
        return None
    file = path / _MANIFEST
    try:
        if not file.exists() and all(item.name == _LOCK or _is_aside(item) for item in path.iterdir()):
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] == FORMAT and isinstance(found["manifest"], dict) and "complete" in found:
            return found
    except PermissionError as error:
        raise EncoscopeError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise EncoscopeError(f"{path} is not a store ({FORMAT}) and not an empty folder: use another folder")


def _is_aside(file: Path) -> bool:
    return file.name.startswith(".") and file.suffix in (".npy", ".npz", ".json", ".jsonl", ".parquet")


def _write_manifest(path: Path, manifest: dict[str, Any], *, complete: bool) -> None:
    text = json.dumps({"format": FORMAT, "complete": complete, "manifest": manifest}, indent=2)
    with atomic_write(path / _MANIFEST) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    sync_folder(path)


def _clear(path: Path) -> None:
    """Empty a store, journal first and manifest not at all: stopped halfway, it is a store with nothing in it."""
    (path / _JOURNAL).unlink(missing_ok=True)
    sync_folder(path)
    for file in path.iterdir():
        if _is_aside(file) or file.suffix in (".npy", ".npz") or file.name == _INDEX:
            file.unlink()
