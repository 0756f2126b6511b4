"""The scan for the best captions of 1,000 crops among a million, against the bare matrix product; what memory it takes.

The bare product multiplies one chunk, in memory and in float32 already, as often as the store has chunks. Memory is
what the process has for itself while the scan runs; pages of mapped files are not counted, the kernel takes them back.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import in_process, interleaved
from encoscope.falcon.captions.search import find_top_captions
from encoscope.falcon.captions.store import CaptionStore

CAPTIONS, QUERIES, WIDTH, SHARDS = 1_000_000, 1000, 512, 4
CHUNK = 8192


def run(captions: int = CAPTIONS, queries: int = QUERIES) -> list[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder), captions)
        seconds = interleaved(methods(store, queries), 3)
        megabytes = in_process("benchmarks.scan", folder, str(captions), str(queries))
    size = f"{queries:,} crops, {captions:,} captions, {WIDTH} numbers"
    rows = [
        {
            "what": f"exact top 5, {score}, {size} / bare matrix product",
            "ratio": seconds[score] / seconds["product"],
            "target": "at most 1.3" if score == "cosine" else "no target",
            "seconds": {name: seconds[name] for name in (score, "product")},
        }
        for score in ("cosine", "softmax")
    ]
    memory = {"what": f"memory of the scan, mapped files aside, GB, {size}", "ratio": megabytes / 1000}
    return [*rows, {**memory, "target": "under 1", "megabytes": {"scan": megabytes}}]


def make(folder: Path, captions: int) -> CaptionStore:
    """A store of random unit vectors; nothing here asks for their texts."""
    rng = np.random.default_rng(0)
    shards, rows = [], captions // SHARDS
    for number in range(SHARDS):
        file = folder / f"text_emb_{number}.npy"
        if not file.exists():
            values = rng.standard_normal((rows, WIDTH), dtype=np.float32)
            np.save(file, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16))
        shards.append({"embeddings": file.name, "captions": "-", "column": "caption", "rows": rows})
    manifest = {"width": WIDTH, "normalised": True, "vlm": {"source": "-", "digest": "-"}, "hash": "-"}
    return CaptionStore(folder, {**manifest, "shards": shards})


def methods(store: CaptionStore, queries: int) -> dict[str, Callable[[], Any]]:
    """The scan with both scores, and the product alone."""
    crops = torch.randn(queries, WIDTH, generator=torch.Generator().manual_seed(0))
    chunk = torch.from_numpy(np.array(store.embeddings(store.shards[0])[:CHUNK])).float()
    products = torch.empty(queries, len(chunk))

    def product() -> None:
        for _ in range(len(store) // len(chunk)):
            torch.mm(crops, chunk.T, out=products)

    return {
        "cosine": lambda: find_top_captions(crops, store, chunk=CHUNK),
        "softmax": lambda: find_top_captions(crops, store, score="softmax", chunk=CHUNK),
        "product": product,
    }


def peak(store: CaptionStore, queries: int) -> float:
    """MB that are the process's own, at most, above where it stood before (Linux only)."""
    before, highest = _own(), 0.0

    def look(done: int, total: int | None) -> None:
        nonlocal highest
        highest = max(highest, _own() - before)

    find_top_captions(torch.randn(queries, WIDTH), store, score="softmax", progress=look)
    return highest


def _own() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) / 1024


if __name__ == "__main__":
    where, captions, queries = sys.argv[1:]
    sys.stdout.write(f"{peak(make(Path(where), int(captions)), int(queries))}\n")
