"""Labels and other metadata of images from a CSV file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.file_kind import require_ordinary_file
from encoscope.images.tables import read_rows

_KEYS = ("path", "image", "file", "filename", "name")


def read_columns(file: str | os.PathLike[str], paths: Sequence[Path]) -> Mapping[str, list[str | None]]:
    """Read the columns of a CSV file for some images.

    Args:
        file: A CSV file in UTF-8 with a header. The first column, or one called path, image, file, filename or name,
            names the image of a row: by its path, the end of its path, or its name with or without suffix.
        paths: The images.

    Returns:
        For each other column its values, one for each path; None where the file has no row, or no value, for an image.

    Raises:
        MissingError: The file does not exist.
        UsageError: There is no second column, or no row names any of the images.
        EncoscopeError: The file cannot be read as CSV, or a row is longer or shorter than the header.
    """
    file = Path(file)
    require_ordinary_file(file)
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            cells = list(read_rows(opened, file))
    except FileNotFoundError:
        raise MissingError(f"no such file: {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EncoscopeError(f"cannot read {file} as CSV: {error}") from error
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
    names = [name for name in (cells[0] if cells else ()) if name]
    key = next((name for name in names if name.casefold() in _KEYS), names[0] if names else "")
    columns = [name for name in names if name != key]
    if not columns:
        raise UsageError(f"{file} needs a header and at least two columns: the image, and what is known of it")
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        table.setdefault(str(row[key]).strip(), row)
    matches = [_find_row(table, path) for path in paths]
    if not any(matches):
        example = paths[0].name if paths else ""
        raise UsageError(f"no row of {file} is about any of the images{suggest_nearest(example, table)}")
    return {name: [(row.get(name) or None) if row else None for row in matches] for name in columns}


def _find_row(table: Mapping[str, dict[str, str]], path: Path) -> dict[str, str] | None:
    """The row of an image: the longest end of its path that the table knows, else its name without suffix."""
    parts = path.as_posix().split("/")
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    return next((table[name] for name in [*names, path.stem] if name in table), None)
