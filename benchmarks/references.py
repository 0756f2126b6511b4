"""The search for top patches: forward passes and time, by the maps of whole images against every patch by itself.

The ImageNet network that ships with the package; windows of scikit-learn's two photos, in the size of usual photos.
Forward passes are counted in the network, whatever asked for them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import encoscope
from benchmarks.measure import make_images
from encoscope.probing import find_top_patches
from encoscope.units import Unit, channel_unit

LAYERS = ("blocks.2", "blocks.4.2.bn1", "bn2")
"""At a stride of 8, 16 and 32 pixels."""
IMAGES, KEPT = 40, 10


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    encoder = encoscope.load("zoo:tf_efficientnet_lite0")
    with tempfile.TemporaryDirectory() as folder:
        files = make_images(Path(folder) / "photos", 50, (240, 320))
        return [*passes(encoder, files[:IMAGES]), one_unit(encoder, files), *kept(encoder, files[:IMAGES])]


@contextmanager
def counting(encoder: encoscope.Encoder) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the batches that the network gets in the block."""
    shapes: list[tuple[int, ...]] = []
    handle = encoder.module.register_forward_pre_hook(lambda _module, args: shapes.append(tuple(args[0].shape)))
    try:
        yield shapes
    finally:
        handle.remove()


def search(encoder: encoscope.Encoder, files: Sequence[Path], units: Sequence[Unit], count: int, scoring: Any) -> Any:
    """One search, with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        return find_top_patches(encoder, files, units, count, scoring=scoring, cache_dir=cache, progress=False)


def passes(encoder: encoscope.Encoder, files: Sequence[Path]) -> list[dict[str, Any]]:
    """512 units: the search counts by its pixels, in images of the network's own size; scoring by forward passes."""
    units = [channel_unit("bn2", channel) for channel in range(512)]
    encoder.trial(["bn2"])  # once for each network, not for each search
    with counting(encoder) as shapes:
        found = search(encoder, files, units, KEPT, "maps")
    own = encoder.preprocess.size[0] * encoder.preprocess.size[1]
    whole = [shape for shape in shapes if shape[2] * shape[3] != own]
    pixels = sum(shape[0] * shape[2] * shape[3] for shape in whole)
    scored = sum(shape[0] for shape in shapes) - sum(shape[0] for shape in whole)
    number = sum(len(patches) for patches in found)
    return [
        {
            "what": f"passes over {len(files)} photos for 512 units, in pixels of the network's own input",
            "ratio": pixels / own / len(files),
            "target": "at most 1.5",
            "seconds": {},
        },
        {
            "what": f"forward passes for each of {number} kept patches of 512 units",
            "ratio": scored / number,
            "target": "at most 2",
            "seconds": {},
        },
    ]


def one_unit(encoder: encoscope.Encoder, files: Sequence[Path]) -> dict[str, Any]:
    """One unit in 50 photos, 50 references, in CPU seconds of all threads."""
    units = [channel_unit("blocks.4.2.bn1", 5)]
    seconds = {}
    for name, scoring in (("maps", "maps"), ("every patch", "stride")):
        start = time.process_time()
        search(encoder, files, units, 50, scoring)
        seconds[name] = time.process_time() - start
    return {
        "what": "top patches of one unit in 50 photos, every patch / maps, CPU seconds",
        "ratio": seconds["every patch"] / seconds["maps"],
        "target": "at least 5",
        "seconds": seconds,
    }


def kept(encoder: encoscope.Encoder, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the patches that the maps lead to are worth: their mean value against that of every patch's best."""
    units = {layer: [channel_unit(layer, channel) for channel in range(32)] for layer in LAYERS}
    every = [unit for each in units.values() for unit in each]
    means = {
        scoring: [
            np.mean([patch.score for patch in patches]) for patches in search(encoder, files, every, KEPT, scoring)
        ]
        for scoring in ("maps", "stride")
    }
    rows = []
    for number, layer in enumerate(LAYERS):
        part = slice(32 * number, 32 * (number + 1))
        shares = np.array(means["maps"][part]) / np.array(means["stride"][part])
        rows.append(
            {
                "what": f"mean value of the top {KEPT} patches of {len(files)} photos, {layer}, maps / every patch",
                "ratio": float(np.median(shares)),
                "target": "said, not aimed at",
                "seconds": {},
            }
        )
    return rows
