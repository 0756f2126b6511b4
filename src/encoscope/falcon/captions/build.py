"""Embed captions into a store, shard by shard; a run that was killed goes on with the shard it was writing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon.captions.readers import cleaned, read_captions
from encoscope.falcon.captions.store import FORMAT, MANIFEST, CaptionStore, read_manifest
from encoscope.progress import Progress, track_steps
from encoscope.results import atomic_write
from encoscope.store import content_key, get_cache_dir
from encoscope.store.files import explain_os_errors, save_array, sync_folder
from encoscope.store.keys import first_difference
from encoscope.store.lock import Lock

if TYPE_CHECKING:
    from encoscope.vlm import VLM

SHARD = 16_384  # captions; what a run that is killed does again at most
_GROUP = 4096  # rows of a Parquet file that are read together
_FOLDERS = {"embeddings": "text_emb", "captions": "metadata"}
_LOCK = "lock"
_ASIDE = ".manifest.*.json"  # what is left of a manifest that was being written


def build(
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
        return cleaned(given)

    if shard < 1:
        raise UsageError(f"a shard takes a number of captions from 1 on, not {shard}")
    path = Path(path)
    total, content = _survey(stream())
    if not total:
        where = captions if isinstance(captions, str | os.PathLike) else "the list"
        raise UsageError(f"{where} holds no captions: give at least one line of text")
    with claimed(path, vlm, {"captions": content, "shard": shard}, fresh) as manifest:
        if manifest["complete"]:
            return CaptionStore(path, manifest)
        done = sum(item["rows"] for item in manifest["shards"])
        rest = islice(stream(), done, None)
        with track_steps(total, "captions", progress) as step:
            step(done)
            while texts := list(islice(rest, shard)):
                vectors = vlm.embed_texts(texts).numpy().astype(np.float16)
                manifest["shards"].append(_write_shard(path, len(manifest["shards"]), texts, vectors))
                write_manifest(path, manifest)
                step(len(texts))
        return finish(path, manifest)


def default_store(vlm: VLM | None = None, *, progress: Progress = None) -> CaptionStore:
    """The zoo's captions, embedded once for a model and kept in the cache; by default for ``zoo:clip-caltech101``."""
    from encoscope.vlm import load
    from encoscope.zoo.captions import vocabulary

    vlm = vlm or load("zoo:clip-caltech101")
    captions = vocabulary()
    folder = get_cache_dir("captions", content_key({"captions": _survey(iter(captions))[1], "vlm": vlm.digest}))
    return build(captions, vlm, folder, progress=progress)


@contextmanager
def claimed(path: Path, vlm: VLM, made_from: Mapping[str, Any], fresh: bool) -> Iterator[dict[str, Any]]:
    """The manifest of a store of our own to write in, new or to go on with, while nobody else writes there."""
    identity = {
        "vlm": {"source": vlm.source, "digest": vlm.digest},
        "width": vlm.width,
        "made_from": dict(made_from),
    }
    _refuse_others(path)
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = Lock(path / _LOCK)
    try:
        found = None if fresh else read_manifest(path)
        if found is not None:
            differs = _difference(found, identity)
            if differs:
                raise EncoscopeError(
                    f"{path} was made with {differs[0]} = {differs[1]}, not {differs[2]}: "
                    "start over (--fresh), or use another folder"
                )
        else:
            found = {"format": FORMAT, "complete": False, **identity}
            found |= {"normalised": True, "rows": 0, "hash": "", "shards": []}
            with explain_os_errors(path):
                write_manifest(path, found)
        _sweep(path, found)
        yield found
    finally:
        lock.release()


def finish(path: Path, manifest: dict[str, Any]) -> CaptionStore:
    """Say that all is there, and read it."""
    marks = "".join(item["hash"] for item in manifest["shards"])
    manifest["rows"] = sum(item["rows"] for item in manifest["shards"])
    manifest["hash"] = hashlib.sha256(f"{manifest['vlm']['digest']}{marks}".encode()).hexdigest()
    manifest["complete"] = True
    write_manifest(path, manifest)
    return CaptionStore(path, manifest)


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Put the manifest in place of the one before, whole or not at all."""
    with explain_os_errors(path):
        with atomic_write(path / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        sync_folder(path)


def _survey(captions: Iterator[str]) -> tuple[int, str]:
    """How many captions there are, and what they say, as sha256."""
    sha, count = hashlib.sha256(), 0
    for caption in captions:
        sha.update(caption.encode("utf-8", "surrogatepass") + b"\n")
        count += 1
    return count, sha.hexdigest()


def _write_shard(path: Path, number: int, texts: list[str], vectors: np.ndarray) -> dict[str, Any]:
    """Write a shard's two files, and what the manifest says of them."""
    import pyarrow
    from pyarrow import parquet

    files = {
        "embeddings": f"{_FOLDERS['embeddings']}/text_emb_{number:04d}.npy",
        "captions": f"{_FOLDERS['captions']}/metadata_{number:04d}.parquet",
    }
    with explain_os_errors(path):
        save_array(path / files["embeddings"], vectors)
        with atomic_write(path / files["captions"]) as temporary:
            parquet.write_table(pyarrow.table({"caption": texts}), temporary, row_group_size=_GROUP)
        for folder in _FOLDERS.values():
            sync_folder(path / folder)
    sha = hashlib.sha256(np.ascontiguousarray(vectors).data)
    sha.update("\n".join(texts).encode())
    return {**files, "column": "caption", "rows": len(texts), "hash": sha.hexdigest()}


def _difference(found: Mapping[str, Any], identity: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Where a store was made from something else. What a model is called does not matter, what it is does."""
    old, new = ({name: each.get(name) for name in identity} for each in (found, identity))
    for each in (old, new):
        each["vlm"] = {"digest": (each["vlm"] or {}).get("digest")}
    return first_difference(old, new)


def _refuse_others(path: Path) -> None:
    """A folder with anything in it but a store, or the lock of one, is not touched."""
    if path.is_dir():
        ours = read_manifest(path) is not None
        if not ours and any(item.name != _LOCK and not item.match(_ASIDE) for item in path.iterdir()):
            raise EncoscopeError(f"{path} is not empty and holds no captions: use another folder")
    elif path.exists():
        raise EncoscopeError(f"{path} is a file: captions are kept in a folder")


def _sweep(path: Path, manifest: Mapping[str, Any]) -> None:
    """Remove what the manifest does not name: shards of a killed or an earlier run, and files aside."""
    known = {item[name] for item in manifest["shards"] for name in _FOLDERS}
    with explain_os_errors(path):
        for file in [*path.glob(_ASIDE), *(file for folder in _FOLDERS.values() for file in (path / folder).glob("*"))]:
            if file.relative_to(path).as_posix() not in known and file.suffix in (".npy", ".parquet", ".json"):
                file.unlink()
