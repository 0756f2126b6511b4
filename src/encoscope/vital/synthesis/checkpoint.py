"""The state of a synthesis run on disk: whole or absent, named after what makes the run."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from encoscope.cache import find_keyed_folder
from encoscope.errors import EncoscopeError, MissingError
from encoscope.store import JournaledFolder, content_key

State: TypeAlias = dict[str, Any]
"""Tensors, numbers, and lists and dictionaries of these."""

_FILE = "state.pt"
_log = logging.getLogger("encoscope")


@dataclass(frozen=True)
class Checkpoint:
    """The saved state of one run; another manifest is another run.

    Attributes:
        path: The folder that holds the state.
        manifest: What makes the run, as plain values for JSON: the network's digest, units, method, settings, seed.
        trial: The network's outputs for a trial input, which are saved beside the state.
        accepts: Tells, of the outputs beside a saved state, whether they are the network's; None accepts all.
    """

    path: Path
    manifest: Mapping[str, Any]
    trial: Any = None
    accepts: Callable[[Any], bool] | None = None

    @classmethod
    def cached(
        cls,
        manifest: Mapping[str, Any],
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        trial: Any = None,
        accepts: Callable[[Any], bool] | None = None,
    ) -> Checkpoint:
        """Name the checkpoint of a run in the cache after its manifest.

        Args:
            manifest: What makes the run.
            cache_dir: The cache; None is the user's.
            trial: As the attribute.
            accepts: As the attribute.

        Returns:
            The checkpoint; nothing is on disk before ``save``.
        """
        return cls(find_keyed_folder("synthesis", manifest, cache_dir), manifest, trial, accepts)

    def save(self, state: State) -> None:
        """Replace the saved state, whole or not at all.

        Args:
            state: What ``load`` gives back.

        Raises:
            EncoscopeError: a full disk, a folder that cannot be written; the state saved before then stays.
        """
        with JournaledFolder(self.path, self.manifest).write(_FILE) as temporary:
            content = {"manifest": content_key(self.manifest), "trial": self.trial, "state": state}
            torch.save(content, temporary)

    def load(self) -> State | None:
        """Read the saved state, after its checksum was compared.

        Returns:
            The state, with tensors on the CPU; None if there is none, or (with a warning) one that is damaged or of
            another run.
        """
        try:
            file = JournaledFolder(self.path).check(_FILE)
            saved = torch.load(file, map_location="cpu", weights_only=True)
            if saved["manifest"] != content_key(self.manifest):
                why = "is of another run"
            elif self.accepts is None or self.accepts(saved.get("trial")):
                return saved["state"]
            else:
                why = "is of another network"
        except MissingError:
            return None
        except (
            EncoscopeError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
            EOFError,
            pickle.UnpicklingError,
        ):
            why = "is damaged"
        _log.warning("%s %s: starting over", self.path, why)
        self.delete()
        return None

    def delete(self) -> None:
        """Forget the run."""
        JournaledFolder(self.path, fresh=True)
        (self.path / _FILE).unlink(missing_ok=True)
