"""What was measured on each image, kept line by line, so that a run that is killed goes on where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from encoscope.errors import EncoscopeError
from encoscope.store import content_key, get_cache_dir
from encoscope.store.files import explain_os_errors


class MeasurementCache:
    """Values of images by the images' identity, in a file of the cache that is named after what made them.

    manifest: all that shapes the values (digests, method, settings), of what JSON can hold. fresh: forget what is
    there. A line is written whole or not read again; lines written twice, by two runs at once, say the same.
    """

    def __init__(self, manifest: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path: Path = get_cache_dir("experiments") / f"{content_key(manifest)}.jsonl"
        self._found: dict[str, dict[str, Any]] = {}
        self._file: TextIO | None = None
        with explain_os_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if fresh:
                self.path.unlink(missing_ok=True)
            if self.path.is_file():
                self._read(self.path.read_text(encoding="utf-8"))
            else:  # the first line is for people: what this file is about
                self.path.write_text(json.dumps({"manifest": dict(manifest)}) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        """Number of images."""
        return len(self._found)

    def get(self, identity: str) -> dict[str, Any] | None:
        """What was written for an image; a number that did not exist is NaN."""
        return self._found.get(identity)

    def put(self, identity: str, values: Mapping[str, Any]) -> None:
        """Write an image's values; when this returns, they outlive the process."""
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"id": identity, "values": plain}, allow_nan=False)
        with explain_os_errors(self.path.parent):
            if self._file is None:
                self._file = self.path.open("a", encoding="utf-8")
            self._file.write(line + "\n")
            self._file.flush()
        self._found[identity] = {name: _number(value) for name, value in plain.items()}

    def __enter__(self) -> MeasurementCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if "id" in entry:
                    self._found[entry["id"]] = {name: _number(value) for name, value in entry["values"].items()}
            except (ValueError, TypeError, AttributeError):
                continue  # torn by a crash: that image is measured again
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise EncoscopeError(f"a measure gave {value}: this is a fault in its computation")
    return value


def _number(value: Any) -> Any:
    return math.nan if value is None else value
