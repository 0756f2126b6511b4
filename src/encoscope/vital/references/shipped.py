"""The statistics of every class that ship with the zoo's encoders, so that no image is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
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
    if shipped.encoder != encoder.digest:
        raise UsageError(
            f"the statistics of {encoder.source} are of other weights ({shipped.encoder[:12]}..., not "
            f"{encoder.digest[:12]}...): give references"
        )
    return {unit.text: shipped.prototype(class_key(unit)) for unit in units}


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
