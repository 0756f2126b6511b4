"""One writer at a time: a lock that the system gives back when its owner ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

from encoscope.errors import EncoscopeError

try:
    import fcntl
except ImportError:  # Windows: two writers are not noticed there
    fcntl = None


class Lock:
    """Held from its making until ``release``. EncoscopeError, naming the other process, if it is held already."""

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            self.release()
            raise EncoscopeError(
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
        """Give it back. The file stays: removing it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
