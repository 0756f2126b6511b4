"""Use captions as LAION-400M publishes them, where they are: nothing is converted and nothing is copied.

Shards are ``text_emb_N.npy`` (or ``img_emb_N.npy``) with ``metadata_N.parquet``, in one folder or in folders below it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoscope.errors import EncoscopeError, MissingError
from encoscope.falcon.captions.store import (
    CaptionShard,
    CaptionStore,
    finish_store,
    open_folder,
    open_parquet,
    pick_column,
)
from encoscope.falcon.settings import CaptionSettings
from encoscope.file_kind import require_ordinary_file
from encoscope.results import DAMAGED

if TYPE_CHECKING:
    from encoscope.vlm import VLM

_ENDS = 65_536  # bytes at both ends of a file that, with its size, stand for its content: a shard has a gigabyte
_SAMPLE = 16
_AGREE = 0.95
_UNIT = 0.01  # how far from 1 the length of a half-precision unit vector may be


def link_laion(
    folder: str | os.PathLike[str],
    vlm: VLM,
    path: str | os.PathLike[str],
    *,
    kind: str = CaptionSettings.kind,
    column: str | None = None,
    fresh: bool = False,
) -> CaptionStore:
    """Make a store of LAION's shards: a folder that points to them.

    Args:
        folder: The folder of the shards.
        vlm: The model that made the vectors. A few captions are embedded again, and vectors that differ are refused.
        path: The store's folder.
        kind: The captions' vectors, or those of the images they describe (which cannot be checked).
        column: The column of the Parquet files; None takes the one called caption, text or title.
        fresh: Start over.

    Returns:
        The store.

    Raises:
        MissingError: For no such folder, or no shards in it.
        UsageError: For no such column.
        EncoscopeError: For shards that do not fit each other, or the model, and a ``path`` that holds something else.
    """
    folder, path = Path(folder).absolute(), Path(path)
    pairs = _pairs(folder, "img_emb" if kind == "image" else "text_emb")
    shards = [_measure(*pair, vlm, column) for pair in pairs]
    made_from = {"folder": str(folder), "kind": kind}
    with open_folder(path, vlm, made_from, fresh) as files:
        normalised = _examine(CaptionStore(path, files.description | {"shards": shards}), vlm, kind)
        if not files.complete or files.shards != shards:
            files.append_entry({"first": 0, "shards": shards})
            finish_store(files, normalised=normalised)
        return CaptionStore(path, files.description)


def is_laion(folder: Path) -> bool:
    """Tell whether a folder holds shards as LAION publishes them.

    Args:
        folder: The folder.

    Returns:
        Whether it does.
    """
    return folder.is_dir() and any(next(folder.glob(pattern), None) for pattern in ("*_emb_*.npy", "*/*_emb_*.npy"))


def _pairs(folder: Path, name: str) -> list[tuple[Path, Path]]:
    """Files of vectors with their files of captions, in the order of their numbers."""
    if not folder.is_dir():
        raise MissingError(f"no such folder: {folder}")
    vectors, texts = _numbered(folder, name, ".npy"), _numbered(folder, "metadata", ".parquet")
    if not vectors:
        raise MissingError(f"{folder} holds no {name}_*.npy files")
    alone = vectors.keys() ^ texts.keys()
    if alone:
        number = min(alone)
        existing = vectors.get(number) or texts[number]
        raise MissingError(f"{existing} has no {'metadata' if number in vectors else name} file of the same number")
    return [(vectors[number], texts[number]) for number in sorted(vectors)]


def _numbered(folder: Path, name: str, suffix: str) -> dict[int, Path]:
    numbered: dict[int, Path] = {}
    for file in sorted([*folder.glob(f"{name}_*{suffix}"), *folder.glob(f"*/{name}_*{suffix}")]):
        number = re.fullmatch(rf"{name}_(\d+)", file.stem)
        if number:
            other = numbered.setdefault(int(number[1]), file)
            if other != file:
                raise EncoscopeError(f"{other} and {file} have the same number: keep one of them")
    return numbered


def _measure(vectors: Path, texts: Path, vlm: VLM, column: str | None) -> dict[str, Any]:
    """What a manifest says of a shard, from the two files' headers and ends."""
    require_ordinary_file(vectors)
    try:
        array = np.load(vectors, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise EncoscopeError(f"{vectors} is no array of numbers: {' '.join(str(error).split())[:120]}") from error
    if array.ndim != 2 or array.shape[1] != vlm.width or array.dtype not in (np.float16, np.float32):
        raise EncoscopeError(
            f"{vectors} is {array.dtype} of shape {array.shape}, but {vlm.source} makes vectors of {vlm.width} numbers"
        )
    with open_parquet(texts) as table:
        rows, name = table.metadata.num_rows, pick_column(table.schema_arrow.names, column, texts)
    if rows != len(array):
        raise EncoscopeError(f"{vectors} has {len(array)} rows, {texts} has {rows}: they are not of the same shard")
    return {
        "embeddings": str(vectors),
        "captions": str(texts),
        "column": name,
        "rows": rows,
        "hash": _hash_ends(vectors) + _hash_ends(texts),
    }


def _hash_ends(file: Path) -> str:
    """sha256 over a file's size and its two ends."""
    require_ordinary_file(file)
    size = file.stat().st_size
    sha = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        sha.update(stream.read(_ENDS))
        stream.seek(max(0, size - _ENDS))
        sha.update(stream.read(_ENDS))
    return sha.hexdigest()


def _examine(store: CaptionStore, vlm: VLM, kind: str) -> bool:
    """Whether the vectors have unit length; EncoscopeError unless some of the captions are embedded to the same."""
    first: CaptionShard = store.shards[0]
    rows = np.unique(np.linspace(0, first.rows - 1, _SAMPLE).astype(np.int64))
    vectors = store.embeddings(first)[rows].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise EncoscopeError(f"{first.embeddings} holds vectors of no length, or no numbers")
    if kind == "text":
        again = vlm.embed_texts(store.texts(rows)).numpy().astype(np.float64)
        cosine = float(np.median((again * vectors).sum(1) / lengths))
        if cosine < _AGREE:
            raise EncoscopeError(
                f"{first.embeddings} was not made with {vlm.source}: captions embedded again are {cosine:.2f} like "
                "what is there (cosine), not 1; name the model that made it"
            )
    return bool(np.abs(lengths - 1).max() < _UNIT)
