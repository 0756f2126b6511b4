"""Build a caption store: embed captions shard by shard, or link the shards of LAION as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from encoscope.cache import find_keyed_folder
from encoscope.defaults import DEVICE
from encoscope.errors import MissingError, UsageError, explain_calls
from encoscope.falcon.captions.laion import is_laion, link_laion
from encoscope.falcon.captions.readers import clean_captions, read_captions
from encoscope.falcon.captions.store import CaptionFolder, CaptionStore, finish_store, open_folder
from encoscope.falcon.settings import CaptionSettings
from encoscope.progress import Progress, track_steps

if TYPE_CHECKING:
    from encoscope.vlm import VLM

SHARD_SIZE = 16_384
"""Captions of a shard: a run that is killed embeds at most so many again."""

_GROUP = 4096  # rows of a Parquet file that are read together


@explain_calls
def build_captions(
    source: str | os.PathLike[str] | Sequence[str],
    vlm: VLM | str,
    store: str | os.PathLike[str],
    *,
    column: str | None = None,
    kind: Literal["text", "image"] | None = None,
    index: bool = False,
    fresh: bool = False,
    device: str = DEVICE,
    progress: Progress = None,
) -> CaptionStore:
    """Build a folder of captions with their vectors, which ``describe`` takes; or use LAION's shards as they are.

    A build that was interrupted is resumed by the same call. LAION's shards stay where they are: the folder then only
    points to them, and a few of their captions are embedded again to check that they are the model's own.

    Args:
        source: A .txt file (a caption on each line), a .csv, .tsv or .parquet file, a folder of LAION's shards, or
            the captions themselves. Blank and repeated captions are left out.
        vlm: An image-text model, or its name such as "zoo:clip-caltech101".
        store: The folder for the captions and their vectors.
        column: The column with the captions; None takes the one called caption, text or title.
        kind: Of LAION's shards: the vectors of the captions ("text"), or of their images.
        index: Build a FAISS index too, for approximate search, and measure what a search in it misses.
        fresh: Start over instead of resuming.
        device: Where a model that is named runs: "cpu", "cuda", or "auto", a GPU if there is one.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The store.

    Raises:
        UsageError: For no captions, no such column, and ``kind="image"`` without LAION's shards.
        MissingError: For a file, folder or model that is not there.
        EncoscopeError: For a file that cannot be read, a folder that holds something else, or a full disk.

    Example:
        >>> store = encoscope.build_captions("captions.txt", "zoo:clip-caltech101", "store")  # doctest: +SKIP
        >>> encoscope.describe(encoder, "features:31", probe="photos/", captions=store)  # doctest: +SKIP
    """
    settings = CaptionSettings.from_preset(column=column, kind=kind)
    folder = None
    if isinstance(source, str | os.PathLike):
        if not Path(source).exists():
            raise MissingError(f"no such file or folder: {os.fspath(source)}")
        folder = Path(source) if Path(source).is_dir() else None
    if folder is not None and not is_laion(folder):
        raise MissingError(f"{folder} holds no shards such as text_emb_0.npy: give a file, or a folder of LAION's")
    if settings.kind == "image" and folder is None:
        raise UsageError("vectors of images go with a folder of LAION's shards")
    if isinstance(vlm, str):
        from encoscope.vlm import load

        vlm = load(vlm, device=device)
    if folder is not None:
        built = link_laion(folder, vlm, store, kind=settings.kind, column=column, fresh=fresh)
    else:
        built = embed_captions(source, vlm, store, column=column, fresh=fresh, progress=progress)
    if index:
        from encoscope.falcon.captions.faiss_index import build_index

        build_index(built, progress=progress)
    return built


def embed_captions(
    captions: str | os.PathLike[str] | Sequence[str],
    vlm: VLM,
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    fresh: bool = False,
    shard_size: int = SHARD_SIZE,
    progress: Progress = None,
) -> CaptionStore:
    """Embed captions and keep them. The same call again resumes an interrupted run, or reads what is there.

    The whole input is read and checked before anything is written.

    Args:
        captions: A file (see `readers.read_captions`), or the captions themselves. Line breaks become spaces; blank and
            repeated captions are left out. One caption is enough.
        vlm: The image-text model.
        path: The store's folder.
        column: The column of the file.
        fresh: Start over.
        shard_size: Captions that are embedded and written at a time.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The store.

    Raises:
        UsageError: For no captions, and no such column.
        MissingError: For no such file.
        EncoscopeError: For a file that cannot be read, a folder that holds something else or was made from other
            captions or with another model, and a full disk (what was written before stays and counts).
    """

    def stream() -> Iterator[str]:
        texts = read_captions(Path(captions), column) if isinstance(captions, str | os.PathLike) else captions
        return clean_captions(texts)

    if shard_size < 1:
        raise UsageError(f"a shard takes a number of captions from 1 on, not {shard_size}")
    path = Path(path)
    total, content = _survey(stream())
    if not total:
        source = captions if isinstance(captions, str | os.PathLike) else "the list"
        raise UsageError(f"{source} holds no captions: give at least one line of text")
    with open_folder(path, vlm, {"captions": content, "shard": shard_size}, fresh) as folder:
        if not folder.complete:
            shards = folder.shards
            done = sum(item["rows"] for item in shards)
            rest = islice(stream(), done, None)
            with track_steps(total, "captions", progress, initial=done) as step:
                while texts := list(islice(rest, shard_size)):
                    vectors = vlm.embed_texts(texts).numpy().astype(np.float16)
                    shards.append(_write_shard(folder, len(shards), texts, vectors))
                    step(len(texts))
            finish_store(folder, normalised=True)
        return CaptionStore(path, folder.description)


def load_default_captions(
    vlm: VLM | None = None, *, cache_dir: str | os.PathLike[str] | None = None, progress: Progress = None
) -> CaptionStore:
    """Load the captions that ship with the package, embedded once for a model and kept in the cache.

    Args:
        vlm: The image-text model; None takes ``zoo:clip-caltech101``.
        cache_dir: The user's own cache folder; None is the usual one.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The store.
    """
    return match_captions(vlm, None, cache_dir=cache_dir, progress=progress)[1]


def match_captions(
    vlm: VLM | str | None,
    captions: CaptionStore | str | os.PathLike[str] | None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> tuple[VLM, CaptionStore]:
    """Load an image-text model and captions that fit each other.

    Args:
        vlm: The model or its name; None takes the one that the captions were embedded with, and for the package's own
            captions ``zoo:clip-caltech101``.
        captions: A caption store or its folder; None takes the captions that ship with the package, embedded once for a
            model and kept in the cache.
        cache_dir: The user's own cache folder; None is the usual one.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The model and the captions.

    Raises:
        MissingError: For captions or a model that are not there.
        EncoscopeError: For captions of another model.
    """
    from encoscope.vlm import load  # when it is called: a test's stand-in must not be kept by this module

    if captions is None:
        from encoscope.zoo.captions import load_vocabulary

        model = load(vlm or "zoo:clip-caltech101") if vlm is None or isinstance(vlm, str) else vlm
        texts = load_vocabulary()
        folder = find_keyed_folder("captions", {"captions": _survey(iter(texts))[1], "vlm": model.digest}, cache_dir)
        return model, embed_captions(texts, model, folder, progress=progress)
    store = captions if isinstance(captions, CaptionStore) else CaptionStore.load(captions)
    model = load(vlm or store.vlm_source) if vlm is None or isinstance(vlm, str) else vlm
    store.check(model)
    return model, store


def _survey(captions: Iterator[str]) -> tuple[int, str]:
    """The number of captions, and the sha256 of all of them."""
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
    with folder.write_together([embeddings, captions], {"first": number, "shards": [about]}) as (array, table):
        np.save(array, vectors, allow_pickle=False)
        parquet.write_table(pyarrow.table({"caption": texts}), table, row_group_size=_GROUP)
    return about
