"""What a store asks of the file system: checksums, lasting renames, a lock, and its errors in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoscope.errors import EncoscopeError

try:
    import fcntl
except ImportError:  # Windows: two writers are not noticed there
    fcntl = None

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def explain_os_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system while writing into an EncoscopeError of one line.

    Args:
        folder: What is being written to, for the message.

    Yields:
        Nothing: the block is what writes.

    Raises:
        EncoscopeError: the disk is full, the folder cannot be written, or another error of the operating system.
    """
    try:
        yield
    except (OSError, EncoscopeError) as raised:
        error = raised if isinstance(raised, OSError) else raised.__cause__  # atomic_write has a message of its own
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


def hash_file(path: Path) -> str:
    """Compute the checksum of a file.

    Args:
        path: The file.

    Returns:
        The sha256 of its bytes, in hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlive a power cut, where the operating system can do that.

    Args:
        folder: The folder whose files were renamed.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_ATTEMPTS = 5  # to lock a file that is removed meanwhile
_holders: dict[tuple[int, int], threading.Thread] = {}  # of locked files, by device and number: who locked them
_changing_holders = threading.Lock()  # a file is locked, or unlocked, and its holder known, at once


class FolderLockedError(EncoscopeError):
    """Another process writes to the folder."""


class Lock:
    """An exclusive lock on a file, held from construction until ``release``.

    Threads of one process wait for each other; of two processes the second is refused.

    Args:
        path: The file; it is made if it is absent, with its folder.

    Raises:
        FolderLockedError: another process, which the message names, holds the lock, or this thread itself does.
        OSError: the file cannot be opened or locked.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = None
        self._file: tuple[int, int] | None = None
        for _ in range(_ATTEMPTS):
            while not self._try_alone(path):
                time.sleep(0.02)
            if self._handle is not None:
                os.ftruncate(self._handle, 0)
                os.write(self._handle, f"{os.getpid()}\n".encode())
                return
        raise EncoscopeError(f"{path.parent} was removed by another process this very moment: run it again")

    def _try_alone(self, path: Path) -> bool:
        with _changing_holders:
            return self._try(path)

    def _try(self, path: Path) -> bool:
        """Lock the file, if it stays; False while another thread of this process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder was removed meanwhile
            return True
        status = os.fstat(self._handle)
        file = (status.st_dev, status.st_ino)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            self._release()
            holder = _holders.get(file)
            if holder is not None and holder is not threading.current_thread() and holder.is_alive():
                return False
            raise FolderLockedError(
                f"{path.parent} is being written by another process (pid {owner}): wait for it, or stop it"
            ) from None
        except OSError:
            self._release()
            raise
        if path.exists() and os.path.samestat(os.fstat(self._handle), path.stat()):
            self._file = file
            _holders[file] = threading.current_thread()
        else:  # removed meanwhile
            self._release()
        return True

    def release(self) -> None:
        """Release the lock. The file stays: without it, two processes could lock two files of one name."""
        with _changing_holders:
            self._release()

    def _release(self) -> None:
        if self._file is not None:
            _holders.pop(self._file, None)
            self._file = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
