"""What was measured on each image, kept entry by entry, so that a run that is killed resumes where it stopped."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from encoscope.errors import EncoscopeError
from encoscope.store import JournaledFolder


class MeasurementCache:
    """Measured values of images by the images' ids, in a folder of the cache that is named after what made them.

    Two runs may write to it at once: what is written twice is the same.

    Args:
        manifest: All that shapes the values (digests, method, settings), of values that JSON can hold.
        fresh: Forget what an earlier run measured.
        cache_dir: The user's own cache folder; None is the usual one.
        about: Further facts that are kept beside the values.
        accepts: Tells, of the facts beside values that are there, whether these may be used; otherwise they are
            forgotten.
        keep: Whether values are written at all.

    Attributes:
        path: The file that holds the values.

    Raises:
        EncoscopeError: the file is damaged; a folder that cannot be written.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        *,
        fresh: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        about: Mapping[str, Any] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
        keep: bool = True,
    ) -> None:
        self._keep = keep
        self._folder = JournaledFolder.keyed(
            "experiments",
            manifest,
            cache_dir=cache_dir,
            fresh=fresh and keep,
            about=about,
            accepts=accepts if keep else None,
        )
        if not keep:
            self.path, self._values = self._folder.journal.path, {}
            return
        self.path: Path = self._folder.journal.path
        self._values = {entry["id"]: entry["values"] for entry in self._folder.journal.entries if "id" in entry}

    def __len__(self) -> int:
        """Count the images."""
        return len(self._values)

    def get(self, identity: str) -> dict[str, Any] | None:
        """Read what was measured on an image.

        Args:
            identity: The image's id.

        Returns:
            The values by name, NaN for a number that does not exist; None for an image that was not measured.
        """
        values = self._values.get(identity)
        return None if values is None else {name: _from_json(value) for name, value in values.items()}

    def put(self, identity: str, values: Mapping[str, Any]) -> None:
        """Write what was measured on an image; when this returns, it outlives the process.

        Args:
            identity: The image's id.
            values: By name: numbers, texts, and lists of these.

        Raises:
            EncoscopeError: an infinite value, a full disk, a folder that cannot be written.
        """
        plain = {name: _to_json(value) for name, value in values.items()}
        if self._keep:
            self._folder.append_entry({"id": identity, "values": plain})
        self._values[identity] = plain


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise EncoscopeError(f"a measure gave {value}: this is a fault in its computation")
    return value


def _from_json(value: Any) -> Any:
    return math.nan if value is None else value
