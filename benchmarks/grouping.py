"""ResNet-50, layers 1-4, 224 px, K = 5, one start: composite features and k-means, against Algorithm 1 written out.

Both begin at the same centres and run until no pixel changes. The other side is ``tests/oracles/nave.py``: every map
upsampled, the matrix built in float32, scikit-learn's k-means. Peak memory is what a fresh process needs above that of
the maps.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_image

import encoscope
from benchmarks.measure import apart, in_process, report_peak, report_seconds
from encoscope.nave.composite import compose_features
from encoscope.nave.kmeans import kmeans_plusplus, lloyd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import nave as oracle

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
GRIDS = {56: 3, 224: 2}  # side of the grid, and how many times each side has its turn


def resnet50() -> tuple[encoscope.Encoder, torch.Tensor]:
    """The network, and one photo as it takes it."""
    encoder = encoscope.load("torchvision:resnet50@untrained")
    return encoder, encoder.prepare(load_sample_image("china.jpg")).pixels


def make_maps() -> list[torch.Tensor]:
    """[1, C, h, w] of layers 1 to 4."""
    encoder, pixels = resnet50()
    return [found.maps for found in encoder.activations(pixels, LAYERS).values()]


def methods(maps: list[torch.Tensor], side: int) -> dict[str, Callable[[], Any]]:
    """Both methods to labels and inertia, from the same centres."""
    start = kmeans_plusplus(compose_features(maps, (side, side)), 5, n_init=1, random_state=0)
    centres = start[0, 0].numpy()

    def ours() -> Any:
        return lloyd(compose_features(maps, (side, side)), start, tol=0, max_iter=1000)

    def literal() -> Any:
        matrix = oracle.composite_matrix([m[0] for m in maps], (side, side))
        return KMeans(5, init=centres, n_init=1, tol=0, max_iter=1000).fit(matrix)

    return {"ours": ours, "algorithm 1": literal}


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    maps = make_maps()
    names = ("ours", "algorithm 1")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "maps.pt")
        torch.save(maps, file)
        for side, rounds in GRIDS.items():
            seconds = apart("benchmarks.grouping", names, ["seconds", str(side), str(file)], rounds)
            rows.append(
                {
                    "what": f"grouping at {side}x{side}, Algorithm 1 with scikit-learn / ours",
                    "ratio": seconds["algorithm 1"] / seconds["ours"],
                    "target": "at least 10" if side == 56 else "at least 50",
                    "seconds": seconds,
                }
            )
        megabytes = {name: in_process("benchmarks.grouping", name, "peak", "224", str(file)) for name in names}
    rows.append(
        {
            "what": "peak memory of grouping at 224x224, ours / Algorithm 1 with scikit-learn",
            "ratio": megabytes["ours"] / megabytes["algorithm 1"],
            "target": "at most 0.1",
            "megabytes": megabytes,
        }
    )
    return rows


if __name__ == "__main__":
    which, what, wide, stored = sys.argv[1:]
    small = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    methods(small, 8)[which]()  # what libraries load at their first use is no part of it
    method = methods(torch.load(stored), int(wide))[which]
    if what == "peak":
        report_peak(method)
    else:
        report_seconds(method, 7 if wide == "56" else 1)
