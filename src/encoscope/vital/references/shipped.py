"""The statistics of every class that ship with the zoo's encoders, so that no image is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from encoscope.cache import to_plain_json
from encoscope.computation import hash_weights
from encoscope.counting import count_noun
from encoscope.encoder import Encoder, record_trial
from encoscope.encoder.trial import find_difference
from encoscope.errors import MissingError, UsageError
from encoscope.results import atomic_write
from encoscope.store.files import hash_file
from encoscope.units import Unit
from encoscope.vital.references.compressed import CompressedPrototypes, load_compressed
from encoscope.vital.references.statistics import Prototype
from encoscope.zoo.registry import FOLDER

_SHOWN = 40  # classes that a message names


def statistics_path(name: str) -> Path:
    """Name the file with the statistics of a zoo encoder.

    Args:
        name: The encoder's name without ``zoo:``.

    Returns:
        The file's path; the file need not exist.
    """
    return FOLDER / f"{name}.prototypes.safetensors"


def load_shipped(encoder: Encoder, units: Sequence[Unit]) -> Mapping[str, Prototype]:
    """Load the statistics of some classes that ship with a zoo encoder.

    Args:
        encoder: The encoder.
        units: The classes.

    Returns:
        The statistics by the units' texts.

    Raises:
        UsageError: For units that are no classes, for encoders that are not the zoo's, for other weights, and for
            classes that the file does not have.
        MissingError: When this installation lacks the file.
    """
    short = encoder.source.removeprefix("zoo:")
    if not encoder.source.startswith("zoo:") or "@" in short:
        raise UsageError(f"{encoder.source} has no statistics of its own: give references, a dataset of real images")
    path = statistics_path(short)
    if not path.is_file():
        raise MissingError(
            f"{encoder.source} has no statistics in this installation ({path} is not there): give references, or make "
            f"it with python -m encoscope.recipes.statistics {short} --data CALTECH101_FOLDER"
        )
    return load_statistics(encoder, units, path, f"the statistics that {encoder.source} ships with")


def load_statistics(
    encoder: Encoder, units: Sequence[Unit], path: Path, name: str | None = None
) -> Mapping[str, Prototype]:
    """Load the statistics of some classes from a file that ``encoscope.recipes.statistics`` has made.

    Args:
        encoder: The encoder.
        units: The classes.
        path: The file.
        name: What messages call the file.

    Returns:
        The statistics by the units' texts.

    Raises:
        UsageError: For units that are no classes, for statistics of other weights, and for classes that the file does
            not have.
        MissingError: When there is no file.
        EncoscopeError: When it is something else, or damaged.
    """
    name = name or f"the statistics in {path}"
    other = next((unit for unit in units if not unit.is_class), None)
    if other is not None:
        raise UsageError(f"{name} are of classes: for {other.text} give references, a dataset of real images")
    statistics = _read(path, path.stat().st_mtime_ns if path.is_file() else 0)
    if statistics.encoder != encoder.digest and not _is_made_for(path, encoder):
        raise UsageError(
            f"{name} are of other weights ({statistics.encoder[:12]}..., not {encoder.digest[:12]}...): give references"
        )
    absent = next((unit for unit in units if class_key(unit) not in statistics.names), None)
    if absent is not None:
        known = f"{count_noun(len(statistics.names), 'class', 'classes')} ({_list_classes(statistics, encoder)})"
        raise UsageError(f"{name} are of {known}, not of {absent.text}: give references, real images of the class")
    return {unit.text: statistics.prototype(class_key(unit)) for unit in units}


def _list_classes(statistics: CompressedPrototypes, encoder: Encoder) -> str:
    """The names of some of the classes that statistics are of."""
    indices = [int(name.removeprefix("class:")) for name in statistics.names]
    names = [encoder.classes[index] if encoder.classes else str(index) for index in indices[:_SHOWN]]
    return ", ".join(names) + (", ..." if len(indices) > _SHOWN else "")


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
def _read(path: Path, modified: int) -> CompressedPrototypes:
    return load_compressed(path)
