"""Captions from files: a line each in text files, a column of CSV, TSV and Parquet files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.falcon.captions.store import open_parquet, pick_column
from encoscope.file_kind import require_ordinary_file
from encoscope.images import read_rows

if TYPE_CHECKING:
    import pyarrow

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_TEXT = ("", ".txt", ".text", ".list")
_SPACE = re.compile(r"[\s\0\ufeff\u200b]+")  # with what editors and web pages leave behind


def read_captions(file: Path, column: str | None = None) -> Iterator[str]:
    """Read the captions of a file as they stand in it, blank ones too.

    Args:
        file: ``.csv`` and ``.tsv`` with a header, ``.parquet``, or text in UTF-8 with a caption on each line.
        column: The column; None takes the one called caption, text or title.

    Returns:
        An iterator over the captions.

    Raises:
        MissingError: For no such file.
        UsageError: For no such column, or a kind of file that is not known.
        EncoscopeError: For text that is not UTF-8 (with the line), or a damaged file.
    """
    suffix = file.suffix.lower()
    if suffix in _PARQUET:
        return _from_parquet(file, column)
    if suffix in _DELIMITERS:
        return _from_table(file, column, _DELIMITERS[suffix])
    if suffix not in _TEXT:
        raise UsageError(f"{file}: captions are read from .txt, .csv, .tsv and .parquet files, not from {suffix}")
    if column is not None:
        raise UsageError(f"{file} is text, a caption on each line: it has no column {column!r}")
    return _lines(file)


def clean_captions(captions: Iterable[str]) -> Iterator[str]:
    """Bring captions on one line each, and leave out blank and repeated ones.

    Args:
        captions: The captions.

    Yields:
        Each caption once, with line breaks and runs of spaces as one space.

    Example:
        >>> list(clean_captions(["a  red\\ncar", "", "a red car"]))
        ['a red car']
    """
    seen: set[bytes] = set()  # digests: a million captions take a tenth of a gigabyte less than their texts
    for caption in captions:
        text = _SPACE.sub(" ", caption).strip()
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if text and digest not in seen:
            seen.add(digest)
            yield text


def _lines(file: Path) -> Iterator[str]:
    require_ordinary_file(file)
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise EncoscopeError(
                        f"{file} is not UTF-8: line {number} holds the byte 0x{line[error.start]:02x}; "
                        "save it as UTF-8 (iconv -t UTF-8 does that)"
                    ) from error
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {file}") from error
    except OSError as error:
        raise EncoscopeError(f"cannot read {file}: {error.strerror or error}") from error


def _from_table(file: Path, column: str | None, delimiter: str) -> Iterator[str]:
    rows = read_rows(_lines(file), file, delimiter)
    header = next(rows, None)
    if header is None:
        return
    index = header.index(pick_column(header, column, file))
    for row in rows:
        yield row[index]


def _from_parquet(file: Path, column: str | None) -> Iterator[str]:
    from pyarrow import ArrowException, types

    with open_parquet(file) as table:
        schema: pyarrow.Schema = table.schema_arrow
        name = pick_column(schema.names, column, file)
        kind = schema.field(name).type
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise UsageError(f"column {name!r} of {file} holds {kind}, not text")
        try:
            for batch in table.iter_batches(batch_size=8192, columns=[name]):
                yield from (text or "" for text in batch.column(0).to_pylist())
        except (OSError, ArrowException) as error:
            raise EncoscopeError(f"{file} is damaged: {' '.join(str(error).split())[:120]}") from error
        except UnicodeDecodeError as error:
            raise EncoscopeError(
                f"{file} is not UTF-8: a caption holds {error.object[error.start : error.end]!r}"
            ) from error
