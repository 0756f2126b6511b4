"""Captions with their embeddings on disk: half-precision ``.npy`` shards mapped into memory, texts in Parquet beside.

This is how LAION-400M is published (``text_emb_0.npy``, ``metadata_0.parquet``), and such a folder is used as it is.
``manifest.json`` says which model made a store, and ``journal.jsonl`` which shards belong to it: a store that another
model made is refused, because its numbers would look right and mean nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.file_kind import require_ordinary_file
from encoscope.results import DAMAGED
from encoscope.store.folder import StoreFolder

if TYPE_CHECKING:
    from encoscope.vlm import VLM


_MEAN_OF = 100_000


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


def open_folder(path: Path, vlm: VLM, made_from: Mapping[str, Any], fresh: bool) -> CaptionFolder:
    """Open a store to write in, new or to continue, while nobody else writes there.

    Args:
        path: The store's folder.
        vlm: The image-text model of its vectors. Its digest must be that of an earlier run; its name may differ.
        made_from: What the store is made from.
        fresh: Start over.

    Returns:
        The store's files; close them, or use them as a context manager.

    Raises:
        EncoscopeError: For a folder that holds something else, or was made from something else.
    """
    manifest = {"vlm": {"digest": vlm.digest}, "width": vlm.width, "made_from": dict(made_from)}
    return CaptionFolder.open(path, manifest, about={"source": vlm.source}, fresh=fresh)


def finish_store(folder: CaptionFolder, *, normalised: bool) -> None:
    """Mark a store as complete.

    Args:
        folder: The store's files.
        normalised: Whether its vectors have unit length.
    """
    hashes = "".join(item["hash"] for item in folder.shards)
    digest = hashlib.sha256(f"{folder.manifest['vlm']['digest']}{hashes}".encode()).hexdigest()
    folder.append_entry({"complete": True, "normalised": normalised, "hash": digest})


@dataclass(frozen=True)
class CaptionShard:
    """Some of a store's captions.

    Attributes:
        first: The index of the first.
        rows: How many they are.
        embeddings: The file of their vectors.
        captions: The file of their texts.
        column: Its column.
    """

    first: int
    rows: int
    embeddings: Path
    captions: Path
    column: str


class CaptionStore:
    """Captions and their vectors, read where they are. Made by ``load``, `build.embed_captions`, `laion.link_laion`.

    Its length is the number of captions.

    Args:
        path: The folder with ``manifest.json``.
        manifest: What is known about it, from ``CaptionFolder.description``.

    Attributes:
        width: The numbers of a vector.
        normalised: Whether vectors have length 1, to half precision.
        vlm_source: The source of the image-text model that made them.
        vlm_digest: Its digest.
        digest: The sha256 of what the store holds.
        shards: Its parts, in order.
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
            embeddings, captions = path / item["embeddings"], path / item["captions"]
            shards.append(CaptionShard(first, int(item["rows"]), embeddings, captions, item["column"]))
            first += int(item["rows"])
        self.shards = tuple(shards)
        self._rows = first

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CaptionStore:
        """Read a store.

        Args:
            path: Its folder.

        Returns:
            The store.

        Raises:
            MissingError: When there is none.
            EncoscopeError: When the folder holds something else, or a store that was never finished.
        """
        path = Path(path)
        try:
            folder = CaptionFolder.load(path)
        except MissingError as error:
            raise MissingError(f"{error}: make one with encoscope captions FILE --vlm VLM --store {path}") from error
        if not folder.complete:
            raise EncoscopeError(f"the captions at {path} are not all embedded: run encoscope captions again to resume")
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
        """Check that the vectors are an image-text model's own.

        Args:
            vlm: The model.

        Raises:
            EncoscopeError: When another model made them.
        """
        if vlm.digest != self.vlm_digest:
            raise EncoscopeError(
                f"the captions at {self.path} were embedded with {self.vlm_source} ({self.vlm_digest[:12]}), not with "
                f"{vlm.source} ({vlm.digest[:12]}): use that model, or embed the captions again"
            )
        if vlm.width != self.width:
            raise EncoscopeError(f"the captions at {self.path} have {self.width} numbers, {vlm.source} has {vlm.width}")

    def embeddings(self, shard: CaptionShard) -> Float[np.ndarray, "rows width"]:
        """Map a shard's vectors into memory, read-only: nothing is read before it is used.

        Args:
            shard: One of ``shards``.

        Returns:
            The vectors.

        Raises:
            MissingError: When the file is missing.
            EncoscopeError: When it is damaged.
        """
        try:
            array = np.load(shard.embeddings, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingError(f"{shard.embeddings} is missing from the captions at {self.path}") from error
        except DAMAGED as error:
            raise EncoscopeError(f"{shard.embeddings} is damaged: {' '.join(str(error).split())[:120]}") from error
        if array.shape != (shard.rows, self.width) or array.dtype not in (np.float16, np.float32):
            raise EncoscopeError(
                f"{shard.embeddings} is {array.dtype} of shape {array.shape}, not float16 of {(shard.rows, self.width)}"
            )
        return array

    @cached_property
    def mean(self) -> Float[np.ndarray, " width"]:
        """The mean vector of the captions; the cosine with it is an image's mean cosine with all of them.

        Of a store of millions every so many captions count, 100,000 in all.
        """
        step = max(1, len(self) // _MEAN_OF)
        total, count = np.zeros(self.width), 0
        for shard in self.shards:
            vectors = np.asarray(self.embeddings(shard)[::step], dtype=np.float32)
            total += vectors.sum(0, dtype=np.float64)
            count += len(vectors)
        return (total / max(1, count)).astype(np.float32)

    def texts(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Read captions; each group of rows of a file is read once.

        Args:
            indices: Their indices.

        Returns:
            The captions, in the order of the indices.

        Raises:
            UsageError: For indices that the store does not have.
        """
        requested = np.asarray(indices, dtype=np.int64)
        if requested.size and (requested.min() < 0 or requested.max() >= self._rows):
            raise UsageError(
                f"the store has captions 0 to {self._rows - 1}, not {requested.min()} to {requested.max()}"
            )
        captions: dict[int, str] = {}
        distinct = np.unique(requested)
        for shard in self.shards:
            inside = distinct[(distinct >= shard.first) & (distinct < shard.first + shard.rows)]
            if inside.size:
                texts = _texts(shard, inside - shard.first)
                captions.update(zip(inside.tolist(), texts, strict=True))
        return [captions[index] for index in requested.tolist()]

    def __iter__(self) -> Iterator[str]:
        """Read all captions, in order, a few thousand of them in memory at a time."""
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
    """Open a Parquet file.

    Args:
        file: The file.

    Returns:
        The open file, a context manager.

    Raises:
        MissingError: When there is no such file.
        EncoscopeError: When it is no Parquet file, or damaged.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    require_ordinary_file(file)
    try:
        return ParquetFile(file)
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {file}") from error
    except (OSError, ArrowException) as error:
        raise EncoscopeError(f"{file} is no Parquet file, or damaged: {' '.join(str(error).split())[:120]}") from error


def pick_column(columns: Sequence[str], column: str | None, file: Path) -> str:
    """Pick the column that holds captions.

    Args:
        columns: The columns of a file.
        column: The one that was requested; None takes the one called caption, text or title.
        file: The file, for the message.

    Returns:
        The column.

    Raises:
        UsageError: When there is none, with the columns there are.
    """
    if column is not None:
        if column not in columns:
            nearest = suggest_nearest(column, columns)
            raise UsageError(f"{file} has no column {column!r}{nearest}; it has: {', '.join(columns)}")
        return column
    by_name = {name.lower(): name for name in reversed(columns)}
    for name in ("caption", "captions", "text", "title"):
        if name in by_name:
            return by_name[name]
    raise UsageError(f"which column of {file} holds the captions? name it (--column); it has: {', '.join(columns)}")
