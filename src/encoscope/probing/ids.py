"""The ids of image files, kept in the cache so that a dataset is not read again each time it is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from encoscope.errors import EncoscopeError
from encoscope.file_kind import name_special_kind
from encoscope.probing.prefetch import prefetch
from encoscope.progress import Progress, track
from encoscope.store import JournaledFolder

UNREADABLE = "unreadable"
_FILE = "ids.npz"


def hash_files(
    paths: Sequence[Path], *, cache_dir: str | os.PathLike[str] | None = None, progress: Progress = None
) -> list[str]:
    """Compute the sha256 of files.

    The ids are kept in the cache under the list of names: files whose size and time of change are the same are not read
    again.

    Args:
        paths: The files.
        cache_dir: The user's own cache folder; None is the usual one.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        For each file the sha256 in hex; ``"unreadable"`` for a file that cannot be opened.
    """
    names = "\0".join(os.path.abspath(path) for path in paths)  # noqa: PTH100 - symbolic links stay apart
    manifest = {"files": hashlib.sha256(os.fsencode(names)).hexdigest()}
    folder = JournaledFolder.keyed("ids", manifest, cache_dir=cache_dir, restart=True)
    stamps = np.array([_stamp(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    ids = _find_known(folder, stamps)
    new = [index for index, text in enumerate(ids) if not text]
    if not new:
        return ids
    hashed = prefetch(_file_id, [paths[index] for index in new], depth=256)
    for index, text in zip(new, track(hashed, len(new), "ids", progress), strict=True):
        ids[index] = text
    with suppress(EncoscopeError), folder.write(_FILE) as temporary:  # without a cache it is only slower
        np.savez(temporary, stamps=stamps, ids=np.array(ids))
    return ids


def _find_known(folder: JournaledFolder, stamps: np.ndarray) -> list[str]:
    """The ids of files that have not changed since they were kept; empty for all others."""
    file = folder.find(_FILE)
    if file is not None:
        with np.load(file, allow_pickle=False) as kept:
            same = (kept["stamps"] == stamps).all(1) & (stamps[:, 1] >= 0)
            return [text if known else "" for text, known in zip(kept["ids"].tolist(), same, strict=True)]
    return [""] * len(stamps)


def rank_ids(ids: Sequence[str]) -> np.ndarray:
    """Compute the rank of each id among all ids.

    Args:
        ids: The ids.

    Returns:
        Ranks from 0; equal ids are ranked in their order.

    Example:
        >>> rank_ids(["b", "c", "a"]).tolist()
        [1, 2, 0]
    """
    order = sorted(range(len(ids)), key=lambda index: (ids[index], index))
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[order] = np.arange(len(ids))
    return ranks


def _stamp(path: Path) -> tuple[int, int]:
    """(size, nanoseconds of the last change); -1 where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _file_id(path: Path) -> str:
    try:
        if name_special_kind(path) is not None:  # reading a pipe would wait for its writer
            return UNREADABLE
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREADABLE
