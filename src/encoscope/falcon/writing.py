"""Descriptions as files: the document, crops, a contact sheet a unit, a table for many."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope import results
from encoscope.falcon.description import Description

_SIDE = 256  # pixels of a crop's longer side
_SAFE = re.compile(r"[^A-Za-z0-9.,_-]+")


def write(
    descriptions: Sequence[Description],
    folder: str | os.PathLike[str],
    *,
    summary: Mapping[str, Any] | None = None,
    pictures: bool = True,
    skipped: Sequence[Any] = (),
) -> Path:
    """Write ``result.json``; with a summary ``descriptions.parquet``; with pictures a folder of WebP crops a unit.

    A unit's folder holds its contact sheet too. Gives the folder.

    Everything is written aside and renamed, the document last: what it names is there.
    """
    folder = Path(folder)
    document = folder / "result.json"
    entries = []
    for description, name in zip(descriptions, _names(descriptions), strict=True):
        entry = description.entry()
        for example in (*entry["high"], *entry["low"]):
            if example["path"] is not None:
                example["path"] = results.relative(example["path"], document)
        if pictures:
            entry["sheet"] = _picture(folder / name / "sheet.webp", description.sheet(), document)
            for number, (example, plain) in enumerate(zip(description.high, entry["high"], strict=True)):
                plain["crop"] = _picture(folder / name / f"{number:02d}.webp", example.crop, document, _SIDE)
        entries.append(entry)
    if summary is not None:
        table(descriptions, folder / "descriptions.parquet")
    results.write(document, envelope(descriptions, entries, summary=summary, skipped=skipped))
    return folder


def envelope(
    descriptions: Sequence[Description],
    entries: Sequence[Mapping[str, Any]] | None = None,
    *,
    summary: Mapping[str, Any] | None = None,
    skipped: Sequence[Any] = (),
) -> results.Document:
    """The result document of some descriptions, which were made with one model and the same settings."""
    first = descriptions[0] if descriptions else None
    document = results.envelope(
        "description",
        [description.entry() for description in descriptions] if entries is None else entries,
        model=None if first is None else first.model,
        settings={} if first is None else first.settings,
        seed=None if first is None else first.settings.get("seed"),
        skipped=skipped,
    )
    return document if summary is None else document | {"summary": dict(summary)}


def table(descriptions: Sequence[Description], path: str | os.PathLike[str]) -> Path:
    """A Parquet file with a row a unit: its concepts with their scores, its method, clarity, AUC and interval."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {
        "unit": [item.unit for item in descriptions],
        "method": [item.method for item in descriptions],
        "concepts": [list(item.words) for item in descriptions],
        "scores": [[concept.score for concept in item.concepts] for item in descriptions],
        "phrases": [[concept.word for concept in item.phrases] for item in descriptions],
        "spurious": [[concept.word for concept in item.spurious] for item in descriptions],
        "images": [item.images for item in descriptions],
        "clarity": [item.clarity for item in descriptions],
        "interpretability": [item.interpretability for item in descriptions],
        "auc": [None if item.heldout is None else item.heldout.auc.value for item in descriptions],
        "auc_low": [None if item.heldout is None else item.heldout.auc.low for item in descriptions],
        "auc_high": [None if item.heldout is None else item.heldout.auc.high for item in descriptions],
        "note": [item.note for item in descriptions],
    }
    words, number = pyarrow.list_(pyarrow.string()), pyarrow.float64()
    kinds = [pyarrow.string()] * 2 + [words, pyarrow.list_(number), words, words, pyarrow.int64()] + [number] * 5
    schema = pyarrow.schema(list(zip(columns, [*kinds, pyarrow.string()], strict=True)))
    with results.atomic_write(path) as temporary:
        parquet.write_table(pyarrow.table(columns, schema), temporary)
    return Path(path)


def _picture(path: Path, pixels: np.ndarray, document: Path, side: int | None = None) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if side is not None:
        image.thumbnail((side, side))
    with results.atomic_write(path) as temporary:
        image.save(temporary, quality=85)
    return results.relative(path, document)


def _names(descriptions: Sequence[Description]) -> list[str]:
    """A folder name for each unit: its text made safe, numbered where two would meet."""
    found: dict[str, int] = {}
    names = []
    for description in descriptions:
        name = _SAFE.sub("-", description.unit).strip("-.")[:80] or "unit"
        count = found[name.casefold()] = found.get(name.casefold(), 0) + 1
        names.append(name if count == 1 else f"{name}-{count}")
    return names
