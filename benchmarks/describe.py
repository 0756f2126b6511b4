"""FALCON on every feature against what it cannot do without: probing the photos, and embedding the crops once.

The zoo's two networks and its vocabulary, on Caltech-101's training list where ENCOSCOPE_DATA has it, else on as many
photos of about that size. One round of some minutes: the sides are long enough to need no median.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import encoscope
from benchmarks.probing import make_images
from encoscope import vlm
from encoscope.falcon import Falcon
from encoscope.falcon.captions.build import load_default_captions
from encoscope.falcon.crops import cut_box
from encoscope.falcon.embedding import find_vlm_input, reread_image
from encoscope.falcon.selection import select_images
from encoscope.probing import probe
from encoscope.units import list_units

IMAGES = 6000
ROUNDS = 1


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    root = os.environ.get("ENCOSCOPE_DATA")
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, "captions"))
        reader = vlm.load("zoo:clip-caltech101")
        captions = load_default_captions(reader, progress=False)
        encoder = encoscope.load("zoo:resnet-caltech101")
        caltech = None if root is None else Path(root, "caltech101")
        files = (
            _caltech(caltech)
            if caltech is not None and caltech.is_dir()
            else make_images(Path(folder, "photos"), IMAGES)
        )
        for number in range(ROUNDS):
            os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, f"ours-{number}"))
            start = time.perf_counter()
            falcon = Falcon(encoder, vlm=reader, captions=captions, progress=False).fit(files)
            falcon.describe("all")
            ours = time.perf_counter() - start
            os.environ["ENCOSCOPE_CACHE"] = str(Path(folder, f"parts-{number}"))
            start = time.perf_counter()
            probe(encoder, files, progress=False)
            probing = time.perf_counter() - start
            crops = _cut_crops(falcon)
            start = time.perf_counter()
            reader.embed_images(crops)
            rounds.append((ours, probing, time.perf_counter() - start, len(crops)))
    seconds = {
        name: float(np.median([row[i] for row in rounds])) for i, name in enumerate(("ours", "probing", "crops"))
    }
    ratio = float(np.median([ours / (probing + crops) for ours, probing, crops, _ in rounds]))
    what = f"describe all 512 features, {len(files)} photos, {len(captions)} captions, {rounds[0][3]} crops"
    return [
        {
            "what": f"{what} / probing and embedding the crops once",
            "ratio": ratio,
            "target": "at most 1.5",
            "seconds": seconds,
        }
    ]


def _caltech(root: Path) -> list[Path]:
    """Real photos, as many of each class: features fire on them as they do in use."""
    from encoscope.images.caltech101 import read_caltech101

    found = read_caltech101(root, "train").paths
    return list(found[:: max(1, len(found) // IMAGES)])


def _cut_crops(falcon: Falcon) -> list[np.ndarray]:
    """The crops that were described from, cut and decoded already: embedding alone is what they cost at least."""
    units = list_units("features", falcon.encoder_)
    space = falcon.find_space(units[0])
    size, how = find_vlm_input(falcon.vlm_)
    found = []
    chosen = select_images(space.fit.h, units, falcon.settings_, space.thresholds, space.fit.ids)
    for unit, selection in zip(units, chosen, strict=True):
        for row in selection.high:
            image = space.fit.ids[row]
            crop = falcon.context_.embedder.get_crop(unit, image)
            found.append(cut_box(reread_image(image, space.fit.paths[row]), crop.box, size, how))
    return found
