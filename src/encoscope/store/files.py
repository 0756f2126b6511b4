"""Files that are whole or not there, and what the operating system says in one line."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np

from encoscope.errors import EncoscopeError
from encoscope.results import atomic_write

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_LONGEST = 120


@contextmanager
def explain_os_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an EncoscopeError of one line."""
    try:
        yield
    except (OSError, EncoscopeError) as raised:
        error = raised if isinstance(raised, OSError) else raised.__cause__  # ``aside`` says it in its own words
        if not isinstance(error, OSError):
            raise
        # numpy reports a short write ("8192 requested and 4064 written") without the reason.
        if error.errno in _FULL or (error.errno is None and "requested" in str(error)):
            why = "the disk is full; what was stored before is safe: free some space and run it again to go on"
        elif error.errno in _CLOSED:
            why = f"{error.strerror}; choose another folder (ENCOSCOPE_CACHE names the cache)"
        else:
            why = " ".join((error.strerror or str(error)).split())
        raise EncoscopeError(f"cannot write to {folder}: {why}") from error


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, aside, synced and renamed. The folder's own entry is not synced: see ``sync``."""
    with atomic_write(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_stem(name: str) -> str:
    """A name of an array or a state as part of a file name: never hidden, no separators, unlike for unlike names."""
    safe = quote(name, safe="")  # leaves letters, digits and _ . - ~
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _LONGEST:
        safe = f"{safe[:_LONGEST]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe
