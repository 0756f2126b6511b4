"""What a path leads to: reading a pipe, a socket or a device waits for a writer that may never come."""

from __future__ import annotations

import os
import stat

from encoscope.errors import EncoscopeError

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def name_special_kind(path: str | os.PathLike[str]) -> str | None:
    """Name what is at a path where it is no ordinary file.

    Args:
        path: The path; symbolic links are followed.

    Returns:
        "a pipe", "a socket", "a device" or "a folder"; None for an ordinary file, and where nothing can be seen.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - any path-like
    except (OSError, ValueError):  # ValueError: a NUL in the name; opening the file says what is wrong
        return None
    return next((name for test, name in _KINDS if test(mode)), None)


def require_ordinary_file(path: str | os.PathLike[str]) -> None:
    """Refuse to read what is no ordinary file, without waiting for it.

    Args:
        path: The path. Where nothing is there, nothing is said: opening it will.

    Raises:
        EncoscopeError: It is a pipe, a socket, a device or a folder.
    """
    kind = name_special_kind(path)
    if kind is not None:
        raise EncoscopeError(f"cannot read {os.fspath(path)}: it is {kind}, not a file")
