"""Probing a dataset against a bare loop over the same files: decode, prepare, forward; and memory that does not grow.

resnet10t at 128 px on photos of 300 x 225, a usual size, so that a few hundred of them take seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import encoscope
from benchmarks.measure import in_process, interleaved, make_images, report_peak
from encoscope.images import read_images
from encoscope.probing import probe

BATCH = 32


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, "cache"))
        files = make_images(Path(folder, "photos"), 2400, (225, 300))
        counts = (600, 2400)  # with fewer the allocator has not reached its plateau
        megabytes = {str(n): in_process("benchmarks.probing", str(files[0].parent), str(n)) for n in counts}
        growth = {
            "what": "peak memory of probing, 2,400 images / 600 images",
            "ratio": megabytes["2400"] / megabytes["600"],
            "target": "at most 1.1",
            "megabytes": megabytes,
        }
        return [speed(files[:320]), growth]


def speed(files: list[Path]) -> dict[str, Any]:
    """Images a second of both, as a ratio."""
    encoder = encoscope.load("timm:resnet10t@untrained")

    def bare() -> None:
        group = []
        for photo in read_images(files):
            group.append(encoder.prepare(photo).pixels)
            if len(group) == BATCH:
                with torch.no_grad():
                    encoder.module.eval()(torch.cat(group))
                group = []

    def ours() -> None:
        probe(encoder, files, batch_size=BATCH, fresh=True, progress=False)

    seconds = interleaved({"probing": ours, "bare": bare}, 5)
    return {
        "what": "speed of probing / a bare loop over the same files: decode, prepare, forward",
        "ratio": seconds["bare"] / seconds["probing"],
        "target": "at least 0.9",
        "seconds": seconds,
    }


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), int(sys.argv[2])
    network = encoscope.load("timm:resnet10t@untrained")
    chosen = sorted(where.iterdir())
    probe(network, chosen[:64], batch_size=BATCH, progress=False)  # what is loaded at first use is no part of it
    report_peak(lambda: probe(network, chosen[:number], batch_size=BATCH, progress=False))
