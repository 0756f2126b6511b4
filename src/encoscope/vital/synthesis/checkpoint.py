"""The state of a synthesis run on disk: whole or not there, named after what makes the run."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from encoscope.results import atomic_write
from encoscope.store import content_key, get_cache_dir

State: TypeAlias = dict[str, Any]
"""Tensors, numbers, and lists and dictionaries of these."""

_log = logging.getLogger("encoscope")


@dataclass(frozen=True)
class Checkpoint:
    """A file with the state of a run, and the manifest of what makes it: another manifest is another run.

    manifest: plain values for JSON: network's digest, units, method, settings, seed.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def cached(cls, manifest: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of a run in the cache, named after its manifest."""
        return cls(get_cache_dir("synthesis", f"{content_key(manifest)}.pt"), manifest)

    def save(self, state: State) -> None:
        """Replace the file by this state, whole or not at all."""
        with atomic_write(self.path) as temporary:
            torch.save({"manifest": content_key(self.manifest), "state": state}, temporary)

    def load(self) -> State | None:
        """The state kept here; None if there is none, or (with a warning) one that is damaged or of another run."""
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                kept = torch.load(file, map_location="cpu", weights_only=True)
            if kept["manifest"] == content_key(self.manifest):
                return kept["state"]
            why = "is of another run"
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError):
            why = "is damaged"
        _log.warning("%s %s: starting over", self.path, why)
        return None

    def delete(self) -> None:
        """Forget the run."""
        self.path.unlink(missing_ok=True)
