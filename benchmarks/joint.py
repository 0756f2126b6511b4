"""A joint fit over many images: memory that does not grow, and how many passes through the encoder it takes.

resnet10t at 64 px on small photos (crops of those in scikit-learn's wheel), so that 1,000 of them take seconds.
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
from encoscope.nave.feature_cache import FeatureCache
from encoscope.nave.settings import NaveSettings

OPTIONS: dict[str, Any] = {"n_clusters": 10, "size": 64, "progress": False}
# To measure memory: a grid as fine as that of a larger photo, so that 100 of them fill the sample of pixels, and few
# iterations, each of which is the same pass again.
FEW: dict[str, Any] = {"resolution": 28, "max_iter": 2, "n_init": 1}


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, "cache"))
        files = make_images(Path(folder, "photos"), 1000, (72, 96), 2)
        megabytes = {str(n): in_process("benchmarks.joint", str(files[0].parent), str(n)) for n in (100, 1000)}
        rows: list[dict[str, Any]] = [
            {
                "what": "peak memory of a joint fit, 1,000 images / 100 images",
                "ratio": megabytes["1000"] / megabytes["100"],
                "target": "within 0.9 to 1.1",
                "megabytes": megabytes,
            }
        ]
        rows += [passes(files[:60], cache) for cache in ("fp16", None)]
        rows.append(one_pass(files[:200]))
    return rows


def passes(files: list[Path], cache: str | None) -> dict[str, Any]:
    """How often each image goes through the encoder in ``fit`` and ``predict``."""
    encoder = encoscope.load("timm:resnet10t@untrained")
    encoder.resizable  # noqa: B018 - a trial run, once for each encoder
    seen: list[int] = []
    handle = encoder.module.register_forward_pre_hook(lambda _module, arguments: seen.append(len(arguments[0])))
    encoscope.Nave(encoder, feature_cache=cache, n_sample=2000, **OPTIONS).fit(files).predict(files)
    handle.remove()
    limit = 20 if cache is None else 2
    what = f"encoder passes of a joint fit and predict, {'no cache' if cache is None else 'cached'}"
    return {"what": what, "ratio": sum(seen) / len(files), "target": f"at most {limit}"}


def one_pass(files: list[Path]) -> dict[str, Any]:
    """The pass that stores the maps, against a bare loop: decode, prepare, forward."""
    encoder = encoscope.load("timm:resnet10t@untrained")
    settings = NaveSettings.of(encoder, size=64, n_clusters=10)

    def bare() -> None:
        group = []
        for photo in read_images(files):
            group.append(encoder.prepare(photo, geometry="whole", size=64).pixels)
            if len(group) == 8:
                with torch.no_grad():
                    encoder.module.eval()(torch.cat(group))
                group = []

    def spilled() -> None:
        spill = FeatureCache(encoder, settings, "fp16", fresh=True)
        for _ in spill.fill(read_images(files), 8):
            pass
        spill.store.remove()

    seconds = interleaved({"spilling": spilled, "bare": bare}, 5)
    what = "the pass of a joint fit that stores the maps / a bare pass over the same files"
    return {"what": what, "ratio": seconds["spilling"] / seconds["bare"], "target": "at most 1.3", "seconds": seconds}


if __name__ == "__main__":
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    network = encoscope.load("timm:resnet10t@untrained")
    chosen = sorted(folder.iterdir())
    encoscope.Nave(network, **OPTIONS, **FEW).fit(chosen[:16])  # what is loaded at first use is no part of it
    report_peak(lambda: encoscope.Nave(network, **OPTIONS, **FEW).fit(chosen[:count]))
