"""Embed captions into a store, shard by shard; a run that was killed goes on with the shard it was writing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoscope.errors import UsageError
from encoscope.falcon.captions.readers import clean_captions, read_captions
from encoscope.falcon.captions.store import CaptionFolder, CaptionStore
from encoscope.progress import Progress, track_steps
from encoscope.results import atomic_write
from encoscope.store import content_key, get_cache_dir
from encoscope.store.files import explain_os_errors, hash_file, save_array, sync_folder

if TYPE_CHECKING:
    from encoscope.vlm import VLM

SHARD = 16_384  # captions; what a run that is killed does again at most
_GROUP = 4096  # rows of a Parquet file that are read together


def embed_captions(
    captions: str | os.PathLike[str] | Sequence[str],
    vlm: VLM,
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    fresh: bool = False,
    shard: int = SHARD,
    progress: Progress = None,
) -> CaptionStore:
    """Embed captions and keep them; the same call again goes on after a kill, or just reads what is there.

    captions: a file (see `reading.read_captions`), or the captions themselves. Each is brought on one line; blank and
        repeated ones are left out. One caption is enough.
    column: of the file. fresh: start over. shard: captions embedded and written at a time.

    The whole input is read and checked before anything is written.

    Raises:
        UsageError: no captions, no such column.
        MissingError: no such file.
        EncoscopeError: a file that cannot be read, a folder that holds something else or was made from other captions
            or with another model, a full disk (what was written before stays and counts).
    """

    def stream() -> Iterator[str]:
        given = read_captions(Path(captions), column) if isinstance(captions, str | os.PathLike) else captions
        return clean_captions(given)

    if shard < 1:
        raise UsageError(f"a shard takes a number of captions from 1 on, not {shard}")
    path = Path(path)
    total, content = _survey(stream())
    if not total:
        where = captions if isinstance(captions, str | os.PathLike) else "the list"
        raise UsageError(f"{where} holds no captions: give at least one line of text")
    with open_folder(path, vlm, {"captions": content, "shard": shard}, fresh) as folder:
        if not folder.complete:
            shards = folder.shards
            done = sum(item["rows"] for item in shards)
            rest = islice(stream(), done, None)
            with track_steps(total, "captions", progress) as step:
                step(done)
                while texts := list(islice(rest, shard)):
                    vectors = vlm.embed_texts(texts).numpy().astype(np.float16)
                    shards.append(_write_shard(folder, len(shards), texts, vectors))
                    step(len(texts))
            finish_store(folder, normalised=True)
        return CaptionStore(path, folder.description)


def load_default_captions(vlm: VLM | None = None, *, progress: Progress = None) -> CaptionStore:
    """The zoo's captions, embedded once for a model and kept in the cache; by default for ``zoo:clip-caltech101``."""
    from encoscope.vlm import load
    from encoscope.zoo.captions import load_vocabulary

    vlm = vlm or load("zoo:clip-caltech101")
    captions = load_vocabulary()
    folder = get_cache_dir("captions", content_key({"captions": _survey(iter(captions))[1], "vlm": vlm.digest}))
    return embed_captions(captions, vlm, folder, progress=progress)


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
        EncoscopeError: a folder that holds something else, or was made from something else.
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


def _survey(captions: Iterator[str]) -> tuple[int, str]:
    """How many captions there are, and what they say, as sha256."""
    sha, count = hashlib.sha256(), 0
    for caption in captions:
        sha.update(caption.encode("utf-8", "surrogatepass") + b"\n")
        count += 1
    return count, sha.hexdigest()


def _write_shard(folder: CaptionFolder, number: int, texts: list[str], vectors: np.ndarray) -> dict[str, Any]:
    """Write a shard's two files and enter them in the journal; what it says of them."""
    import pyarrow
    from pyarrow import parquet

    embeddings, captions = f"text_emb/text_emb_{number:04d}.npy", f"metadata/metadata_{number:04d}.parquet"
    sha = hashlib.sha256(np.ascontiguousarray(vectors).data)
    sha.update("\n".join(texts).encode())
    about = {"embeddings": embeddings, "captions": captions, "column": "caption", "rows": len(texts)}
    about["hash"] = sha.hexdigest()
    with explain_os_errors(folder.path):
        checksums = {embeddings: save_array(folder.path / embeddings, vectors)}
        with atomic_write(folder.path / captions) as temporary:
            parquet.write_table(pyarrow.table({"caption": texts}), temporary, row_group_size=_GROUP)
            checksums[captions] = hash_file(temporary)
        for file in checksums:
            sync_folder((folder.path / file).parent)
    folder.append_entry({"first": number, "shards": [about], "sha256": checksums})
    return about
