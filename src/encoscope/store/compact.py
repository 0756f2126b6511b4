"""Merge the shards of a finished store, so that each array is one file to map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from encoscope.errors import EncoscopeError
from encoscope.results import DAMAGED, atomic_write
from encoscope.store.files import hash_file, sync_folder
from encoscope.store.journal import Journal


def merge_shards(folder: Path, journal: Journal, files: Mapping[str, str]) -> Journal:
    """Copy every array's shards into one file, enter that in a new journal, and only then delete the shards.

    Stopped anywhere, the folder holds the old store or the new one. Every shard must have the same arrays.

    Args:
        folder: The store's.
        journal: Its journal, of two shards or more.
        files: The file that each array gets, of a name that no older journal holds.

    Returns:
        The new journal.

    Raises:
        EncoscopeError: shards that do not fit together, or that are missing or damaged.
    """
    shards = [entry for entry in journal.entries if "rows" in entry]
    full = [entry for entry in shards if entry["files"]]
    rows = [row for entry in shards for row in entry["rows"]]
    old_files = {file for entry in full for file in entry["files"].values()}
    checksums = {
        file: _concatenate(folder, [entry["files"][name] for entry in full], folder / file)
        for name, file in files.items()
    }
    kept = [(file, checksum) for file in journal.checksums.keys() - old_files for checksum in journal.checksums[file]]
    sync_folder(folder)
    with atomic_write(journal.path) as temporary:
        merged = Journal(temporary)
        for file, checksum in kept:
            merged.append({"sha256": {file: checksum}})
        merged.append({"rows": rows, "files": files, "sha256": checksums})
    sync_folder(folder)
    for file in old_files - set(files.values()):
        (folder / file).unlink(missing_ok=True)
    return Journal(journal.path)


def _concatenate(folder: Path, files: Sequence[str], target: Path) -> str:
    """Write the arrays of files one after the other, with one of them in memory at a time; the sha256 of the result."""
    first = _load(folder / files[0])
    kind, shape, length = first.dtype, first.shape[1:], 0
    for file in files:
        array = _load(folder / file)
        if array.dtype != kind or array.shape[1:] != shape:
            raise EncoscopeError(f"the shards of {folder} do not fit together: start over with --fresh")
        length += len(array)
    with atomic_write(target) as temporary:
        with temporary.open("wb") as output:
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length, *shape)}
            np.lib.format.write_array_header_1_0(output, header)
            for file in files:
                output.write(np.ascontiguousarray(_load(folder / file)).data)
        return hash_file(temporary)


def _load(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise EncoscopeError(f"{file} {why}: start over with --fresh") from error
