"""One writer at a time: a lock that the operating system releases when its owner ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

from encoscope.errors import EncoscopeError

try:
    import fcntl
except ImportError:  # Windows: two writers are not noticed there
    fcntl = None


class FolderLockedError(EncoscopeError):
    """Another process writes to the folder."""


class Lock:
    """An exclusive lock on a file, held from construction until ``release``.

    Args:
        path: The file; it is made if it is absent.

    Raises:
        FolderLockedError: another process, which the message names, holds the lock.
        OSError: the file cannot be opened or locked.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            self.release()
            raise FolderLockedError(
                f"{path.parent} is being written by another process (pid {owner}): wait for it, or stop it"
            ) from None
        except OSError:
            self.release()
            raise
        if not path.exists() or not os.path.samestat(os.fstat(self._handle), path.stat()):
            self.release()
            raise EncoscopeError(f"{path.parent} was removed by another process this very moment: run it again")
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Release the lock. The file stays: without it, two processes could lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
