"""One pass over a dataset: every image once through the encoder, its values in a store that survives being killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from encoscope._version import __version__
from encoscope.defaults import BATCH_SIZE, FEATURES
from encoscope.encoder import Encoder, as_encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, MissingError, UsageError, explain_calls
from encoscope.file_kind import require_ordinary_file
from encoscope.images import ImageListing, SkippedImage, list_images
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.probe_pass import KIND, ChannelSummary, ProbePass, count_channels, run_shard
from encoscope.probing.result import Probe, check_values
from encoscope.progress import Progress
from encoscope.results import DAMAGED
from encoscope.store import Store, StoreRow
from encoscope.store.blocks import StoredBlocks
from encoscope.store.passes import Shard, run_pass

_ROWS = 4096  # at a time, of values that are there already


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
    reading = ProbePass(encoder, layer, batch_size)  # what cannot be fails before files are read
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
    options = {"cache_dir": cache_dir, "fresh": fresh, "about": about}
    blocks = run_shard(replace(reading, files=files, ids=ids), manifest, progress=progress, **options)
    with blocks.store as store:
        _finish(blocks.finalize(store, len(files)), files)
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
    expected = (len(files), count_channels(encoder, layer))
    if array.shape != expected:
        raise UsageError(
            f"values of shape {array.shape} for {expected[0]} images and {expected[1]} channels of {layer!r}"
        )
    ids = hash_files(files.paths, cache_dir=cache_dir)
    origin = "an array" if isinstance(values, np.ndarray) else Path(values).name
    content = hashlib.sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()
    manifest = _describe_store(encoder, layer, ids) | {"imported": content}
    existing = None if fresh else Store.load_keyed(KIND, manifest, cache_dir)
    if existing is not None and existing.complete:
        raise UsageError(f"a probe of these images is there already, in {existing.path}: replace it with --fresh")
    about = {"imported": f"{origin} (sha256 {content[:12]})"}
    blocks = StoredBlocks.keyed(KIND, manifest, size=_ROWS, cache_dir=cache_dir, fresh=True, about=about)
    with blocks.store as store:

        def source(shard: Shard) -> Iterator[tuple[int, list[StoreRow], dict[str, np.ndarray]]]:
            for block in blocks.list_blocks(len(files)):
                rows = [StoreRow(ids[index], str(files.paths[index]), files.labels[index]) for index in block]
                yield block.start, rows, {"values": np.asarray(array[block.start : block.stop], np.float32)}

        _finish(run_pass(source, blocks).finalize(store, len(files)), files)
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
    except DAMAGED as error:
        raise UsageError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error


def _open_finished(dataset: Any) -> Probe | None:
    if isinstance(dataset, Probe):
        return dataset
    if isinstance(dataset, str | os.PathLike) and Path(dataset, "manifest.json").is_file():
        return load(dataset)
    return None


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
