"""What NAVE adds to a forward pass: grouping of one image, and ``segment`` from a decoded photo to its labels."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_sample_image

import encoscope
from benchmarks.grouping import make_maps, resnet50
from benchmarks.measure import interleaved
from encoscope.nave.composite import compose_features
from encoscope.nave.kmeans import kmeans


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    return [grouping(), end_to_end()]


def grouping() -> dict[str, Any]:
    """ResNet-50, layers 1-4 at 56x56, K = 5, four starts, against the forward pass."""
    maps = make_maps()
    encoder, pixels = resnet50()

    def forward() -> None:
        with torch.no_grad():
            encoder.module.eval()(pixels)

    seconds = interleaved({"grouping": lambda: kmeans(compose_features(maps, (56, 56)), 5), "forward": forward}, 15)
    ratio = seconds["grouping"] / seconds["forward"]
    what = "grouping of one image, ResNet-50 layers 1-4 at 56x56, 4 starts / one forward pass"
    return {"what": what, "ratio": ratio, "target": "at most 2, aim at 1", "seconds": seconds}


def end_to_end() -> dict[str, Any]:
    """ViT-S/16 at 480, last block: ``segment`` against preparing the same photo and a forward pass."""
    encoder = encoscope.load("timm:vit_small_patch16_224@untrained")
    photo = load_sample_image("china.jpg")
    encoder.resizable  # noqa: B018 - found out once, at the first photo

    def forward() -> None:
        with torch.no_grad():
            encoder.module.eval()(encoder.prepare(photo, geometry="whole", size=480).pixels)

    def segment() -> None:
        encoscope.segment(encoder, photo, n_clusters=5, size=480)

    seconds = interleaved({"segment": segment, "forward": forward}, 9)
    what = "segment end to end, ViT-S/16 at 480, last block / preparing and one forward pass"
    return {
        "what": what,
        "ratio": seconds["segment"] / seconds["forward"],
        "target": "at most 1.15",
        "seconds": seconds,
    }
