"""The statistics of every class that ship with the zoo's encoders, so that no image is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from encoscope.cache import to_plain_json
from encoscope.computation import hash_weights
from encoscope.encoder import Encoder, record_trial
from encoscope.encoder.trial import find_difference
from encoscope.errors import MissingError, UsageError
from encoscope.results import atomic_write
from encoscope.store.files import hash_file
from encoscope.units import Unit
from encoscope.vital.references.compressed import CompressedPrototypes, load_compressed
from encoscope.vital.references.statistics import Prototype
from encoscope.zoo.registry import FOLDER


def statistics_path(name: str) -> Path:
    """Name the file with the statistics of a zoo encoder.

    Args:
        name: The encoder's name without ``zoo:``.

    Returns:
        The file's path; the file need not exist.
    """
    return FOLDER / f"{name}.prototypes.safetensors"


def load_shipped(encoder: Encoder, units: Sequence[Unit]) -> Mapping[str, Prototype]:
    """Load the statistics of some classes of a zoo encoder.

    Args:
        encoder: The encoder.
        units: The classes.

    Returns:
        The statistics by the units' texts.

    Raises:
        UsageError: For units that are no classes, for encoders that are not the zoo's, and for other weights.
        MissingError: When this installation lacks the file.
    """
    short = encoder.source.removeprefix("zoo:")
    if not encoder.source.startswith("zoo:") or "@" in short:
        raise UsageError(f"{encoder.source} has no statistics of its own: give references, a dataset of real images")
    other = next((unit for unit in units if unit.kind != "class"), None)
    if other is not None:
        raise UsageError(f"the statistics of {encoder.source} are of classes: for {other.text} give references")
    path = statistics_path(short)
    if not path.is_file():
        raise MissingError(
            f"{encoder.source} has no statistics in this installation ({path} is not there): give references, or make "
            f"it with python -m encoscope.recipes.statistics {short} CALTECH101_FOLDER"
        )
    shipped = _read(path)
    if shipped.encoder != encoder.digest and not _is_made_for(path, encoder):
        raise UsageError(
            f"the statistics of {encoder.source} are of other weights ({shipped.encoder[:12]}..., not "
            f"{encoder.digest[:12]}...): give references"
        )
    return {unit.text: shipped.prototype(class_key(unit)) for unit in units}


def write_proof(encoder: Encoder, statistics: Path, layers: Sequence[str]) -> Path:
    """Write beside a file of statistics what tells the network that they are of: by weights and outputs.

    A digest also changes where a library's next release names a module otherwise; this does not.

    Args:
        encoder: The network.
        statistics: The file.
        layers: Their layers.

    Returns:
        The file written.
    """
    proof = {
        "statistics": hash_file(statistics),
        "weights": hash_weights(encoder.module),
        "preprocess": encoder.preprocess.as_dict(),
        "trial": record_trial(encoder, layers),
    }
    file = statistics.with_suffix(".json")
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(proof) + "\n", encoding="utf-8")
    return file


def _is_made_for(path: Path, encoder: Encoder) -> bool:
    """Whether a network has the weights, preprocessing and outputs that are written beside the statistics."""
    try:
        proof = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        layers = [name for name in proof["trial"] if name not in ("features", "logits") and not name.endswith("@cls")]
        known = {"weights": hash_weights(encoder.module), "statistics": hash_file(path)}
        settings = encoder.preprocess.as_dict()
        same = all(proof[name] == value for name, value in known.items()) and all(
            to_plain_json(settings).get(name) == value for name, value in proof["preprocess"].items()
        )
        return same and find_difference(proof["trial"], encoder.trial(layers), encoder.precision) is None
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return False


def class_key(unit: Unit) -> str:
    """Name a class as files of statistics do, however the user wrote it.

    Args:
        unit: The class.

    Returns:
        Such as "class:3".
    """
    return f"class:{unit.index}"


@lru_cache(maxsize=2)
def _read(path: Path) -> CompressedPrototypes:
    return load_compressed(path)
