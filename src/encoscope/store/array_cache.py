"""Vectors of images that are kept on disk, so that a run that is killed, or asked again, embeds nothing twice."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoscope._version import __version__
from encoscope.errors import EncoscopeError, MissingError
from encoscope.store import Store, StoreRow, content_key, get_cache_dir

_FLUSH = 512  # rows; what a kill costs
_PATIENCE = 20  # times a tenth of a second, while another process writes to the same store


class Vectors:
    """Named arrays by key: what is known is read from a store, what is new goes there, some hundreds at a time.

    manifest: what shapes the arrays (digests, settings); the store's folder is named after it. cache: the folder of
    stores; by default the user's cache. Several processes may add to one store in turn.
    """

    def __init__(self, manifest: Mapping[str, Any], cache: str | os.PathLike[str] | None = None) -> None:
        self._manifest = {"kind": "vectors", "version": __version__, **manifest}
        root = get_cache_dir("vectors") if cache is None else Path(cache)
        self.path = root / content_key(self._manifest)
        self._found: dict[str, dict[str, np.ndarray]] = {}
        self._waiting: list[str] = []
        self._store: Store | None = None
        try:
            self._store = Store.load(self.path)
        except MissingError:
            self._store = None

    def __contains__(self, name: object) -> bool:
        """Whether the arrays of this key are known."""
        return name in self._found or (
            self._store is not None and isinstance(name, str) and self._store.position(name) is not None
        )

    def get(self, names: Sequence[str], array: str) -> np.ndarray:
        """One of the arrays for keys that are all known, stacked."""
        return np.stack([self.one(name)[array] for name in names])

    def one(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of a key that is known."""
        if name not in self._found:
            place = None if self._store is None else self._store.position(name)
            if self._store is None or place is None:
                raise KeyError(name)
            shard, row = place
            self._read(self._store, shard)
            if name not in self._found:  # a key that was stored twice counts where it was first
                self._found[name] = {array: self._store.read(array, shard)[row] for array in self._store.names}
        return self._found[name]

    def add(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Enter arrays under a new key; shapes and types are the same for all keys."""
        self._found[name] = dict(arrays)
        self._waiting.append(name)
        if len(self._waiting) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what was added. EncoscopeError for a full disk: what was written before stays."""
        if not self._waiting:
            return
        rows = [StoreRow(name) for name in self._waiting]
        arrays = {
            array: np.stack([self._found[name][array] for name in self._waiting])
            for array in self._found[self._waiting[0]]
        }
        for turn in range(_PATIENCE):
            try:
                with Store.open(self.path, self._manifest) as store:
                    store.append(rows, arrays)
                break
            except EncoscopeError as error:
                if "another process" not in str(error) or turn == _PATIENCE - 1:
                    raise
                time.sleep(0.1)
        self._waiting = []

    def _read(self, store: Store, shard: int) -> None:
        """Take over a shard whole: its other keys are likely to be asked for next."""
        arrays = {array: np.array(store.read(array, shard)) for array in store.names}
        for row, item in enumerate(store.shard_rows(shard)):
            if store.position(item.id) == (shard, row):
                self._found.setdefault(item.id, {array: values[row] for array, values in arrays.items()})
