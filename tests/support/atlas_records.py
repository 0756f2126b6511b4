"""Atlases of made-up records: every part filled, every number known, as small or as large as a test wants."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from encoscope.atlas import (
    CircuitLayer,
    CircuitLink,
    ClassRecord,
    ComparisonRecord,
    CropRecord,
    DescriptionRecord,
    Failure,
    FeatureRecord,
    Histogram,
    ImageFile,
    ImageRecord,
    ImageSegmentation,
    LabelMap,
    MatchedFeature,
    MatchedPair,
    Measure,
    NodeTop,
    SegmentationInfo,
    Term,
    VisualizationRecord,
    Writer,
)
from encoscope.atlas.trees import list_members

WORDS = (
    *("whisker", "petal", "wheel", "striped fur", "mast", "keyboard", "feather", "brick", "window", "beak", "shell"),
    *("spiral", "saddle", "lamp", "grid", "antler", "propeller", "rim", "leaf", "wave"),
)
CLASSES = ("airplanes", "Faces", "sunflower", "leopards")
LEAVES = 20


def pixels(seed: int, side: int = 96, kind: str = "unit") -> np.ndarray:
    """A smooth coloured pattern, another for every seed: ``[side, side, 3]``, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    found = np.zeros((side, side, 3))
    for channel in range(3):
        for _ in range(4):
            a, b, phase = *rng.normal(0, 4 if kind == "unit" else 1.5, 2).tolist(), rng.uniform(0, 6.3)
            found[..., channel] += np.sin(2 * math.pi * (a * x + b * y) + phase)
    found = 0.5 + found / 8 + rng.uniform(-0.15, 0.15, 3)
    return (np.clip(found, 0, 1) * 255).astype(np.uint8)


def image_id(number: int) -> str:
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


def unit(number: int, per_layer: int = 512) -> str:
    return f"layer{1 + number // per_layer}:{number % per_layer}"


def chain(leaves: int, seed: int) -> tuple[tuple[int, int], ...]:
    """A random binary tree over leaves, as merges."""
    rng, alive, merges = np.random.default_rng(seed), list(range(leaves)), []
    for step in range(leaves - 1):
        first, second = sorted(rng.choice(alive, 2, replace=False).tolist())
        alive = [node for node in alive if node not in (first, second)] + [leaves + step]
        merges.append((first, second))
    return tuple(merges)


