"""Rows of CSV and TSV files, each as long as the header: a comma without quotes moves what follows it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator

from encoscope.errors import EncoscopeError


def read_rows(lines: Iterable[str], file: str | os.PathLike[str], delimiter: str = ",") -> Iterator[list[str]]:
    """Read the rows of a table, the header first.

    Args:
        lines: The lines of the file, with their line breaks.
        file: Its name, for messages.
        delimiter: What separates cells.

    Yields:
        The cells of each row; blank lines are left out.

    Raises:
        EncoscopeError: A row has more or fewer cells than the header, or its quotes are not closed; the message names
            its line.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    first = 1
    try:
        for row in reader:
            line, first = first, reader.line_num + 1
            if not row:
                continue
            header = header or row
            if len(row) != len(header):
                raise EncoscopeError(_explain(file, line, row, header, delimiter))
            yield row
    except csv.Error as error:
        raise EncoscopeError(f"{file}, near line {reader.line_num}, is no table: {error}") from error


def _explain(file: str | os.PathLike[str], line: int, row: list[str], header: list[str], delimiter: str) -> str:
    name, text = ("comma", delimiter) if delimiter == "," else ("tab", "\\t")
    start = f"{os.fspath(file)}, line {line}, has {len(row)} cells where the header has {len(header)}"
    if len(row) < len(header):
        return f"{start}: write an empty cell where nothing is known, or close the quotes of an earlier line"
    shown = row[len(header) - 1] + text + row[len(header)]
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f'{start}: put a text with a {name} in double quotes, as in "{shown}"'
