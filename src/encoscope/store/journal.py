"""The journal of a store: one line of JSON for everything that is done. What it does not name does not count.

An entry is a mapping of plain JSON values. ``sha256`` in it maps files to their checksums; all else belongs to the
store that wrote the entry. Each line ends with a checksum of its own.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from encoscope.errors import EncoscopeError

try:
    import fcntl
except ImportError:  # Windows: two processes that append to one journal must take turns
    fcntl = None

_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"\}$')


class Journal:
    """Append-only entries on disk. A last line that a crash cut short counts for nothing and is written over.

    Several processes may append to one journal; each entry that another process wrote is read before the next append.

    Args:
        path: The file. It is made by the first ``append``.

    Attributes:
        entries: All entries, in the order in which they were appended.
        checksums: For each file the checksums under which it was entered; a file is whole if it has one of them.

    Raises:
        EncoscopeError: a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.checksums: dict[str, list[str]] = {}
        self._end = 0  # of the last whole line
        if path.exists():
            with path.open("rb") as file:
                self._read(file)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; when this returns, it outlives the process and a power cut. When it raises, nothing was added.

        Args:
            entry: Plain JSON values, at least one.

        Raises:
            OSError: the file cannot be written.
        """
        line = _to_line(entry)
        self.path.touch()
        with self.path.open("r+b", buffering=0) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            self._read(file)
            file.truncate(self._end)  # removes what a crash or a full disk has left
            file.seek(self._end)
            try:
                written = 0
                while written < len(line):
                    written += file.write(line[written:]) or 0
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(self._end)
                raise
        self._end += len(line)
        self._take(json.loads(line))

    def _read(self, file: BinaryIO) -> None:
        """Take over the whole lines from the last known one on."""
        file.seek(self._end)
        lines = file.read().split(b"\n")
        for index, line in enumerate(lines[:-1]):  # the last piece is empty, or was cut short before its line end
            try:
                entry = _from_line(line)
            except ValueError as error:
                if index == len(lines) - 2 and lines[-1] == b"":
                    break  # after a power cut a last line may have its full length and any content
                raise EncoscopeError(
                    f"line {len(self.entries) + 1} of {self.path} is damaged: start over with --fresh, "
                    "or use another folder"
                ) from error
            self._end += len(line) + 1
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        entry.pop("crc32")
        self.entries.append(entry)
        for file, checksum in entry.get("sha256", {}).items():
            if checksum is None:
                self.checksums.pop(file, None)
            else:
                self.checksums.setdefault(file, []).append(checksum)


def _to_line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(entry), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return text[:-1] + b',"crc32":"%08x"}\n' % zlib.crc32(text)


def _from_line(line: bytes) -> dict[str, Any]:
    checksum = _CHECKSUM.search(line)
    if checksum is None or zlib.crc32(line[: checksum.start()] + b"}") != int(checksum[1], 16):
        raise ValueError("the line and its checksum differ")
    return json.loads(line)
