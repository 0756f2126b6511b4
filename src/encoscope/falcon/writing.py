"""Descriptions as files: the document, crops and a contact sheet for each unit, a table for many."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from encoscope import results

_SIDE = 256  # pixels of a crop's longer side
_SAFE = re.compile(r"[^A-Za-z0-9.,_-]+")
_TEXT, _NUMBER, _COUNT = "text", "number", "count"
_COLUMNS = {
    "unit": _TEXT,
    "method": _TEXT,
    "concepts": [_TEXT],
    "scores": [_NUMBER],
    "phrases": [_TEXT],
    "spurious": [_TEXT],
    "images": _COUNT,
    "clarity": _NUMBER,
    "interpretability": _NUMBER,
    "auc": _NUMBER,
    "auc_low": _NUMBER,
    "auc_high": _NUMBER,
    "note": _TEXT,
}
"""The columns of the table, with what they hold; lists hold several of it."""


@dataclass(frozen=True, eq=False)
class UnitFiles:
    """What is written of one unit.

    Attributes:
        entry: Its entry in the document, with paths as they are.
        sheet: Its contact sheet; None writes no images.
        crops: The crops of its "high" images.
    """

    entry: dict[str, Any]
    sheet: UInt8[np.ndarray, "height width 3"] | None = None
    crops: Sequence[UInt8[np.ndarray, "_ _ 3"]] = ()


def write_units(
    folder: str | os.PathLike[str],
    units: Iterable[UnitFiles],
    *,
    about: Mapping[str, Any],
    summary: Mapping[str, Any] | None = None,
    further: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``result.json``, the images of each unit in a folder of its own, and for many units a table.

    Every file is written whole or not at all, the document last: all that it names exists then.

    Args:
        folder: The folder; it is made if it is not there.
        units: What is written of each unit, one at a time.
        about: The arguments of ``results.envelope`` but the entries: model, settings, seed, skipped.
        summary: What many descriptions come to together; with it ``descriptions.parquet`` is written too.
        further: More keys of the document.

    Returns:
        The folder.

    Raises:
        EncoscopeError: For a full disk and the like.
    """
    folder = Path(folder)
    document = folder / "result.json"
    entries: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for files in units:
        entry = files.entry
        name = _name_folder(entry["unit"], counts)
        for example in (*entry.get("high", ()), *entry.get("low", ())):
            if example["path"] is not None:
                example["path"] = results.relative(example["path"], document)
        if files.sheet is not None:
            entry["sheet"] = _write_image(folder / name / "sheet.webp", files.sheet, document)
            for number, (crop, example) in enumerate(zip(files.crops, entry["high"], strict=True)):
                example["crop"] = _write_image(folder / name / f"{number:02d}.webp", crop, document, _SIDE)
        entries.append(entry)
    if summary is not None:
        _write_table(entries, folder / "descriptions.parquet")
    envelope = results.envelope("description", entries, **about)
    envelope |= {} if summary is None else {"summary": dict(summary)}
    results.write(document, envelope | dict(further or {}))
    return folder


def _write_table(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A Parquet file with a row for each unit."""
    import pyarrow
    from pyarrow import parquet

    types = {_TEXT: pyarrow.string(), _NUMBER: pyarrow.float64(), _COUNT: pyarrow.int64()}
    schema = pyarrow.schema(
        (name, pyarrow.list_(types[kind[0]]) if isinstance(kind, list) else types[kind])
        for name, kind in _COLUMNS.items()
    )
    rows = [_make_row(entry) for entry in entries]
    columns = {name: [row[name] for row in rows] for name in _COLUMNS}
    with results.atomic_write(path) as temporary:
        parquet.write_table(pyarrow.table(columns, schema), temporary)


def _make_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    heldout = entry["heldout"]
    low, high = (None, None) if heldout is None else heldout["interval"]
    plain = {name: entry[name] for name in ("unit", "method", "images", "clarity", "interpretability", "note")}
    words = {name: [concept["word"] for concept in entry[name]] for name in ("concepts", "phrases", "spurious")}
    scores = [concept["score"] for concept in entry["concepts"]]
    auc = None if heldout is None else heldout["auc"]
    return plain | words | {"scores": scores, "auc": auc, "auc_low": low, "auc_high": high}


def _write_image(path: Path, pixels: np.ndarray, document: Path, side: int | None = None) -> str:
    """Write an image, and give its name in the document."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if side is not None:
        image.thumbnail((side, side))
    with results.atomic_write(path) as temporary:
        image.save(temporary, quality=85)
    return results.relative(path, document)


def _name_folder(unit: str, counts: dict[str, int]) -> str:
    """A unit's text made safe for a file system, with a number where an earlier unit has the same name."""
    name = _SAFE.sub("-", unit).strip("-.")[:80] or "unit"
    count = counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
    return name if count == 1 else f"{name}-{count}"
