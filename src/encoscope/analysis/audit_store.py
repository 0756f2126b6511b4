"""Where an audit keeps what it has measured of each image, so that one that was killed resumes where it was."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from encoscope._version import __version__
from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError
from encoscope.images import LoadedImage
from encoscope.progress import Progress, track_steps
from encoscope.store import Store, StoreRow, content_key
from encoscope.store.blocks import StoredBlocks
from encoscope.store.passes import WHOLE, Shard, run_pass

BLOCK = 16
"""Images of a block, which go through the network together."""

_log = logging.getLogger("encoscope")


class AuditStore:
    """The stores of an audit's passes; a context manager that deletes them when the audit is done.

    After an error or a kill they stay, and the next audit of the same network, images and settings resumes.

    Args:
        encoder: The network; None for stores in a temporary folder, which are gone in any case.
        layers: The layers that are read.
        about: What else shapes the values, of plain values for JSON.
        cache_dir: The user's own cache folder; None is the usual one.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        layers: Sequence[str] = (),
        about: Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._encoder, self._layers, self._about = encoder, tuple(layers), dict(about or {})
        self._cache_dir = None if encoder is None else choose_cache_dir(encoder, cache_dir)
        self._stack = ExitStack()
        self._opened: dict[str, StoredBlocks] = {}

    def open(self, step: Mapping[str, Any], images: Sequence[LoadedImage], shard: Shard = WHOLE) -> StoredBlocks:
        """Open the store of one pass; a temporary one where the cache cannot be written, or another audit uses it.

        Args:
            step: What the pass measures, of plain values for JSON.
            images: What it is measured on.
            shard: The share of the images.

        Returns:
            The blocks, with those that an earlier run has left.
        """
        encoder, layers = self._encoder, self._layers
        if encoder is not None:
            ids = hashlib.sha256("\n".join(image_ids(images)).encode()).hexdigest()
            manifest = {"kind": "audit", "version": __version__, **identify_encoder(encoder), "images": ids}
            manifest |= {**self._about, "step": dict(step)}
            key = content_key({**manifest, "shard": [shard.index, shard.count]})
            if key in self._opened:
                return self._opened[key]
            try:
                blocks = StoredBlocks.keyed(
                    "audit",
                    manifest,
                    shard,
                    size=BLOCK,
                    cache_dir=self._cache_dir,
                    restart=True,
                    about={"trial": record_trial(encoder, layers)},
                    accepts=lambda kept: is_same_network(encoder, kept.get("trial"), layers, "values"),
                )
                self._opened[key] = blocks
                return blocks
            except EncoscopeError as error:
                _log.warning("this audit cannot be resumed if it is stopped: %s", error)
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="encoscope-"))
        store = self._stack.enter_context(Store.open(Path(folder, "store"), {"kind": "audit"}))
        return StoredBlocks(store, shard, size=BLOCK)

    def measure(
        self,
        step: Mapping[str, Any],
        images: Sequence[LoadedImage],
        compute: Callable[[range], dict[str, np.ndarray]],
        label: str,
        progress: Progress = None,
    ) -> dict[str, np.ndarray]:
        """Make one pass over all images.

        Args:
            step: What the pass measures, of plain values for JSON.
            images: What it is measured on.
            compute: Gives the arrays of a block of images, by their numbers.
            label: What is counted, shown before a bar.
            progress: How progress is shown; see ``encoscope.progress.Progress``.

        Returns:
            The arrays by name, one entry an image, in the images' order.
        """
        blocks = self.open(step, images)
        store = run_blocks(blocks, images, compute, label=label, progress=progress).finalize(blocks.store, len(images))
        return {name: np.concatenate([store.read(name, number) for number in store.shards]) for name in store.names}

    def __enter__(self) -> AuditStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for blocks in self._opened.values():
            if error is None:
                blocks.store.remove()
            blocks.store.close()
        self._stack.close()


def run_blocks(
    blocks: StoredBlocks,
    images: Sequence[LoadedImage],
    compute: Callable[[range], dict[str, np.ndarray]],
    shard: Shard = WHOLE,
    *,
    label: str,
    progress: Progress = None,
) -> StoredBlocks:
    """Measure the images of a shard, block by block, but for those that are stored.

    Args:
        blocks: The shard's blocks.
        images: All images.
        compute: Gives the arrays of a block of images, by their numbers.
        shard: The share of the images.
        label: What is counted, shown before a bar.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The blocks, to ``merge`` with those of other shards and to ``finalize``.
    """
    ids = image_ids(images)

    def source(shard: Shard) -> Any:
        left = blocks.list_blocks(len(images))
        done = len(blocks.store)
        with track_steps(done + sum(map(len, left)), label, progress, initial=done, shorter="--limit N") as step:
            for block in left:
                yield block.start, [StoreRow(ids[number]) for number in block], compute(block)
                step(len(block))

    return run_pass(source, blocks, shard)


def image_ids(images: Sequence[LoadedImage]) -> list[str]:
    """List the ids of images, without reading again those that are not in memory.

    Args:
        images: A list, or an ``ImageSequence``.

    Returns:
        Their ids.
    """
    known = getattr(images, "ids", None)
    return list(known) if known is not None else [image.id for image in images]
