"""One pass over a dataset: every image once through the encoder, its values in a store that survives being killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from encoscope._version import __version__
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import ImageListing, SkippedImage, list_images, read_image
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.moments import Moments
from encoscope.probing.prefetch import prefetch
from encoscope.probing.result import Probe, check_values
from encoscope.probing.topk import TopK
from encoscope.progress import Progress, track_steps
from encoscope.store import Store, StoreRow, content_key, get_cache_dir
from encoscope.store.passes import Shard, run_pass

KIND = "probe"
TOP = 100
"""How many images of each channel are kept in order beside the values."""
_SHARD = 256  # files, about: what a kill costs
_ROWS = 4096


def probe(
    encoder: Encoder,
    dataset: Any,
    layer: str = "features",
    *,
    batch: int = 32,
    fresh: bool = False,
    progress: Progress = None,
    cache: str | os.PathLike[str] | None = None,
) -> Probe:
    """The values of a layer's channels on every image of a dataset, from one pass that goes on where it was stopped.

    dataset: a dataset string, a folder, a list of files; a Probe, or the folder of one's store, which is checked.
    layer: "features", the pooled representation; "logits"; a layer's name, for the spatial means of its output;
        NAME@cls, for its class token. batch: images at once. fresh: throw away what an earlier pass left.
    cache: the folder of stores; by default the user's cache. The store is keyed by content (weights, preprocessing,
        layer, images): the same question finds it again wherever the files have moved.

    Images that cannot be read are left out and listed in ``skipped``. Raises UsageError for an unknown layer and for a
    probe of another one; EncoscopeError when no image can be read, for NaN or infinite values, and for a full disk.
    """
    given = _given(dataset)
    if given is not None:
        given.check(encoder, layer)
        return given
    if batch < 1:
        raise UsageError(f"batch is a number from 1 on, not {batch}")
    reading = _reading(encoder, layer)
    files = list_images(dataset)
    ids = hash_files(files.paths, progress=progress)
    folder, manifest = _place(encoder, layer, ids, cache)
    found = None if fresh else _finished(folder, manifest)
    if found is not None:
        return _result(found, files)
    with Store.open(folder, manifest, fresh=fresh) as store:
        with track_steps(len(files), "probe", progress) as step:
            step(len(store))
            for rows, values in _pass(encoder, reading, files, ids, len(store), batch):
                store.append(rows, {} if values is None else {"values": values})
                step(len(rows))
        _finish(store, files)
    return _result(store, files)


def from_array(
    encoder: Encoder,
    dataset: Any,
    values: np.ndarray | str | os.PathLike[str],
    layer: str = "features",
    *,
    fresh: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> Probe:
    """Put values computed elsewhere where ``probe`` would have put its own, so that all that asks for them finds them.

    values: ``[files, channels]``, or a .npy file of that: a row for each file of the dataset, in its order.

    Raises UsageError for values that do not fit the dataset or the layer, and for a probe that is there already.
    """
    files = list_images(dataset)
    rows_of = values if isinstance(values, np.ndarray) else _mapped(values)
    check_values(rows_of)
    wanted = (len(files), _width(encoder, layer))
    if rows_of.shape != wanted:
        raise UsageError(
            f"values of shape {rows_of.shape} for {wanted[0]} images and {wanted[1]} channels of {layer!r}"
        )
    ids = hash_files(files.paths)
    folder, manifest = _place(encoder, layer, ids, cache)
    if not fresh and _finished(folder, manifest) is not None:
        raise UsageError(f"a probe of these images is there already, in {folder}: replace it with --fresh")
    with Store.open(folder, manifest, fresh=True) as store:
        for start in range(0, len(files), _ROWS):
            chunk = range(start, min(start + _ROWS, len(files)))
            rows = [StoreRow(ids[index], str(files.paths[index]), files.labels[index]) for index in chunk]
            store.append(rows, {"values": np.asarray(rows_of[chunk.start : chunk.stop], np.float32)})
        _finish(store, files)
    return _result(store, files)


def load(path: str | os.PathLike[str]) -> Probe:
    """A finished probe from its store's folder. MissingError when there is none, EncoscopeError when it is not done."""
    store = Store.load(path)
    if store.manifest.get("kind") != KIND:
        raise UsageError(f"{os.fspath(path)} is a store of {store.manifest.get('kind')!r}, not of a probe")
    if not store.complete:
        raise EncoscopeError(f"the probe in {os.fspath(path)} is not finished: run encoscope probe again to go on")
    rows = store.rows
    return _result(store, ImageListing(tuple(Path(row.path or "") for row in rows), tuple(row.label for row in rows)))


def _mapped(file: str | os.PathLike[str]) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"no such file: {os.fspath(file)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error


def _given(dataset: Any) -> Probe | None:
    if isinstance(dataset, Probe):
        return dataset
    if isinstance(dataset, str | os.PathLike) and Path(dataset, "manifest.json").is_file():
        return load(dataset)
    return None


def _reading(encoder: Encoder, layer: str) -> Callable[[Tensor], Tensor]:
    """What gives [batch, channels] of a normalised batch; UsageError for a layer that is not there."""
    if layer == "features":
        return encoder.features
    if layer == "logits":
        _width(encoder, layer)
        return encoder.logits
    name, mark, token = layer.partition("@")
    info = encoder.layer(name)
    if not mark:
        return lambda pixels: encoder.activations(pixels, info.name)[info.name].maps.mean((2, 3))
    if token != "cls" or not info.prefix:
        raise UsageError(f"layer {name!r} has no token {token!r}" + ("" if info.prefix else ": it has no class token"))

    def class_token(pixels: Tensor) -> Tensor:
        prefix = encoder.activations(pixels, info.name)[info.name].prefix
        assert prefix is not None  # seen in the trial run
        return prefix[:, 0]

    return class_token


def _width(encoder: Encoder, layer: str) -> int:
    if layer == "features":
        return encoder.width
    if layer == "logits":
        if encoder.outputs is None:
            raise UsageError(f"{encoder.source} has no classification head, so there are no logits: use features")
        return encoder.outputs
    return encoder.layer(layer.partition("@")[0]).channels


def _place(
    encoder: Encoder, layer: str, ids: Sequence[str], cache: str | os.PathLike[str] | None
) -> tuple[Path, dict[str, Any]]:
    """The store's folder and manifest. The encoder's digest covers its preprocessing."""
    manifest = {
        "kind": KIND,
        "version": __version__,
        "encoder": encoder.digest,
        "precision": encoder.precision,
        "layer": layer,
        "images": len(ids),
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }
    return (get_cache_dir("probe") if cache is None else Path(cache)) / content_key(manifest), manifest


def _finished(folder: Path, manifest: dict[str, Any]) -> Store | None:
    try:
        store = Store.load(folder)
    except MissingError:
        return None
    return store if store.complete and store.manifest == manifest else None


def _pass(
    encoder: Encoder,
    reading: Callable[[Tensor], Tensor],
    files: ImageListing,
    ids: Sequence[str],
    start: int,
    batch: int,
) -> Iterator[tuple[list[StoreRow], np.ndarray | None]]:
    """Rows and values of a shard after another, from file ``start`` on.

    Batches are cut by file number, so that a run that goes on makes the same ones.
    """
    size = batch * max(1, _SHARD // batch)
    rows: list[StoreRow] = []
    values: list[np.ndarray] = []
    pixels: list[Tensor] = []
    numbers = range(start, len(files))
    for number, (row, image) in zip(
        numbers, prefetch(partial(_image, encoder, files, ids), numbers, 2 * batch), strict=True
    ):
        rows.append(row)
        if image is not None:
            pixels.append(image)
        last = number + 1 == len(files)
        if pixels and (last or (number + 1 - start) % batch == 0):
            values.append(_values(reading, pixels, rows))
            pixels = []
        if last or len(rows) == size:
            yield rows, np.concatenate(values) if values else None
            rows, values = [], []


def _image(encoder: Encoder, files: ImageListing, ids: Sequence[str], number: int) -> tuple[StoreRow, Tensor | None]:
    path, label = files.paths[number], files.labels[number]
    try:
        photo = read_image(path, channels=encoder.preprocess.channels)
        pixels = encoder.prepare(photo).pixels
    except (ImageError, MissingError) as error:
        return StoreRow(ids[number], str(path), label, str(error)), None
    if photo.id != ids[number]:
        raise EncoscopeError(f"{path} changed while the dataset was being read: run it again")
    return StoreRow(photo.id, str(path), label), pixels


def _values(reading: Callable[[Tensor], Tensor], pixels: list[Tensor], rows: list[StoreRow]) -> np.ndarray:
    found = reading(torch.cat(pixels)).float().cpu().numpy()
    finite = np.isfinite(found).all(1)
    if not finite.all():
        row = [row for row in rows if row.done][-len(found) :][int(finite.argmin())]
        raise EncoscopeError(f"{row.path} gives NaN or infinite values: check the weights, or use precision fp32")
    return found


def _finish(store: Store, files: ImageListing) -> None:
    """Moments, the top of each channel, one file of values, and the index."""
    if not store.shards:
        reason = store.rows[0].status if len(store) else "there are none"
        raise EncoscopeError(f"none of {len(files)} images could be read; the first: {reason}")
    ranks = rank_ids([row.id for row in store.rows if row.done])
    firsts = np.cumsum([0, *(len(store.shard_rows(number)) for number in store.shards)])

    def source(shard: Shard) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, first in shard.select(zip(store.shards, firsts, strict=False)):
            values = store.read("values", number)
            for start in range(0, len(values), _ROWS):
                chunk = values[start : start + _ROWS]
                yield chunk, ranks[first + start : first + start + len(chunk)]

    channels = store.read("values", store.shards[0]).shape[1]
    mean, std, top = run_pass(source, ChannelSummary(channels)).finalize()
    store.compact()
    store.save_state("moments", {"mean": mean, "std": std})
    store.save_state("top", {"rows": np.argsort(ranks)[top]})
    store.finish()


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


def _result(store: Store, files: ImageListing) -> Probe:
    """What a finished store says of the files, which may have moved since."""
    moments, top = store.state("moments"), store.state("top")
    if moments is None or top is None:
        raise EncoscopeError(f"{store.path} is damaged: start over with --fresh")
    done, skipped = [], []
    for row, path, label in zip(store.rows, files.paths, files.labels, strict=True):
        if row.done:
            done.append((row.id, str(path), label))
        else:
            skipped.append(SkippedImage(str(path), row.status))
    ids, paths, labels = zip(*done, strict=True)
    return Probe(
        values=store.read("values", store.shards[0]),
        ids=ids,
        paths=paths,
        labels=labels,
        skipped=tuple(skipped),
        layer=store.manifest["layer"],
        encoder_digest=store.manifest["encoder"],
        mean=moments["mean"],
        std=moments["std"],
        path=store.path,
        _top=top["rows"],
    )
