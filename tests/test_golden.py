"""Results stay the same: what the shipped networks give for fixed inputs, against values kept in golden.json.

Labels and words are compared exactly, numbers within 1e-5 of their size. After a change that is meant to change results
write them again with ``python tests/test_golden.py`` and say in the commit why they changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import encoscope

FILE = Path(__file__).parent / "golden.json"
RESNET, VIT = "zoo:resnet-caltech101", "zoo:vit-caltech101"
SEGMENTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "k-means": (RESNET, {"n_clusters": 5}),
    "k-means, equal weights": (RESNET, {"n_clusters": 4, "weighting": "equal", "resolution": 24}),
    "Ward": (RESNET, {"n_clusters": 6, "grouping": "ward"}),
    "principal components": (RESNET, {"n_clusters": 4, "grouping": "pca"}),
    "k-means, transformer": (VIT, {"n_clusters": 5}),
    "elbow, transformer": (VIT, {"n_clusters": "auto"}),
}


def draw_images(folder: Path) -> Path:
    """Draw 24 images, of stripes, discs and noise, in two folders of labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128] / 96
    for index in range(24):
        label = "discs" if index % 2 else "stripes"
        colors = rng.random((2, 3))
        if index % 2:
            mask = (y - rng.random()) ** 2 + (x - rng.random()) ** 2 < 0.1
        else:
            mask = np.sin((x * np.cos(index) + y * np.sin(index)) * (8 + index)) > 0
        pixels = np.where(mask[..., None], colors[0], colors[1]) + rng.normal(0, 0.03, (96, 128, 3))
        (folder / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
        image.save(folder / label / f"{index:02d}.png")
    return folder


def digest(labels: np.ndarray) -> str:
    """Name labels by their shape and content."""
    return f"{labels.shape} {hashlib.sha256(np.ascontiguousarray(labels, dtype=np.uint8).tobytes()).hexdigest()[:16]}"


def segment_all(folder: Path) -> dict[str, Any]:
    """Segment one image in every way, and three images jointly."""
    image = folder / "discs" / "01.png"
    values: dict[str, Any] = {}
    for name, (model, options) in SEGMENTATIONS.items():
        segmentation = encoscope.segment(model, image, preset="paper", **options)
        values[name] = {"labels": digest(segmentation.labels), "inertia": segmentation.inertia}
    paths = sorted(folder.rglob("*.png"))[:3]
    nave = encoscope.Nave(RESNET, preset="paper", n_clusters=4, progress=False)
    values["joint"] = {
        "labels": [digest(segmentation.labels) for segmentation in nave.fit_predict(paths)],
        "inertia": nave.inertia_,
    }
    return values


def probe_all(folder: Path) -> dict[str, Any]:
    """Probe features, logits and a layer."""
    encoder = encoscope.load(RESNET)
    values = {}
    for layer in ("features", "logits", "layer3"):
        probe = encoscope.probe(encoder, folder, layer, progress=False)
        array = np.asarray(probe.values, dtype=np.float64)
        values[layer] = {"mean": array.mean(), "norm": np.linalg.norm(array), "std": np.linalg.norm(probe.std)}
    return values


def describe_all(folder: Path) -> dict[str, Any]:
    """Describe a class, a feature and a group of channels."""
    units = ["class:stop_sign", "features:31", "layer3:5,9"]
    descriptions = encoscope.describe(encoscope.load(RESNET), units, probe=folder, progress=False)
    return {
        description.unit: {
            "words": [concept.word for concept in description.concepts],
            "scores": [concept.score for concept in description.concepts],
            "images": description.images,
        }
        for description in descriptions
    }


def visualize_all(folder: Path) -> dict[str, Any]:
    """Visualize a class from shipped statistics and a channel from its patches."""
    encoder = encoscope.load(RESNET)
    runs = {
        "class": encoscope.visualize(encoder, "class:sunflower", preset="paper", steps=4, progress=False),
        "channel": encoscope.visualize(encoder, "layer3:12", folder, preset="paper", steps=3, progress=False),
    }
    return {
        name: {
            "loss": [float(run.losses["loss"][0]), float(run.losses["loss"][-1])],
            "mean": float(run.image.mean()),
            "std": float(run.image.std()),
            "transparency": float(run.transparency.mean()),
            "activation": run.activation,
        }
        for name, run in runs.items()
    }


MEASURES = {"segment": segment_all, "probe": probe_all, "describe": describe_all, "visualize": visualize_all}


def compare(values: Any, golden: Any, path: str) -> None:
    """Compare plain values: numbers within 1e-5 of their size, all else exactly."""
    if isinstance(golden, dict):
        assert isinstance(values, dict) and list(values) == list(golden), path
        for name, value in golden.items():
            compare(values[name], value, f"{path}.{name}")
    elif isinstance(golden, list):
        assert len(values) == len(golden), path
        for index, value in enumerate(golden):
            compare(values[index], value, f"{path}[{index}]")
    elif isinstance(golden, float):
        assert values == pytest.approx(golden, rel=1e-5, abs=1e-8), path
    else:
        assert values == golden, path


@pytest.mark.usefixtures("one_thread")  # sums in another order change last digits, which optimization makes larger
@pytest.mark.parametrize("name", list(MEASURES))
def test_results_are_those_of_before(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    values = json.loads(json.dumps(MEASURES[name](draw_images(tmp_path / "images"))))
    compare(values, json.loads(FILE.read_text(encoding="utf-8"))[name], name)


def test_a_change_is_noticed() -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))["segment"]
    changed = json.loads(json.dumps(golden))
    changed["k-means"]["inertia"] *= 1.001
    with pytest.raises(AssertionError):
        compare(changed, golden, "segment")
    changed = json.loads(json.dumps(golden))
    changed["joint"]["labels"][0] = changed["joint"]["labels"][1]
    with pytest.raises(AssertionError):
        compare(changed, golden, "segment")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ENCOSCOPE_CACHE"] = f"{temporary}/cache"
        images = draw_images(Path(temporary, "images"))
        document = {name: measure(images) for name, measure in MEASURES.items()}
        FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{FILE}\n")
