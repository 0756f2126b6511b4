"""Captions with their embeddings on disk: half-precision ``.npy`` shards mapped into memory, texts in Parquet beside.

This is how LAION-400M is published (``text_emb_0.npy``, ``metadata_0.parquet``), and such a folder is used as it is.
``manifest.json`` says which model made a store, and ``journal.jsonl`` which shards belong to it: a store that another
model made is refused, because its numbers would look right and mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.store.folder import StoreFolder

if TYPE_CHECKING:
    from encoscope.vlm import VLM


class CaptionFolder(StoreFolder):
    """The files of a caption store.

    A journal's entry with ``shards`` puts them in place of those from number ``first`` on; the one with ``complete``
    holds what is known when all are there: ``hash``, ``normalised``.
    """

    FORMAT = "encoscope.caption-store/2"
    CONTENT = "caption store"
    SHARDS = ("text_emb/*.npy", "metadata/*.parquet")
    FILES = ("index.faiss", "index.json")

    @property
    def shards(self) -> list[dict[str, Any]]:
        """What the journal says of each shard, in order."""
        shards: list[dict[str, Any]] = []
        for entry in self.journal.entries:
            if "shards" in entry:
                shards[entry["first"] :] = entry["shards"]
        return shards

    @property
    def description(self) -> dict[str, Any]:
        """All that ``CaptionStore`` needs to know of the store."""
        facts = {"normalised": True, "hash": ""}
        for entry in self.journal.entries:
            facts |= {name: entry[name] for name in facts if name in entry}
        model = {"source": self.about["source"], "digest": self.manifest["vlm"]["digest"]}
        return {"vlm": model, "width": self.manifest["width"], "shards": self.shards, **facts}


@dataclass(frozen=True)
class CaptionShard:
    """Some of a store's captions: index of the first, how many, the files of their vectors and of their texts."""

    first: int
    rows: int
    embeddings: Path
    captions: Path
    column: str


class CaptionStore:
    """Captions and their vectors, read where they lie. Made by ``load``, `building.build`, `laion.link`.

    path: the folder with ``manifest.json``. len: captions. width: of a vector. normalised: whether vectors have unit
    length (to half precision). vlm_source, vlm_digest: the image-text model that made them. digest: what the store
    holds, for provenance. shards: its parts, in order.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.width = int(manifest["width"])
        self.normalised = bool(manifest["normalised"])
        self.vlm_source = str(manifest["vlm"]["source"])
        self.vlm_digest = str(manifest["vlm"]["digest"])
        self.digest = str(manifest["hash"])
        shards, first = [], 0
        for item in manifest["shards"]:
            place = Path(item["embeddings"]), Path(item["captions"])
            shards.append(CaptionShard(first, int(item["rows"]), path / place[0], path / place[1], item["column"]))
            first += int(item["rows"])
        self.shards = tuple(shards)
        self._rows = first

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CaptionStore:
        """Read a store.

        Raises:
            MissingError: there is none.
            EncoscopeError: the folder holds something else, or a store that was never finished.
        """
        path = Path(path)
        try:
            folder = CaptionFolder.load(path)
        except MissingError as error:
            raise MissingError(f"{error}: make one with encoscope captions FILE --vlm VLM --store {path}") from error
        if not folder.complete:
            raise EncoscopeError(f"the captions at {path} are not all embedded: run encoscope captions again to go on")
        return cls(path, folder.description)

    def __len__(self) -> int:
        """Number of captions."""
        return self._rows

    def verify(self) -> list[Path]:
        """Read every file that was written here, and compare it with its checksum; files of a linked folder are not.

        Returns:
            The files that are damaged or missing; empty for a store in order.
        """
        return CaptionFolder.load(self.path).verify()

    def check(self, vlm: VLM) -> None:
        """Raise EncoscopeError unless the vectors are this image-text model's own."""
        if vlm.digest != self.vlm_digest:
            raise EncoscopeError(
                f"the captions at {self.path} were embedded with {self.vlm_source} ({self.vlm_digest[:12]}), not with "
                f"{vlm.source} ({vlm.digest[:12]}): use that model, or embed the captions again"
            )
        if vlm.width != self.width:
            raise EncoscopeError(f"the captions at {self.path} have {self.width} numbers, {vlm.source} has {vlm.width}")

    def embeddings(self, shard: CaptionShard) -> Float[np.ndarray, "rows width"]:
        """A shard's vectors, mapped into memory and read-only: nothing is read before it is used."""
        try:
            array = np.load(shard.embeddings, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingError(f"{shard.embeddings} is missing from the captions at {self.path}") from error
        except (OSError, ValueError) as error:
            raise EncoscopeError(f"{shard.embeddings} is damaged: {' '.join(str(error).split())[:120]}") from error
        if array.shape != (shard.rows, self.width) or array.dtype not in (np.float16, np.float32):
            raise EncoscopeError(
                f"{shard.embeddings} is {array.dtype} of shape {array.shape}, not float16 of {(shard.rows, self.width)}"
            )
        return array

    def texts(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """The captions at these indices, in the order of the indices; each group of rows is read once."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._rows):
            raise UsageError(f"the store has captions 0 to {self._rows - 1}, not {wanted.min()} to {wanted.max()}")
        found: dict[int, str] = {}
        distinct = np.unique(wanted)
        for shard in self.shards:
            inside = distinct[(distinct >= shard.first) & (distinct < shard.first + shard.rows)]
            if inside.size:
                texts = _texts(shard, inside - shard.first)
                found.update(zip(inside.tolist(), texts, strict=True))
        return [found[index] for index in wanted.tolist()]

    def __iter__(self) -> Iterator[str]:
        """All captions, in order, a few thousand of them in memory at a time."""
        for shard in self.shards:
            with open_parquet(shard.captions) as file:
                for batch in file.iter_batches(batch_size=8192, columns=[shard.column]):
                    yield from (text or "" for text in batch.column(0).to_pylist())


def _texts(shard: CaptionShard, rows: np.ndarray) -> list[str]:
    with open_parquet(shard.captions) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.searchsorted(starts, rows, side="right") - 1
        texts: list[str] = []
        for group in np.unique(groups):
            column = file.read_row_group(int(group), columns=[shard.column]).column(0)
            texts += column.take(rows[groups == group] - starts[group]).to_pylist()
    return [text or "" for text in texts]


def open_parquet(file: Path) -> Any:
    """A Parquet file, open, to be closed by ``with``; MissingError and EncoscopeError where there is none."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {file}") from error
    except (OSError, ArrowException) as error:
        raise EncoscopeError(f"{file} is no Parquet file, or damaged: {' '.join(str(error).split())[:120]}") from error


def pick_column(columns: Sequence[str], wanted: str | None, file: Path) -> str:
    """The column that holds captions: the one asked for, or one called caption, text or title.

    Raises UsageError with the columns there are.
    """
    if wanted is not None:
        if wanted not in columns:
            raise UsageError(
                f"{file} has no column {wanted!r}{suggest_nearest(wanted, columns)}; it has: {', '.join(columns)}"
            )
        return wanted
    by_name = {column.lower(): column for column in reversed(columns)}
    for name in ("caption", "captions", "text", "title"):
        if name in by_name:
            return by_name[name]
    raise UsageError(f"which column of {file} holds the captions? name it (--column); it has: {', '.join(columns)}")