def labels(seed: int, rows: int = 24, columns: int = 32, leaves: int = LEAVES) -> np.ndarray:
    """Cells of the nearest of ``leaves`` random centres; every label occurs."""
    rng = np.random.default_rng(seed)
    spots = rng.permutation(rows * columns)[:leaves]
    centres = np.stack([spots // columns, spots % columns], axis=1)
    y, x = np.mgrid[0:rows, 0:columns]
    return np.argmin((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2, axis=2)


def writer(path: Path, **changed: Any) -> Writer:
    about: dict[str, Any] = {
        "title": "A made-up network",
        "model": {"source": "zoo:made-up", "digest": "ab" * 32, "layers": ["layer1", "layer2"]},
        "data": {"source": "caltech101:/data#train", "images": 12, "digest": "cd" * 32},
        "settings": {"layers": "layer1,layer2", "top": 8},
        "random_state": 0,
        "key": "synthetic",
    }
    return Writer(path, **(about | changed))


def feature(number: int, files: list[ImageFile], images: int, *, rich: bool = True) -> FeatureRecord:
    rng = np.random.default_rng(number)
    name = unit(number)
    description = DescriptionRecord(
        concepts=tuple(
            Term(WORDS[(number * 7 + k * 3) % len(WORDS)], round(0.31 - 0.04 * k, 3)) for k in range(5 if rich else 3)
        ),
        phrases=(Term(f"{WORDS[number % len(WORDS)]} near a {WORDS[(number + 5) % len(WORDS)]}", 0.27),),
        spurious=(Term("sky", 0.24), Term("photo frame", 0.21)),
        method="falcon" if number % 3 else "soft-wpmi",
        score="cosine similarity" if number % 3 else "soft-WPMI",
        control=0.18,
        control_name="the same words for permuted features",
    )
    auc = round(0.6 + 0.38 * rng.random(), 3)
    record = FeatureRecord(
        unit=name,
        layer=name.partition(":")[0],
        description=description,
        heldout_auc=Measure(auc, "AUC", 0.52, "permuted features", (auc - 0.04, auc + 0.02)),
        clarity=Measure(round(0.4 + 0.5 * rng.random(), 3), "mean cosine of crops", 0.41, "random crops"),
        sparsity=Measure(round(float(rng.random()), 3), "share of images below a tenth of the maximum", 0.5, "median"),
        visualizations=(VisualizationRecord("vital", files[number % len(files)]),),
    )
    if not rich:
        return record
    sigma = "standard deviations above its mean over the images"
    crops = tuple(
        CropRecord(
            image_id((number + k) % images),
            files[(number + k) % len(files)],
            Measure(round(5.2 - 0.3 * k, 2), sigma),
            box=(0.2, 0.25, 0.8, 0.9),
            outline=(((0.3, 0.3), (0.7, 0.28), (0.78, 0.6), (0.5, 0.8), (0.27, 0.62)),),
            captions=(f"a photo of a {WORDS[(number + k) % len(WORDS)]}",),
        )
        for k in range(8)
    )
    quiet = tuple(
        CropRecord(image_id((number + k + 3) % images), files[(number + k + 9) % len(files)], Measure(-0.4, sigma))
        for k in range(4)
    )
    shape = np.exp(-np.linspace(0, 4, 24)) * 200
    return FeatureRecord(
        **{
            **record.__dict__,
            "visualizations": (
                VisualizationRecord(
                    "vital",
                    files[number % len(files)],
                    transparent=files[-1],
                    activation=Measure(
                        7.4, "times the mean of its strongest images", 1.1, "an untrained network's picture"
                    ),
                ),
                VisualizationRecord("fourier", files[(number + 4) % len(files)]),
            ),
            "activating": crops,
            "counterfactuals": quiet,
            "histogram": Histogram(
                tuple(np.linspace(0, 2.4, 25).round(3).tolist()),
                tuple(shape.round().astype(int).tolist()),
                0.42,
                0.31,
                f"mean activation of {name}",
            ),
            "nearest": tuple(
                CircuitLink(
                    unit((number + k + 1) % 12), Measure(round(0.7 - k / 10, 2), "correlation", 0.08, "median pair")
                )
                for k in range(4)
            ),
            "classes": tuple(
                CircuitLink(
                    f"class:{klass}", Measure(0.9 - 0.5 * k, "logits per standard deviation", 0.2, "typical feature")
                )
                for k, klass in enumerate(CLASSES)
            ),
        }
    )


def image(site: Writer, number: int, info: SegmentationInfo, features: int) -> ImageRecord:
    shown = site.save_image(np.kron(pixels(500 + number, 60, "image"), np.ones((4, 4, 1), dtype=np.uint8)))
    own = chain(LEAVES, number)

    def tops(merges: tuple[tuple[int, int], ...]) -> tuple[NodeTop, ...]:
        measured = "standard deviations above its mean over the images"
        return tuple(
            NodeTop(
                node,
                tuple(
                    CircuitLink(unit((node * 5 + k + number) % features), Measure(3.1 - k, measured)) for k in range(3)
                ),
            )
            for node in list_members(merges, LEAVES)
        )

    return ImageRecord(
        id=image_id(number),
        name=f"{CLASSES[number % 4]}/image_{number:04d}.jpg",
        picture=shown,
        thumbnail=site.save_image(pixels(500 + number, 60, "image")),
        label=CLASSES[number % 4],
        predictions=(
            CircuitLink(
                f"class:{CLASSES[number % 4]}", Measure(0.91, "probability", 0.0099, "one of 101 classes at random")
            ),
            CircuitLink(
                f"class:{CLASSES[(number + 1) % 4]}", Measure(0.05, "probability", 0.0099, "one of 101 at random")
            ),
        ),
        segmentations=(
            ImageSegmentation("layer2", LabelMap.from_array(labels(number)), own, tops(own)),
            ImageSegmentation("layer2-joint", LabelMap.from_array(labels(number + 90)), (), tops(info.merges)),
        ),
        tops=(
            CircuitLink(unit(number % features), Measure(4.0, "standard deviations above its mean over the images")),
        ),
    )


def small_site(path: Path, *, features: int = 12, images: int = 12) -> Path:
    """A site with every kind of record and every part of each."""
    with writer(path) as site:
        info = SegmentationInfo("layer2-joint", ("layer2",), "joint", LEAVES, chain(LEAVES, 7), tuple(range(20, 0, -1)))
        site.add_segmentation(SegmentationInfo("layer2", ("layer2",), "image", LEAVES, settings={"weighting": "equal"}))
        site.add_segmentation(info)
        faint = np.dstack([pixels(99), np.tile(np.linspace(0, 255, 96), (96, 1)).astype(np.uint8)])
        files = [site.save_image(pixels(seed)) for seed in range(10)] + [site.save_image(faint)]
        for number in range(features):
            site.add(feature(number, files, images))
        for number in range(images):
            site.add(image(site, number, info, features))
        for number, name in enumerate(CLASSES):
            heavy = Measure(0.8, "logits", 0.1, "typical channel")
            layers = tuple(
                CircuitLayer(
                    layer, tuple(CircuitLink(f"{layer}:{k + number}", heavy, tuple(files[:4])) for k in range(3))
                )
                for layer in ("layer1", "layer2")
            )
            wrong = Failure(
                image_id(number),
                files[number],
                CLASSES[(number + 1) % 4],
                Measure(0.7, "probability", 0.0099, "one of 101 classes at random"),
                (CircuitLink(unit(number), Measure(1.2, "logits towards the prediction", 0.1, "typical feature")),),
            )
            site.add(
                ClassRecord(
                    name,
                    number,
                    (VisualizationRecord("vital", files[number], files[-1], notes=("few images stood behind it",)),),
                    tuple(
                        CropRecord(image_id(k), files[k], Measure(9.0 - k, "logit", 0.3, "all images"))
                        for k in range(3)
                    ),
                    Measure(0.8, "of 40 images right", 0.0099, "guessing"),
                    layers,
                    "relevance (LRP), mean over its images",
                    (wrong,) if number < 2 else (),
                )
            )
        pairs = tuple(
            MatchedPair(
                unit(number),
                MatchedFeature(f"stages.3:{number * 3}", ("petal", "leaf"), files[number % 10], tuple(files[:3])),
                Measure(round(0.9 - number / 20, 2), "correlation over shared images", 0.31, "images permuted"),
                mutual=number % 2 == 0,
            )
            for number in range(min(6, features))
        )
        site.add(ComparisonRecord("another", "timm:convnext_atto", "ef" * 32, 12, pairs, "correlation of activations"))
        site.add_control("Permuted features: every description is scored against another feature's activations.")
        site.save_activations(
            [unit(number) for number in range(features)],
            [image_id(number) for number in range(images)],
            np.random.default_rng(0).random((features, images)),
        )
        site.set_method("words", **{"image-text model": "zoo:clip-made-up", "its digest": "9f" * 32})
        site.set_stage("segment", images, images)
        site.set_stage("describe", features - 2, features)
        site.skipped = [{"path": "broken.jpg", "reason": "not an image in a known format"}]
    return path


def large_site(path: Path, features: int = 10_000) -> Path:
    """Many features with words, measures and a picture each, and a few of them whole; one has a word of its own."""
    with writer(path) as site:
        files = [site.save_image(pixels(seed, 64)) for seed in range(64)]
        for number in range(features):
            record = feature(number, files, 12, rich=number < 8)
            if number == features - 3:
                term = Term("quincunx", 0.5)
                assert record.description is not None
                description = DescriptionRecord((term, *record.description.concepts), "falcon", "cosine similarity")
                record = FeatureRecord(**{**record.__dict__, "description": description})
            site.add(record)
    return path
