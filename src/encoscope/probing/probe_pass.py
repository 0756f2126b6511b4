"""The pass of a probe: every image once through the encoder, block by block, and what its channels add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import ImageListing, read_image
from encoscope.probing.moments import Moments
from encoscope.probing.prefetch import prefetch
from encoscope.probing.topk import TopK
from encoscope.progress import Progress, track_steps
from encoscope.store import StoreRow
from encoscope.store.blocks import StoredBlocks
from encoscope.store.passes import WHOLE, Shard, run_pass

TOP = 100
"""How many images of each channel are kept in order beside the values."""

KIND = "probe"
"""The folder of the cache that probes lie in."""

BLOCK = 256
"""Files of a block, about: at most so many are computed again after a run was killed."""


@dataclass(frozen=True)
class ProbePass:
    """What a probe reads of a network on the files of a dataset.

    Attributes:
        encoder: The network.
        layer: "features", "logits", a layer's name, or NAME@cls.
        batch_size: Images in a batch.
        files: All files of the dataset.
        ids: The id of each file.

    Raises:
        UsageError: The layer is unknown, or the batch is smaller than 1.
    """

    encoder: Encoder
    layer: str
    batch_size: int
    files: ImageListing = field(default_factory=lambda: ImageListing((), ()))
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size is a number from 1 on, not {self.batch_size}")
        make_reader(self.encoder, self.layer)

    @property
    def block(self) -> int:
        """Files of a block: whole batches, so that an image is always in a batch with the same others."""
        return self.batch_size * max(1, BLOCK // self.batch_size)

    def compute_blocks(
        self, blocks: Sequence[range]
    ) -> Iterator[tuple[int, list[StoreRow], dict[str, Float[np.ndarray, "images channels"]]]]:
        """Compute the values of some blocks.

        Args:
            blocks: The numbers of the files of each block.

        Yields:
            For each block the number of its first file, its rows and, of those that could be read, the ``values``; no
            values where none could be read.

        Raises:
            EncoscopeError: Values are NaN or infinite, or a file has changed meanwhile.
        """
        compute = make_reader(self.encoder, self.layer)
        stream = prefetch(self._read_row, chain.from_iterable(blocks), 2 * self.batch_size)
        for block in blocks:
            rows: list[StoreRow] = []
            values: list[np.ndarray] = []
            pixels: list[Tensor] = []
            for number in block:
                row, image = next(stream)
                rows.append(row)
                if image is not None:
                    pixels.append(image)
                last = number + 1 == block.stop
                if pixels and (last or (number + 1 - block.start) % self.batch_size == 0):
                    values.append(_compute_values(compute, pixels, rows))
                    pixels = []
            yield block.start, rows, {"values": np.concatenate(values)} if values else {}

    def _read_row(self, number: int) -> tuple[StoreRow, Tensor | None]:
        path, label = self.files.paths[number], self.files.labels[number]
        try:
            image = read_image(path, channels=self.encoder.preprocess.image_channels)
            pixels = self.encoder.prepare(image).pixels
        except (ImageError, MissingError) as error:
            return StoreRow(self.ids[number], str(path), label, str(error)), None
        if image.id != self.ids[number]:
            raise EncoscopeError(f"{path} changed while the dataset was being read: run it again")
        return StoreRow(image.id, str(path), label), pixels


def run_shard(
    reading: ProbePass,
    manifest: Mapping[str, Any],
    shard: Shard = WHOLE,
    *,
    progress: Progress = None,
    **options: Any,
) -> StoredBlocks:
    """Compute the values of a shard of a dataset into its store, from where an earlier run was stopped.

    Args:
        reading: What is read.
        manifest: What shapes the values.
        shard: The share of the dataset; a single process has all of it.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        **options: Of the store, as for ``StoredBlocks.keyed``.

    Returns:
        The blocks, their store open to write: to ``merge`` with those of other shards and to ``finalize``.

    Raises:
        EncoscopeError: Values are NaN or infinite, a file has changed meanwhile, or the disk is full.
    """
    blocks, total = StoredBlocks.keyed(KIND, manifest, shard, size=reading.block, **options), len(reading.files)

    def source(shard: Shard) -> Iterator[tuple[int, list[StoreRow], dict[str, np.ndarray]]]:
        left = blocks.list_blocks(total)
        mine = len(blocks.store) + sum(map(len, left))
        with track_steps(mine, "probe", progress, initial=len(blocks.store)) as step:
            for block in reading.compute_blocks(left):
                yield block
                step(len(block[1]))

    try:
        return run_pass(source, blocks, shard)
    except BaseException:
        blocks.store.close()
        raise


class ChannelSummary:
    """What a probe keeps of each channel beside its values: moments, and the images at which it is largest.

    Args:
        channels: How many channels.
    """

    def __init__(self, channels: int) -> None:
        self.moments = Moments(channels)
        self.top = TopK(TOP, channels)

    def partial_fit(
        self, values: Float[np.ndarray, "images channels"], ranks: Integer[np.ndarray, " images"]
    ) -> ChannelSummary:
        """Add some images.

        Args:
            values: Of each channel on each image.
            ranks: Each image's number among all ids, sorted.

        Returns:
            Itself.
        """
        self.moments.partial_fit(values)
        self.top.partial_fit(values, ranks)
        return self

    def merge(self, other: ChannelSummary) -> ChannelSummary:
        """Add another shard's images.

        Args:
            other: Its summary.

        Returns:
            Itself.
        """
        self.moments.merge(other.moments)
        self.top.merge(other.top)
        return self

    def finalize(
        self,
    ) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"], Integer[np.ndarray, "top channels"]]:
        """Give mean, standard deviation, and the ranks of the images with the largest values, largest first."""
        return *self.moments.finalize(), self.top.finalize()[1]


def make_reader(encoder: Encoder, layer: str) -> Callable[[Tensor], Tensor]:
    """Make the function from a normalized batch to the values of a layer's channels.

    Args:
        encoder: The network.
        layer: As for ``probe``.

    Returns:
        It gives ``[batch, channels]``.

    Raises:
        UsageError: The layer is unknown.
    """
    if layer == "features":
        return encoder.features
    if layer == "logits":
        count_channels(encoder, layer)
        return encoder.logits
    name, separator, token = layer.partition("@")
    info = encoder.layer(name)
    if not separator:
        return lambda pixels: encoder.activations(pixels, info.name)[info.name].maps.mean((2, 3))
    if token != "cls" or not info.prefix:
        raise UsageError(f"layer {name!r} has no token {token!r}" + ("" if info.prefix else ": it has no class token"))

    def read_class_token(pixels: Tensor) -> Tensor:
        prefix = encoder.activations(pixels, info.name)[info.name].prefix
        if prefix is None:
            raise UsageError(f"layer {name!r} has no class token")
        return prefix[:, 0]

    return read_class_token


def count_channels(encoder: Encoder, layer: str) -> int:
    """Count the channels of what a probe reads.

    Args:
        encoder: The network.
        layer: As for ``probe``.

    Returns:
        Values of each image.

    Raises:
        UsageError: The layer is unknown, or the network has no logits.
    """
    if layer == "features":
        return encoder.width
    if layer == "logits":
        if encoder.outputs is None:
            raise UsageError(encoder.explain_missing_logits())
        return encoder.outputs
    return encoder.layer(layer.partition("@")[0]).channels


def _compute_values(compute: Callable[[Tensor], Tensor], pixels: list[Tensor], rows: list[StoreRow]) -> np.ndarray:
    shown = [row for row in rows if row.done][-len(pixels) :]
    try:
        values = compute(torch.cat(pixels)).float().cpu().numpy()
    except UsageError:
        raise
    except EncoscopeError:
        for row, image in zip(shown, pixels, strict=True):  # which of the images is it?
            try:
                compute(image)
            except EncoscopeError as error:
                raise EncoscopeError(f"{row.path}: {error}") from error
        raise
    finite = np.isfinite(values).all(1)
    if not finite.all():
        row = shown[int(finite.argmin())]
        raise EncoscopeError(f"{row.path} gives NaN or infinite values: check the weights, or use precision fp32")
    return values
