"""The journal: one line of JSON for each shard that is whole on disk. What it does not name is not there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from encoscope.errors import EncoscopeError

DONE = "done"


@dataclass(frozen=True)
class StoreRow:
    """One item. id: what it is (of an image, the sha256 of its file). status: "done", or why it has no arrays."""

    id: str
    path: str | None = None
    label: str | None = None
    status: str = DONE

    @property
    def done(self) -> bool:
        """Whether the arrays hold a row for it."""
        return self.status == DONE


@dataclass(frozen=True)
class JournalEntry:
    """One shard: its rows, and the file of each array by the array's name."""

    rows: tuple[StoreRow, ...]
    files: dict[str, str]


class Journal:
    """Reads what was done; appends what is done. A last line that a crash has torn counts for nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[JournalEntry] = []
        self._end = 0
        data = path.read_bytes() if path.exists() else b""
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1]):  # the last piece is empty, or torn before its line end
            try:
                self.entries.append(_parse(line, number))
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines) - 2 and lines[-1] == b"":
                    break  # after a power cut a last line may be as long as it should be and hold anything
                raise EncoscopeError(
                    f"line {number + 1} of {path} is damaged: start over with --fresh, or use another folder"
                ) from error
            self._end += len(line) + 1

    def append(self, rows: Sequence[StoreRow], files: dict[str, str]) -> int:
        """Enter a shard whose files are on disk, and return its number. When this raises, nothing was entered."""
        shard = len(self.entries)
        self.path.touch()
        content = {"shard": shard, "rows": [astuple(row) for row in rows], "files": files}
        line = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        with self.path.open("r+b", buffering=0) as file:
            file.truncate(self._end)  # what a crash or a full disk has left
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
        self.entries.append(JournalEntry(tuple(rows), files))
        return shard


def _parse(line: bytes, number: int) -> JournalEntry:
    content = json.loads(line)
    if content["shard"] != number:
        raise ValueError(f"shard {content['shard']} on line {number + 1}")
    return JournalEntry(tuple(StoreRow(*row) for row in content["rows"]), dict(content["files"]))
