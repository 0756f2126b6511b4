"""A finished store's shards made one, so that each array is one file to map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoscope.errors import EncoscopeError
from encoscope.results import atomic_write
from encoscope.store.files import file_stem, sync_folder
from encoscope.store.journal import Journal


def merge_shards(folder: Path, journal: Journal) -> Journal:
    """Copy every array's shards into one file, enter that in a new journal, and only then delete the shards.

    Stopped anywhere, the folder holds the old store or the new one. Every shard must have the same arrays.
    """
    entries = [entry for entry in journal.entries if entry.files]
    if len(entries) < 2 and len(journal.entries) < 2:
        return journal
    rows = [row for entry in journal.entries for row in entry.rows]
    files = {}
    for name in dict.fromkeys(name for entry in entries for name in entry.files):
        # the number of rows only grows: the file never takes the place of one that an older journal names
        files[name] = f"{file_stem(name)}-all-{len(rows)}.npy"
        _concatenate(folder, [entry.files[name] for entry in entries], folder / files[name])
    sync_folder(folder)
    with atomic_write(journal.path) as temporary:
        Journal(temporary).append(rows, files)
    sync_folder(folder)
    kept = set(files.values())
    for file in (file for entry in entries for file in entry.files.values() if file not in kept):
        (folder / file).unlink(missing_ok=True)
    return Journal(journal.path)


def _concatenate(folder: Path, parts: Sequence[str], target: Path) -> None:
    """The arrays of files one after the other; one of them is in memory at a time."""
    first = _load(folder / parts[0])
    kind, shape, length = first.dtype, first.shape[1:], 0
    for part in parts:
        array = _load(folder / part)
        if array.dtype != kind or array.shape[1:] != shape:
            raise EncoscopeError(f"the shards of {folder} do not fit together: start over with --fresh")
        length += len(array)
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(_load(folder / part)).data)


def _load(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise EncoscopeError(f"{file} {why}: start over with --fresh") from error
