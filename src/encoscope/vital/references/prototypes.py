"""Compute a unit's statistics once, keep them by content, and read them back without the images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import SkippedImage
from encoscope.progress import Progress, track
from encoscope.store import JournaledFolder
from encoscope.store.tensors import open_tensors, write_tensors
from encoscope.units import Unit
from encoscope.vital.features import FeatureReader
from encoscope.vital.references.references import Reference, References
from encoscope.vital.references.statistics import Prototype, PrototypeSums

FORMAT = "encoscope.prototype/1"
_FILE = "prototype.safetensors"
_log = logging.getLogger("encoscope")


def compute_prototype(
    reader: FeatureReader,
    references: References,
    unit: Unit,
    *,
    batch: int = 16,
    cache: bool = True,
    progress: Progress = None,
) -> Prototype:
    """The statistics of a unit's references, as ``reader`` reads images.

    cache: kept under what makes them - the encoder's digest, the layers, the references' ids and boxes, the relevance
    and, with relevance, the unit - so that nothing is computed twice. A relevance that is a callable has no name, and
    is not kept. Memory holds one batch of images, whatever the number of references.

    Raises MissingError when none of the references can be read.
    """
    manifest = _manifest(reader, references, unit) if cache and not callable(reader.relevance) else None
    if manifest is not None:
        try:
            return replace(
                load_prototype(JournaledFolder.keyed("prototypes", manifest).check(_FILE)), notes=references.notes
            )
        except MissingError:
            pass
        except EncoscopeError as error:
            _log.warning("%s: computing the statistics again", error)
            JournaledFolder.keyed("prototypes", manifest, fresh=True)
    sums, skipped, names = PrototypeSums(), [], []
    for group in _batches(_read(references, reader.encoder, skipped, progress), batch):
        pixels = torch.cat([pixels for _, pixels in group])
        seen = reader.reference(pixels, unit)
        sums.partial_fit(seen.values, seen.peaks, seen.activation, seen.shrinkage)
        names += [item.name for item, _ in group]
    notes = list(references.notes)
    if skipped:
        notes.append(f"{len(skipped)} references could not be read")
        for item in skipped:
            _log.warning("reference skipped: %s", item.reason)
    if not names:
        raise MissingError(f"none of the {len(references)} references of {unit.text} can be read")
    found = sums.finalize(names, notes)
    if manifest is not None and not skipped:
        with JournaledFolder.keyed("prototypes", manifest).write(_FILE) as temporary:
            save_prototype(found, temporary)
    return found


def save_prototype(prototype: Prototype, path: str | os.PathLike[str]) -> Path:
    """Write statistics as a .safetensors file."""
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
    }
    return write_tensors(path, about, tensors)


def load_prototype(path: str | os.PathLike[str]) -> Prototype:
    """Read what ``save`` wrote. MissingError when there is nothing, EncoscopeError when it is something else."""
    with open_tensors(path, FORMAT, "statistics of references") as (about, names, tensor):
        weights = {name: tensor(f"weights/{name}") for name in about["layers"] if f"weights/{name}" in names}
        return Prototype(
            {name: tensor(f"values/{name}") for name in about["layers"]},
            about["count"],
            tuple(about["references"]),
            tuple(about["notes"]),
            weights or None,
            about["activation"],
            about["shrinkage"],
        )


def _manifest(reader: FeatureReader, references: References, unit: Unit) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "encoder": reader.encoder.digest,
        "precision": reader.encoder.precision,
        "layers": reader.layers,
        "references": references.names,
        "unit": [unit.kind, unit.layer, unit.channels, unit.direction],
        "relevance": reader.relevance,
        "scaled": reader.scaled,
    }


def _read(
    references: References, encoder: Encoder, skipped: list[SkippedImage], progress: Progress
) -> Iterator[tuple[Reference, Tensor]]:
    """Each reference with its input; what cannot be read, or brought there, is put aside."""
    for item in track(references.items, len(references), f"references of {references.unit}", progress):
        try:
            yield item, item.input(encoder)
        except EncoscopeError as error:
            skipped.append(SkippedImage(item.name, str(error)))


def _batches(items: Iterator[tuple[Reference, Tensor]], size: int) -> Iterator[list[tuple[Reference, Tensor]]]:
    group: list[tuple[Reference, Tensor]] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
