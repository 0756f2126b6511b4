"""A folder of ``.npy`` shards with a journal, a manifest of what made them and, when finished, a Parquet index.

The layout is LAION's for embeddings: ``NAME-000012.npy``, one row an item, mapped into memory when read. A shard is
written to a temporary file, synced, renamed and then entered in ``journal.jsonl`` with its checksum: a run that is
killed at any moment resumes with the shard that it was writing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.results import DAMAGED
from encoscope.store.compact import merge_shards
from encoscope.store.files import Lock, explain_os_errors
from encoscope.store.folder import StoreFolder

DONE = "done"
_INDEX = "index.parquet"
_LONGEST = 120  # characters of a name


@dataclass(frozen=True)
class StoreRow:
    """One item of a store.

    Attributes:
        id: What it is; of an image, the sha256 of its file.
        path: Where it was read.
        label: Its label, if it has one.
        status: "done", or why it has no arrays.
    """

    id: str
    path: str | None = None
    label: str | None = None
    status: str = DONE

    @property
    def done(self) -> bool:
        """Whether the arrays hold a row for it."""
        return self.status == DONE


@dataclass(frozen=True)
class StoredShard:
    """What the journal says of one ``append``.

    Attributes:
        rows: The items.
        files: The file of each array, by the array's name; empty when no item is done.
    """

    rows: tuple[StoreRow, ...]
    files: Mapping[str, str]


class Store(StoreFolder):
    """Arrays on disk, appended shard by shard. Made by ``open`` (to write and read) or ``load`` (to read).

    Used as a context manager, or closed with ``close``; leaving it open in a process that dies harms nothing.

    Args:
        path: The folder.
        document: The content of its manifest file.
        lock: The writer's lock; None to read only.

    Attributes:
        path: The folder.
        manifest: What made the content.
        complete: Whether ``finish`` was reached, and nothing was appended since.

    Example:
        >>> import numpy as np, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Store.open(folder, {"made": "by hand"}) as store:
        ...     shard = store.append([StoreRow("a"), StoreRow("b")], {"values": np.zeros((2, 3))})
        ...     store.finish()
        >>> Store.load(folder).read("values", 0).shape
        (2, 3)
        >>> Store.load(folder).verify()
        []
    """

    SHARDS = ("*.npy",)
    FILES = ("state-*.npz", _INDEX)

    def __init__(self, path: Path, document: Mapping[str, Any], lock: Lock | None = None) -> None:
        super().__init__(path, document, lock)
        self._read_shards()

    def _read_shards(self) -> None:
        self._shards: list[StoredShard] = []
        self._positions: dict[str, tuple[int, int] | None] = {}
        for entry in self.journal.entries:
            if "rows" in entry:
                self._add_shard(StoredShard(tuple(StoreRow(*row) for row in entry["rows"]), entry["files"]))

    # Reading

    def __len__(self) -> int:
        """Count the rows, those without arrays too."""
        return sum(len(shard.rows) for shard in self._shards)

    def __contains__(self, identity: object) -> bool:
        """Say whether there is a row of this id, done or not."""
        return identity in self._positions

    @property
    def rows(self) -> list[StoreRow]:
        """All rows, in the order in which they were appended."""
        return [row for shard in self._shards for row in shard.rows]

    @property
    def shards(self) -> list[int]:
        """The numbers of the shards that hold arrays, in order."""
        return [number for number, shard in enumerate(self._shards) if shard.files]

    @property
    def names(self) -> list[str]:
        """The names of the arrays, in the order of their first shard."""
        return list(dict.fromkeys(name for shard in self._shards for name in shard.files))

    @property
    def blocks(self) -> list[StoredShard]:
        """What each ``append`` wrote, in order; the rows without arrays are in it, too."""
        return list(self._shards)

    def shard_rows(self, shard: int) -> list[StoreRow]:
        """List the rows that a shard's arrays hold.

        Args:
            shard: Its number.

        Returns:
            The items that are done, one for each row of the arrays.

        Raises:
            UsageError: there is no such shard.
        """
        return [row for row in self._shard(shard).rows if row.done]

    def position(self, identity: str) -> tuple[int, int] | None:
        """Find the arrays of an item.

        Args:
            identity: The item's id.

        Returns:
            (shard, row in its arrays) of the first done row of this id; None where there is none.
        """
        return self._positions.get(identity)

    def read(self, name: str, shard: int) -> np.ndarray:
        """Map an array of a shard into memory; nothing is read before it is used. ``verify`` compares its checksum.

        Args:
            name: Of the array.
            shard: Its number.

        Returns:
            The array, read-only.

        Raises:
            UsageError: there is no such shard or array.
            EncoscopeError: the file is missing or damaged.
        """
        files = self._shard(shard).files
        if name not in files:
            raise UsageError(f"shard {shard} of {self.path} has no array {name!r}{suggest_nearest(name, files)}")
        file = self.path / files[name]
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except DAMAGED as error:
            why = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
            raise EncoscopeError(f"{file} {why}: start over with --fresh") from error

    # Writing

    def append(self, rows: Sequence[StoreRow], arrays: Mapping[str, np.ndarray]) -> int:
        """Write one shard; when this returns, the shard lasts.

        Args:
            rows: The items. Those that were skipped have no row in the arrays.
            arrays: By name (any text, such as a layer's), each with one leading entry for each of ``rows`` whose status
                is "done", in their order.

        Returns:
            The shard's number.

        Raises:
            UsageError: arrays that do not fit the rows, or hold objects.
            EncoscopeError: the shard cannot be written: nothing of it counts then, and the store can be used on.
        """
        self._require_writable()
        done = sum(row.done for row in rows)
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != done:
                raise UsageError(f"array {name!r} has shape {array.shape}, for {done} rows that are done")
            if array.dtype.hasobject:
                raise UsageError(f"array {name!r} has dtype {array.dtype}: only plain numbers and text can be stored")
        if done and not arrays:
            raise UsageError(f"{done} rows are done, but there is no array for them")
        number = len(self._shards)
        files = {name: f"{_file_stem(name)}-{number:06d}.npy" for name in arrays} if done else {}
        entry = {"rows": [astuple(row) for row in rows], "files": files}
        with self.write_together(list(files.values()), entry) as temporaries:
            for name, temporary in zip(files, temporaries, strict=True):
                np.save(temporary, arrays[name], allow_pickle=False)
        self._add_shard(StoredShard(tuple(rows), files))
        return number

    def finish(self) -> None:
        """Mark the store as complete, and write ``index.parquet`` (id, path, label, status, shard, row)."""
        import pyarrow
        from pyarrow import parquet

        self._require_writable()
        columns: dict[str, list[Any]] = {name: [] for name in ("id", "path", "label", "status", "shard", "row")}
        for number, shard in enumerate(self._shards):
            index = 0
            for row in shard.rows:
                values = (row.id, row.path, row.label, row.status, number, index if row.done else None)
                index += row.done
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
        text, integer = pyarrow.string(), pyarrow.int64()
        table = pyarrow.table(columns, pyarrow.schema(zip(columns, [text] * 4 + [integer] * 2, strict=True)))
        with self.write(_INDEX) as temporary:
            parquet.write_table(table, temporary)
        self.append_entry({"complete": True})

    def compact(self) -> None:
        """Merge all shards into one, so that ``read`` maps an array whole; needs room for the largest array meanwhile.

        Every shard must have the same arrays. Readers that opened the store before must open it again.
        """
        self._require_writable()
        if len(self._shards) < 2:
            return
        complete = self.complete
        # the number of rows only grows: a file never takes the name of one in an older journal
        files = {name: f"{_file_stem(name)}-all-{len(self)}.npy" for name in self.names}
        with explain_os_errors(self.path):
            self.journal = merge_shards(self.path, self.journal, files)
        if complete and not self.complete:
            self.append_entry({"complete": True})
        self._read_shards()

    def state(self, name: str) -> dict[str, np.ndarray] | None:
        """Read the arrays last saved under a name with ``save_state``, after their checksum was compared.

        Args:
            name: Of the state.

        Returns:
            The arrays, in memory; None if there are none.

        Raises:
            EncoscopeError: the file is damaged.
        """
        try:
            file = self.check(_state_file(name))
        except MissingError:
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except DAMAGED as error:
            raise EncoscopeError(f"{file} is damaged: start over with --fresh") from error

    def save_state(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Save a few small arrays (such as the centroids of a fit in progress) in place of those saved before.

        Args:
            name: Of the state.
            arrays: By name.

        Raises:
            EncoscopeError: they cannot be written; those saved before then stay.
        """
        self._require_writable()
        with self.write(_state_file(name)) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

    def _shard(self, number: int) -> StoredShard:
        if not 0 <= number < len(self._shards):
            raise UsageError(f"{self.path} has {len(self._shards)} shards: there is no shard {number}")
        return self._shards[number]

    def _add_shard(self, shard: StoredShard) -> None:
        number, index = len(self._shards), 0
        self._shards.append(shard)
        for row in shard.rows:
            if row.done and self._positions.get(row.id) is None:
                self._positions[row.id] = (number, index)
            self._positions.setdefault(row.id, None)
            index += row.done


def _state_file(name: str) -> str:
    return f"state-{_file_stem(name)}.npz"


def _file_stem(name: str) -> str:
    """Any text as a part of a file name: never hidden, without separators, different for different texts."""
    safe = quote(name, safe="")  # leaves letters, digits and _ . - ~
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _LONGEST:
        safe = f"{safe[:_LONGEST]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe
