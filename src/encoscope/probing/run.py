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
from torch import Tensor, nn

from encoscope._version import __version__
from encoscope.defaults import BATCH_SIZE, FEATURES
from encoscope.encoder import Encoder, as_encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError, explain_calls
from encoscope.file_kind import require_ordinary_file
from encoscope.images import ImageListing, SkippedImage, list_images, read_image
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.moments import Moments
from encoscope.probing.prefetch import prefetch
from encoscope.probing.result import Probe, check_values
from encoscope.probing.topk import TopK
from encoscope.progress import Progress, track_steps
from encoscope.store import Store, StoreRow
from encoscope.store.passes import Shard, run_pass

KIND = "probe"
TOP = 100
"""How many images of each channel are kept in order beside the values."""
_SHARD = 256  # files, about: at most so many are computed again after a run was killed
_ROWS = 4096


@explain_calls
def probe(
    encoder: Encoder | nn.Module | str,
    dataset: Any,
    layer: str = FEATURES,
    *,
    features: np.ndarray | str | os.PathLike[str] | None = None,
    batch_size: int = BATCH_SIZE,
    fresh: bool = False,
    progress: Progress = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Probe:
    """Compute the values of a layer's channels on every image of a dataset, in one pass that can be resumed.

    The values are kept in the cache under the content of weights, preprocessing, layer and images. So the same call
    finds them again, even if the files have moved.

    Args:
        encoder: The network: an encoder, a module or a source string.
        dataset: A dataset string, a folder or a list of files (see ``list_images``); or a Probe, or the folder of its
            store, which is checked and returned.
        layer: "features", the pooled representation; "logits"; a layer's name, for the spatial means of its output; or
            NAME@cls, for its class token.
        features: ``[images, channels]``, or a .npy file of this: values that were computed elsewhere, a row for each
            image of the dataset, which are kept in place of the network's (see ``from_array``).
        batch_size: Images in a batch, at least 1.
        fresh: Whether to delete what an earlier pass has stored.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        cache_dir: Folder of the cache; the user's cache if left out.

    Returns:
        The probe. Images that cannot be read are left out and listed in its ``skipped``.

    Raises:
        UsageError: The layer is unknown, the probe is of another layer or network, or ``features`` do not fit.
        MissingError: The dataset does not exist.
        EncoscopeError: No image can be read, values are NaN or infinite, or the disk is full.

    Example:
        ::

            probe = encoscope.probe(encoder, "caltech101:data#train", "features")
            probe.values[0]  # one value for each feature
    """
    encoder = as_encoder(encoder)
    if features is not None:
        return from_array(encoder, dataset, features, layer, fresh=fresh, cache_dir=cache_dir)
    finished = _open_finished(dataset)
    if finished is not None:
        finished.check(encoder, layer)
        return finished
    if batch_size < 1:
        raise UsageError(f"batch_size is a number from 1 on, not {batch_size}")
    compute = _make_reader(encoder, layer)
    files = list_images(dataset)
    layers, cache_dir = _name_layers(layer), choose_cache_dir(encoder, cache_dir)
    ids = hash_files(files.paths, cache_dir=cache_dir, progress=progress)
    manifest = _describe_store(encoder, layer, ids)
    existing = None if fresh else Store.load_keyed(KIND, manifest, cache_dir)
    if existing is not None and not is_same_network(encoder, existing.about.get("trial"), layers, "values"):
        existing, fresh = None, True
    if existing is not None and existing.complete:
        return _make_result(existing, files)
    about = {"trial": record_trial(encoder, layers)}
    with Store.keyed(KIND, manifest, cache_dir=cache_dir, fresh=fresh, about=about) as store:
        with track_steps(len(files), "probe", progress, initial=len(store)) as step:
            for rows, values in _pass(encoder, compute, files, ids, len(store), batch_size):
                store.append(rows, {} if values is None else {"values": values})
                step(len(rows))
        _finish(store, files)
    return _make_result(store, files)


def from_array(
    encoder: Encoder | nn.Module | str,
    dataset: Any,
    values: np.ndarray | str | os.PathLike[str],
    layer: str = FEATURES,
    *,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Probe:
    """Store values that were computed elsewhere as a probe of their own, apart from the network's.

    A later call of ``probe`` computes the network's values all the same: whoever wants these gives this probe, or the
    folder of its store, in place of the dataset. Results that use it name where the values are from.

    Args:
        encoder: The network that the values belong to: an encoder, a module or a source string.
        dataset: As for ``probe``.
        values: ``[files, channels]``, or a .npy file of this: a row for each file of the dataset, in its order.
        layer: What the channels are, as for ``probe``.
        fresh: Whether to replace a probe that exists.
        cache_dir: As for ``probe``.

    Returns:
        The probe.

    Raises:
        UsageError: The values do not fit the dataset or the layer, or a probe exists already.
        MissingError: The file of values or the dataset does not exist.
    """
    encoder = as_encoder(encoder)
    files = list_images(dataset)
    array = values if isinstance(values, np.ndarray) else _map_array(values)
    check_values(array)
    expected = (len(files), _width(encoder, layer))
    if array.shape != expected:
        raise UsageError(
            f"values of shape {array.shape} for {expected[0]} images and {expected[1]} channels of {layer!r}"
        )
    ids = hash_files(files.paths, cache_dir=cache_dir)
    source = "an array" if isinstance(values, np.ndarray) else Path(values).name
    content = hashlib.sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()
    manifest = _describe_store(encoder, layer, ids) | {"imported": content}
    existing = None if fresh else Store.load_keyed(KIND, manifest, cache_dir)
    if existing is not None and existing.complete:
        raise UsageError(f"a probe of these images is there already, in {existing.path}: replace it with --fresh")
    about = {"imported": f"{source} (sha256 {content[:12]})"}
    with Store.keyed(KIND, manifest, cache_dir=cache_dir, fresh=True, about=about) as store:
        for start in range(0, len(files), _ROWS):
            chunk = range(start, min(start + _ROWS, len(files)))
            rows = [StoreRow(ids[index], str(files.paths[index]), files.labels[index]) for index in chunk]
            store.append(rows, {"values": np.asarray(array[chunk.start : chunk.stop], np.float32)})
        _finish(store, files)
    return _make_result(store, files)


def load(path: str | os.PathLike[str]) -> Probe:
    """Load a finished probe from the folder of its store.

    Args:
        path: The folder, as a probe's ``path`` has it.

    Returns:
        The probe.

    Raises:
        MissingError: There is no store.
        UsageError: It is the store of something else.
        EncoscopeError: The probe is not finished.
    """
    store = Store.load(path)
    if store.manifest.get("kind") != KIND:
        raise UsageError(f"{os.fspath(path)} is a store of {store.manifest.get('kind')!r}, not of a probe")
    if not store.complete:
        raise EncoscopeError(f"the probe in {os.fspath(path)} is not finished: run encoscope probe again to resume it")
    rows = store.rows
    return _make_result(
        store, ImageListing(tuple(Path(row.path or "") for row in rows), tuple(row.label for row in rows))
    )


def _map_array(file: str | os.PathLike[str]) -> np.ndarray:
    require_ordinary_file(file)
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"no such file: {os.fspath(file)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error


def _open_finished(dataset: Any) -> Probe | None:
    if isinstance(dataset, Probe):
        return dataset
    if isinstance(dataset, str | os.PathLike) and Path(dataset, "manifest.json").is_file():
        return load(dataset)
    return None


def _make_reader(encoder: Encoder, layer: str) -> Callable[[Tensor], Tensor]:
    """A function from a normalized batch to [batch, channels]; UsageError for a layer that does not exist."""
    if layer == "features":
        return encoder.features
    if layer == "logits":
        _width(encoder, layer)
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


def _width(encoder: Encoder, layer: str) -> int:
    if layer == "features":
        return encoder.width
    if layer == "logits":
        if encoder.outputs is None:
            raise UsageError(encoder.explain_missing_logits())
        return encoder.outputs
    return encoder.layer(layer.partition("@")[0]).channels


def _describe_store(encoder: Encoder, layer: str, ids: Sequence[str]) -> dict[str, Any]:
    """The store's manifest. The encoder's digest covers its preprocessing."""
    return {
        "kind": KIND,
        "version": __version__,
        **identify_encoder(encoder),
        "layer": layer,
        "images": len(ids),
        "ids": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
    }


def _name_layers(layer: str) -> tuple[str, ...]:
    return () if layer in ("features", "logits") else (layer.partition("@")[0],)


def _pass(
    encoder: Encoder,
    compute: Callable[[Tensor], Tensor],
    files: ImageListing,
    ids: Sequence[str],
    start: int,
    batch_size: int,
) -> Iterator[tuple[list[StoreRow], np.ndarray | None]]:
    """Rows and values of one shard after another, from file ``start`` on.

    Batches are cut by file number, so that a resumed run has the same batches.
    """
    size = batch_size * max(1, _SHARD // batch_size)
    rows: list[StoreRow] = []
    values: list[np.ndarray] = []
    pixels: list[Tensor] = []
    numbers = range(start, len(files))
    for number, (row, image) in zip(
        numbers, prefetch(partial(_read_row, encoder, files, ids), numbers, 2 * batch_size), strict=True
    ):
        rows.append(row)
        if image is not None:
            pixels.append(image)
        last = number + 1 == len(files)
        if pixels and (last or (number + 1 - start) % batch_size == 0):
            values.append(_compute_values(compute, pixels, rows))
            pixels = []
        if last or len(rows) == size:
            yield rows, np.concatenate(values) if values else None
            rows, values = [], []


def _read_row(encoder: Encoder, files: ImageListing, ids: Sequence[str], number: int) -> tuple[StoreRow, Tensor | None]:
    path, label = files.paths[number], files.labels[number]
    try:
        image = read_image(path, channels=encoder.preprocess.image_channels)
        pixels = encoder.prepare(image).pixels
    except (ImageError, MissingError) as error:
        return StoreRow(ids[number], str(path), label, str(error)), None
    if image.id != ids[number]:
        raise EncoscopeError(f"{path} changed while the dataset was being read: run it again")
    return StoreRow(image.id, str(path), label), pixels


def _compute_values(compute: Callable[[Tensor], Tensor], pixels: list[Tensor], rows: list[StoreRow]) -> np.ndarray:
    values = compute(torch.cat(pixels)).float().cpu().numpy()
    finite = np.isfinite(values).all(1)
    if not finite.all():
        row = [row for row in rows if row.done][-len(values) :][int(finite.argmin())]
        raise EncoscopeError(f"{row.path} gives NaN or infinite values: check the weights, or use precision fp32")
    return values


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


def _make_result(store: Store, files: ImageListing) -> Probe:
    """The probe of a finished store; the files may have moved since."""
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
        imported=str(store.about.get("imported", "")),
        trial=store.about.get("trial"),
        _top=top["rows"],
    )
