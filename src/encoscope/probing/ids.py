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
from encoscope.results import atomic_write
from encoscope.store import get_cache_dir

UNREADABLE = "unreadable"


def hash_files(paths: Sequence[Path], *, progress: Progress = None) -> list[str]:
    """Compute the sha256 of files.

    The ids are kept in the cache under the list of names: files whose size and time of change are the same are not read
    again.

    Args:
        paths: The files.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        For each file the sha256 in hex; ``"unreadable"`` for a file that cannot be opened.
    """
    names = "\0".join(os.path.abspath(path) for path in paths)  # noqa: PTH100 - symbolic links stay apart
    file = get_cache_dir("ids", hashlib.sha256(os.fsencode(names)).hexdigest()[:16] + ".npz")
    stamps = np.array([_stamp(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    ids = [""] * len(paths)
    with suppress(OSError, ValueError, KeyError), np.load(file, allow_pickle=False) as kept:
        if kept["stamps"].shape == stamps.shape:
            same = (kept["stamps"] == stamps).all(1) & (stamps[:, 1] >= 0)
            ids = [text if known else "" for text, known in zip(kept["ids"].tolist(), same, strict=True)]
    new = [index for index, text in enumerate(ids) if not text]
    if not new:
        return ids
    hashed = prefetch(_file_id, (paths[index] for index in new), depth=256)
    for index, text in zip(new, track(hashed, len(new), "ids", progress), strict=True):
        ids[index] = text
    with (
        suppress(EncoscopeError),
        atomic_write(file) as temporary,
    ):  # the ids are used even if the cache cannot be written
        np.savez(temporary, stamps=stamps, ids=np.array(ids))
    return ids


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
