"""Labels and other metadata of images: from folders, datasets, or a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoscope.errors import EncoscopeError, MissingError, UsageError, nearest
from encoscope.images import is_dataset, open_dataset

_KEYS = ("path", "image", "file", "filename", "name")


def dataset_labels(images: str | os.PathLike[str], paths: Sequence[Path]) -> list[str | None] | None:
    """The class that a dataset, or a folder of class folders, gives each of some of its images; None without labels."""
    if not (is_dataset(images) or Path(images).is_dir()):
        return None
    found = open_dataset(images)
    if not found.labels:
        return None
    classes = (found.classes[label] for label in found.labels)
    table = {os.path.abspath(path): name for path, name in zip(found.paths, classes, strict=True)}  # noqa: PTH100 - as collect
    return [table.get(os.path.abspath(path)) for path in paths]  # noqa: PTH100


def read_columns(file: str | os.PathLike[str], paths: Sequence[Path]) -> Mapping[str, list[str | None]]:
    """The columns of a CSV file for some images: a value, or None, for each path.

    The first column, or one called path, image, file, filename or name, says which image a row is about: by its path,
    the end of its path, or its name with or without suffix. Raises MissingError for no such file, UsageError when no
    other column is there or no row is about any of the images, EncoscopeError for what is no CSV.
    """
    file = Path(file)
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except FileNotFoundError:
        raise MissingError(f"no such file: {file}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EncoscopeError(f"cannot read {file} as CSV: {error}") from error
    names = [name for name in (rows[0] if rows else {}) if name]
    key = next((name for name in names if name.casefold() in _KEYS), names[0] if names else "")
    columns = [name for name in names if name != key]
    if not columns:
        raise UsageError(f"{file} needs a header and at least two columns: the image, and what is known of it")
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        table.setdefault(str(row[key]).strip(), row)
    found = [_row(table, path) for path in paths]
    if not any(found):
        some = paths[0].name if paths else ""
        raise UsageError(f"no row of {file} is about any of the images{nearest(some, table)}")
    return {name: [(row.get(name) or None) if row else None for row in found] for name in columns}


def _row(table: Mapping[str, dict[str, str]], path: Path) -> dict[str, str] | None:
    """The row of an image: the longest end of its path that the table knows, else its name without suffix."""
    parts = path.as_posix().split("/")
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    return next((table[name] for name in [*names, path.stem] if name in table), None)
