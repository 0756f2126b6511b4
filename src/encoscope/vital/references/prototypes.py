"""Compute a unit's statistics once, keep them under what makes them, and read them back without the images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoscope.defaults import GRADIENT_BATCH_SIZE
from encoscope.encoder import Encoder, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, MissingError
from encoscope.progress import Progress, track
from encoscope.store import JournaledFolder
from encoscope.store.passes import Shard, run_pass
from encoscope.store.tensors import open_tensors, write_tensors
from encoscope.units import Unit
from encoscope.vital.features import FeatureReader
from encoscope.vital.references.references import Reference, References
from encoscope.vital.references.statistics import ColorStatistics, Prototype, PrototypeSums

FORMAT = "encoscope.prototype/2"
_FILE = "prototype.safetensors"
_log = logging.getLogger("encoscope")


def compute_prototype(
    reader: FeatureReader,
    references: References,
    unit: Unit,
    *,
    batch_size: int = GRADIENT_BATCH_SIZE,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Prototype:
    """Compute the statistics of a unit's references, with one batch of images in memory.

    They are kept under what makes them (the encoder's digest, the layers, the references' ids and boxes, the relevance
    and, with relevance, the unit), so that nothing is computed twice. A function of the user, relevance or unit, is not
    known by its content: its statistics are not kept.

    Args:
        reader: How images are read.
        references: The references.
        unit: The unit.
        batch_size: Images at a time.
        cache: Whether the statistics are kept.
        cache_dir: The folder for them; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The statistics. Their notes name references that could not be read.

    Raises:
        MissingError: When none of the references can be read.
    """
    folder = None
    encoder, layers = reader.encoder, reader.layers
    cache = cache and unit.is_keyed and not callable(reader.relevance) and not encoder.trial(layers).random
    if cache:
        manifest = _manifest(reader, references, unit)
        what = f"statistics of {unit.text}"
        folder = JournaledFolder.keyed(
            "prototypes",
            manifest,
            cache_dir=cache_dir,
            restart=True,
            about={"trial": record_trial(encoder, layers)},
            accepts=lambda kept: is_same_network(encoder, kept.get("trial"), layers, what),
        )
        file = folder.find(_FILE)
        if file is not None:
            return replace(load_prototype(file), notes=references.notes)

    def read_batches(shard: Shard) -> Iterator[tuple[Any, ...]]:
        items = list(shard.select(references.items))
        stream = track(items, len(items), f"references of {references.unit}", progress)
        for group in _split_readable(stream, reader.encoder, batch_size):
            images = torch.cat([pixels for _, pixels in group])
            features = reader.read_references(images, unit)
            names = [item.name for item, _ in group]
            yield features.values, features.peaks, features.activation, features.shrinkage, names, images

    sums = run_pass(read_batches, PrototypeSums())
    if not sums.count:
        raise MissingError(f"none of the {len(references)} references of {unit.text} can be read")
    notes = list(references.notes)
    n_skipped = len(references) - sums.count
    if n_skipped:
        notes.append(f"{n_skipped} references could not be read")
    prototype = sums.finalize([name for name in references.names if name in sums.names], notes)
    if folder is not None and not n_skipped:
        with folder.write(_FILE) as temporary:
            save_prototype(prototype, temporary)
    return prototype


def save_prototype(prototype: Prototype, path: str | os.PathLike[str]) -> Path:
    """Write statistics as a .safetensors file.

    Args:
        prototype: The statistics.
        path: The file.

    Returns:
        The file.
    """
    tensors = {f"values/{name}": value for name, value in prototype.values.items()}
    tensors |= {f"weights/{name}": value for name, value in (prototype.channel_weights or {}).items()}
    about = {
        "format": FORMAT,
        "layers": list(prototype.values),
        "count": prototype.count,
        "references": list(prototype.references),
        "notes": list(prototype.notes),
        "activation": prototype.activation,
        "shrinkage": None if prototype.shrinkage is None else dict(prototype.shrinkage),
        "spread": None if prototype.spread is None else dict(prototype.spread),
        "colors": None if prototype.colors is None else asdict(prototype.colors),
    }
    return write_tensors(path, about, tensors)


def load_prototype(path: str | os.PathLike[str]) -> Prototype:
    """Read what ``save_prototype`` wrote.

    Args:
        path: The file.

    Returns:
        The statistics.

    Raises:
        MissingError: When there is no file.
        EncoscopeError: When it is something else, or damaged.
    """
    with open_tensors(path, FORMAT, "statistics of references") as (about, names, tensor):
        weights = {name: tensor(f"weights/{name}") for name in about["layers"] if f"weights/{name}" in names}
        return Prototype(
            values={name: tensor(f"values/{name}") for name in about["layers"]},
            count=about["count"],
            references=tuple(about["references"]),
            notes=tuple(about["notes"]),
            channel_weights=weights or None,
            activation=about["activation"],
            shrinkage=about["shrinkage"],
            spread=about["spread"],
            colors=None if about["colors"] is None else ColorStatistics.from_dict(about["colors"]),
        )


def _manifest(reader: FeatureReader, references: References, unit: Unit) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **identify_encoder(reader.encoder),
        "layers": reader.layers,
        "references": references.names,
        "unit": unit.as_key(),
        "relevance": reader.relevance,
        "scaled": reader.scaled,
        "own": reader.own,
    }


def _split_readable(
    items: Iterable[Reference], encoder: Encoder, size: int
) -> Iterator[list[tuple[Reference, Tensor]]]:
    """Some references at a time, each with its input; one that cannot be read is left out with a warning."""
    group: list[tuple[Reference, Tensor]] = []
    for item in items:
        try:
            group.append((item, item.input(encoder)))
        except EncoscopeError as error:
            _log.warning("reference skipped: %s", error)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
