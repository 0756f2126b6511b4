"""Do segments of a trained encoder follow the things in a photo better than those of an untrained one?

``python -m encoscope.experiments.panoptic_miou IMAGES PANOPTIC.json`` parts each photo into K regions with the trained
and the untrained network and prints, for each K, the mean IoU with COCO's panoptic categories and how far it would move
with other photos. Regions are named with the photo's own labels at hand: an oracle, an upper bound, fair only as a
comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from encoscope.encoder import Encoder, load
from encoscope.errors import EncoscopeError
from encoscope.images.panoptic import VOID, Panoptic, panoptic
from encoscope.metrics import Interval, bootstrap, bootstrap_difference, image_miou
from encoscope.nave import Segmentation, segment


@dataclass(frozen=True)
class Comparison:
    """Mean IoU over photos at one K: trained weights, seeded untrained ones, and the paired difference."""

    clusters: int
    images: int
    trained: Interval
    untrained: Interval
    difference: Interval


def scores(
    encoder: Encoder, images: Iterable[Panoptic], clusters: Sequence[int], size: int | None = None, seed: int = 0
) -> dict[int, list[float]]:
    """Per K the oracle mIoU of each image (many-to-one); size: the short side, the network's own by default."""
    found: dict[int, list[float]] = {k: [] for k in clusters}
    for image in images:
        for k in clusters:
            parted = segment(encoder, image.path, clusters=k, size=size or "model", seed=seed)
            assert isinstance(parted, Segmentation)  # one photo, one number of clusters
            found[k].append(image_miou(parted.labels.astype(np.int64), image.labels, void=VOID))
    return found


def compare(
    model: str, images: Sequence[Panoptic], clusters: Sequence[int], *, size: int | None = None, seed: int = 0
) -> list[Comparison]:
    """Trained against untrained on the same images, a row per K."""
    trained = scores(load(model), images, clusters, size, seed)
    untrained = scores(load(model, untrained=True, seed=seed), images, clusters, size, seed)
    return [
        Comparison(
            clusters=k,
            images=len(images),
            trained=bootstrap(trained[k], seed=seed),
            untrained=bootstrap(untrained[k], seed=seed),
            difference=bootstrap_difference(trained[k], untrained[k], seed=seed),
        )
        for k in clusters
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("images", type=Path, help="folder of COCO photos")
    parser.add_argument("annotations", type=Path, help="COCO's panoptic JSON, the folder of its PNGs beside it")
    parser.add_argument("--model", default="zoo:resnet-caltech101")
    parser.add_argument("--clusters", type=int, nargs="+", default=[3, 5, 10], metavar="K")
    parser.add_argument("--size", type=int, help="short side in pixels (default: the network's own)")
    parser.add_argument("--limit", type=int, help="only the first so many photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        images = list(panoptic(chosen.images, chosen.annotations))[: chosen.limit]
        rows = compare(chosen.model, images, chosen.clusters, size=chosen.size, seed=chosen.seed)
    except EncoscopeError as error:
        sys.stderr.write(f"encoscope: error: {error}\n")
        return error.exit_code
    if chosen.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        return 0
    sys.stdout.write(f"{chosen.model}, {len(images)} photos, mIoU [95 % bootstrap interval]\n")
    for row in rows:
        sys.stdout.write(
            f"K = {row.clusters:2d}: trained {row.trained}, untrained {row.untrained}, difference {row.difference}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
