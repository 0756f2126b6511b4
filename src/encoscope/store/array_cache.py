"""Arrays kept on disk by key, such as vectors of images, so that a run that is killed computes none of them twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from encoscope._version import __version__
from encoscope.store.files import FolderLockedError
from encoscope.store.store import Store, StoreRow

_FLUSH = 512  # keys; a killed run computes at most so many again
_PATIENCE = 20  # attempts, a tenth of a second apart, while another process writes to the same store


class ArrayCache:
    """Named arrays by key: known ones are read from a store, new ones are written to it, some hundreds at a time.

    Several processes may add to one store in turn.

    Args:
        manifest: What shapes the arrays (digests, settings); the store's folder is named after it.
        cache_dir: The user's own cache folder; None is the usual one.
        about: Further facts that are kept beside the arrays.
        accepts: Tells, of the facts beside arrays that are there, whether these may be used; otherwise they are
            replaced.

    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        self._manifest = {"kind": "vectors", "version": __version__, **manifest}
        self._cache_dir = cache_dir
        self._known: dict[str, dict[str, np.ndarray]] = {}
        self._unwritten: list[str] = []
        self._store = Store.load_keyed("vectors", self._manifest, cache_dir)
        self._about = dict(about or {})
        self._fresh = self._store is not None and accepts is not None and not accepts(self._store.about)
        if self._fresh:
            self._store = None

    def __contains__(self, key: object) -> bool:
        """Say whether the arrays of this key are known."""
        return key in self._known or (
            self._store is not None and isinstance(key, str) and self._store.position(key) is not None
        )

    def stack(self, keys: Sequence[str], array: str) -> np.ndarray:
        """Stack one of the arrays of several keys, all of them known.

        Args:
            keys: In the order of the result.
            array: Its name.

        Returns:
            ``[keys, ...]``

        Raises:
            KeyError: a key that is not known.
        """
        return np.stack([self.read(key)[array] for key in keys])

    def read(self, key: str) -> dict[str, np.ndarray]:
        """Give all arrays of a key that is known.

        Args:
            key: As given to ``add``.

        Returns:
            The arrays by name.

        Raises:
            KeyError: the key is not known.
        """
        if key not in self._known:
            position = None if self._store is None else self._store.position(key)
            if self._store is None or position is None:
                raise KeyError(key)
            shard, row = position
            self._read_shard(self._store, shard)
            if key not in self._known:  # of a key that was stored twice the first counts
                self._known[key] = {array: self._store.read(array, shard)[row] for array in self._store.names}
        return self._known[key]

    def add(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the arrays of a new key.

        Args:
            key: Any text.
            arrays: By name; names, shapes and types are the same for all keys.

        Raises:
            EncoscopeError: a full disk; what was written before stays.
        """
        self._known[key] = dict(arrays)
        self._unwritten.append(key)
        if len(self._unwritten) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what was added. Raises EncoscopeError for a full disk: what was written before stays."""
        if not self._unwritten:
            return
        rows = [StoreRow(key) for key in self._unwritten]
        arrays = {
            array: np.stack([self._known[key][array] for key in self._unwritten])
            for array in self._known[self._unwritten[0]]
        }
        for attempt in range(_PATIENCE):
            try:
                with Store.keyed(
                    "vectors", self._manifest, cache_dir=self._cache_dir, fresh=self._fresh, about=self._about
                ) as store:
                    store.append(rows, arrays)
                self._fresh = False
                break
            except FolderLockedError:
                if attempt == _PATIENCE - 1:
                    raise
                time.sleep(0.1)
        self._unwritten = []

    def _read_shard(self, store: Store, shard: int) -> None:
        """Read a whole shard: its other keys are likely to be used next."""
        arrays = {array: np.array(store.read(array, shard)) for array in store.names}
        for row, item in enumerate(store.shard_rows(shard)):
            if store.position(item.id) == (shard, row):
                self._known.setdefault(item.id, {array: values[row] for array, values in arrays.items()})
