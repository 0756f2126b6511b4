"""A pass whose result is as large as the dataset: arrays of its items, written to a store block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from encoscope.errors import EncoscopeError
from encoscope.store.passes import WHOLE, Shard
from encoscope.store.store import Store, StoreRow


class StoredBlocks:
    """Arrays of a dataset's items in a store: ``partial_fit``, ``merge``, ``finalize``.

    A block is a run of successive items. Blocks are cut by the items' numbers, so that every shard has blocks that a
    single process would have, too. A block lasts as soon as ``partial_fit`` returns; after a kill, ``list_blocks``
    leaves out those that are stored.

    Args:
        store: The shard's own store, open to write; the blocks that an earlier run left in it count.
        shard: The share of the dataset that the store is for.
        size: Items in a block, at least 1.

    Attributes:
        store: The shard's own store.

    Example:
        >>> import tempfile
        >>> with Store.open(tempfile.mkdtemp(), {"made": "by hand"}) as store:
        ...     blocks = StoredBlocks(store, size=2)
        ...     for block in blocks.list_blocks(3):
        ...         rows = [StoreRow(str(number)) for number in block]
        ...         blocks = blocks.partial_fit(block.start, rows, {"squares": np.array(block) ** 2})
        ...     [store.read("squares", number).tolist() for number in blocks.finalize(store, 3).shards]
        [[0, 1], [4]]
    """

    def __init__(self, store: Store, shard: Shard = WHOLE, *, size: int) -> None:
        self.store, self._shard, self._size = store, shard, size
        self._held: dict[int, tuple[Store, int]] = {}  # by the number of a block's first item: store, number in it
        first = 0
        for number, block in enumerate(store.blocks):
            # a single process may have had blocks of another size before
            start = first if shard.count == 1 else (shard.index + number * shard.count) * size
            self._held[start] = (store, number)
            first += len(block.rows)

    @classmethod
    def keyed(
        cls,
        kind: str,
        manifest: Mapping[str, Any],
        shard: Shard = WHOLE,
        *,
        size: int,
        cache_dir: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        restart: bool = False,
        about: Mapping[str, Any] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> StoredBlocks:
        """Open the store of the cache that is named after a manifest and a shard.

        Args:
            kind: What is kept, as for ``Store.keyed``.
            manifest: What shapes the content.
            shard: The share of the dataset; the whole has the manifest's own store.
            size: Items in a block.
            cache_dir: The user's own cache folder; None is the usual one.
            fresh: Start over.
            restart: Start over, with a warning, where the store is damaged.
            about: Further facts, as for ``Store.open``.
            accepts: As for ``Store.keyed``.

        Returns:
            The blocks; close their ``store``, or use it as a context manager.

        Raises:
            FolderLockedError: Another process writes to the store.
            EncoscopeError: As for ``Store.open``.
        """
        share = {} if shard.count == 1 else {"shard": [shard.index, shard.count], "block": size}
        store = Store.keyed(
            kind,
            {**manifest, **share},
            cache_dir=cache_dir,
            fresh=fresh,
            restart=restart,
            about=about,
            accepts=accepts,
        )
        return cls(store, shard, size=size)

    def list_blocks(self, total: int) -> list[range]:
        """List what is left to do.

        Args:
            total: Items of the whole dataset.

        Returns:
            The items' numbers of each block of this shard that is not stored yet.
        """
        start = len(self.store) if self._shard.count == 1 else 0
        firsts = self._shard.select(range(start, total, self._size))
        return [range(first, min(first + self._size, total)) for first in firsts if first not in self._held]

    def partial_fit(self, first: int, rows: Sequence[StoreRow], arrays: Mapping[str, np.ndarray]) -> StoredBlocks:
        """Write a block; when this returns, it lasts.

        Args:
            first: The number of its first item in the whole dataset.
            rows: Its items, those without arrays too.
            arrays: By name, each with one entry for each item that is done.

        Returns:
            Itself.

        Raises:
            EncoscopeError: It cannot be written: a full disk.
        """
        self._held[first] = (self.store, self.store.append(rows, arrays))
        return self

    def merge(self, other: StoredBlocks) -> StoredBlocks:
        """Add another shard's blocks, which stay in its own store.

        Args:
            other: The blocks of another shard of the same dataset, with the same size.

        Returns:
            Itself.
        """
        self._held |= other._held
        return self

    def finalize(self, store: Store, total: int) -> Store:
        """Bring all blocks into one store, in the order of the items.

        Args:
            store: For the whole dataset, open to write: a single process' own, in which all blocks are already. What an
                earlier call left there counts.
            total: Items of the whole dataset.

        Returns:
            The same store; the shards' own ones are as before.

        Raises:
            EncoscopeError: Blocks are missing, or cannot be read or written.
        """
        following, ready = 0, len(store)
        for first, (source, number) in sorted(self._held.items(), key=lambda item: item[0]):
            if first != following:
                break
            block = source.blocks[number]
            if first >= ready:
                store.append(block.rows, {name: source.read(name, number) for name in block.files})
            following += len(block.rows)
        if following != total:
            raise EncoscopeError(f"items from number {following} of {total} on are missing: run their shard (again)")
        return store
