"""Probing a dataset against a bare loop over the same files: decode, prepare, forward; and memory that does not grow.

resnet10t at 128 px on photos of 300 x 225, a usual size, so that a few hundred of them take seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import encoscope
from benchmarks.measure import in_process, interleaved, report_peak
from encoscope.images import photos
from encoscope.probe import probe

BATCH = 32


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, "cache"))
        files = make_photos(Path(folder, "photos"), 2000)
        counts = (200, 2000)
        megabytes = {str(n): in_process("benchmarks.probing", str(files[0].parent), str(n)) for n in counts}
        growth = {
            "what": "peak memory of probing, 2,000 images / 200 images",
            "ratio": megabytes["2000"] / megabytes["200"],
            "target": "within 0.9 to 1.1",
            "megabytes": megabytes,
        }
        return [speed(files[:320]), growth]


def speed(files: list[Path]) -> dict[str, Any]:
    """Images a second of both, as a ratio."""
    encoder = encoscope.load("timm:resnet10t@untrained")

    def bare() -> None:
        group = []
        for photo in photos(files):
            group.append(encoder.prepare(photo).pixels)
            if len(group) == BATCH:
                with torch.no_grad():
                    encoder.module.eval()(torch.cat(group))
                group = []

    def ours() -> None:
        probe(encoder, files, batch=BATCH, fresh=True, progress=False)

    seconds = interleaved({"probing": ours, "bare": bare}, 5)
    return {
        "what": "speed of probing / a bare loop over the same files: decode, prepare, forward",
        "ratio": seconds["bare"] / seconds["probing"],
        "target": "at least 0.9",
        "seconds": seconds,
    }


def make_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of 300 x 225 pixels, all different."""
    folder.mkdir()
    sources = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        source = sources[number % 2]
        top, left = generator.integers(0, source.shape[0] - 225), generator.integers(0, source.shape[1] - 300)
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(source[top : top + 225, left : left + 300]).save(files[-1])
    return files


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), int(sys.argv[2])
    network = encoscope.load("timm:resnet10t@untrained")
    chosen = sorted(where.iterdir())
    probe(network, chosen[:64], batch=BATCH, progress=False)  # what is loaded at first use is no part of it
    report_peak(lambda: probe(network, chosen[:number], batch=BATCH, progress=False))
