"""What an atlas is to hold: options as they are given, and what they come to for one encoder and its images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import ImageListing, SkippedImage, is_dataset, list_images
from encoscope.probing import Probe, probe
from encoscope.progress import Progress
from encoscope.store import content_key
from encoscope.units import Unit, channel_unit, normalize_name, parse_unit

Count: TypeAlias = int | Literal["all", "none"]

STAGES = 3
"""Layers that are taken when none are named: the last stages of a CNN. Of a transformer's blocks, the last alone."""


@dataclass(frozen=True)
class BuildOptions:
    """How an atlas is made.

    layers: whose channels are features, and over which images are parted; None takes the last ones.
    features: "all" channels of the layers, so many in all, or a list of units.
    classes: "all", "none", or so many: those with most images, and where labels tell nothing, those seen most.
    visualize: how many features get a picture, those that classes rest on first (of a list: its first); classes get
    one unless it is "none". steps: of a picture.
    describe: False leaves out words. captions, vlm: as for ``describe``; None takes the zoo's.
    images: at most so many of the dataset, evenly drawn. crops: strongest images of a feature.
    cells: of the label maps, along the short side.
    """

    layers: tuple[str, ...] | None = None
    features: Count | tuple[str, ...] = 64
    classes: Count = "all"
    visualize: Count = "all"
    describe: bool = True
    captions: str | None = None
    vlm: str | None = None
    steps: int = 500
    images: int | None = None
    crops: int = 8
    cells: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("features", "classes", "visualize", "steps", "images", "crops", "cells"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"{name} is a number from 1 on, not {value}")
        if self.features == "none":
            raise UsageError('features is "all", a number or a list of units: an atlas without features is empty')


@dataclass(frozen=True)
class BuildPlan:
    """Options, resolved. probes: by what was probed: each layer, and "features" and "logits" where there is a head.

    rows: of the probes, by image id. pooled: the layer whose spatial means are what the head takes, if there is one.
    skipped: images that cannot be read.
    """

    encoder: Encoder
    options: BuildOptions
    files: ImageListing
    layers: tuple[str, ...]
    probes: dict[str, Probe]
    rows: dict[str, int]
    classes: tuple[int, ...]
    pooled: str | None
    skipped: tuple[SkippedImage, ...]
    progress: Progress = None
    key: str = field(default="")

    @property
    def any(self) -> Probe:
        """One of the probes: all have the same images."""
        return next(iter(self.probes.values()))

    def label(self, image: str) -> str | None:
        """An image's label, as its class is called where the encoder has class names."""
        return class_name(self.encoder, self.any.labels[self.rows[image]])

    def of_class(self, index: int) -> list[int]:
        """The rows of the images labelled with a class."""
        wanted = class_text(self.encoder, index)
        return [row for row, label in enumerate(self.any.labels) if class_name(self.encoder, label) == wanted]

    def file(self, image: str) -> str:
        """Where an image is."""
        path = self.any.paths[self.rows[image]]
        assert path is not None  # probed from files
        return path

    def settings(self) -> dict[str, Any]:
        """What the manifest says of the options."""
        found = {name: value for name, value in asdict(self.options).items() if value is not None and name != "seed"}
        return found | {"layers": list(self.layers), "features": _text(self.options.features)}


def plan(encoder: Encoder, source: Any, options: BuildOptions, *, progress: Progress = None) -> BuildPlan:
    """Resolve options, and probe the images: every layer whose channels are features, and the head's sides.

    Raises UsageError for unknown layers, units and numbers, MissingError for images that are not there.
    """
    files = _some(list_images(source), options.images)
    layers = _layers(encoder, options)
    probes = {layer: probe(encoder, files, layer, progress=progress) for layer in layers}
    if encoder.outputs is not None:
        probes["logits"] = probe(encoder, files, "logits", progress=progress)
    pooled = None
    if encoder.head is not None:
        probes["features"] = probe(encoder, files, "features", progress=progress)
        pooled = _pooled(layers, probes)
    first = next(iter(probes.values()))
    made = BuildPlan(
        encoder=encoder,
        options=options,
        files=files,
        layers=layers,
        probes=probes,
        rows={image: row for row, image in enumerate(first.ids)},
        classes=(),
        pooled=pooled,
        skipped=first.skipped,
        progress=progress,
        key=content_key(
            {
                "encoder": encoder.digest,
                "images": hashlib.sha256("\n".join(first.ids).encode()).hexdigest(),
                "layers": list(layers),
                "cells": options.cells,
                "seed": options.seed,
            }
        ),
    )
    return BuildPlan(**{**made.__dict__, "classes": _classes(made)})


def features(made: BuildPlan, wanted: Sequence[Unit] = ()) -> list[Unit]:
    """The units of an atlas: those listed, all channels, or so many: first ``wanted`` ones, then the most selective.

    wanted: channels that classes rest on, the heaviest first. A channel is selective when its strongest images stand
    far above its mean, in standard deviations; the layers take turns.
    """
    choice, encoder = made.options.features, made.encoder
    if isinstance(choice, tuple):
        return [parse_unit(text, encoder) for text in unit_texts(choice)]
    everything = [
        channel_unit(layer, channel) for layer in made.layers for channel in range(encoder.layer(layer).channels)
    ]
    if choice == "all" or not isinstance(choice, int) or choice >= len(everything):
        return everything
    queues = []
    for layer in made.layers:
        found = made.probes[layer]
        top = np.sort(found.values, axis=0)[-min(10, len(found)) :].mean(0)
        selectivity = np.where(found.std > 0, (top - found.mean) / np.where(found.std > 0, found.std, 1), -np.inf)
        queues.append([channel_unit(layer, int(channel)) for channel in np.argsort(-selectivity, kind="stable")])
    turns = [unit for turn in zip(*queues, strict=False) for unit in turn]
    rest = [unit for queue in queues for unit in queue]
    chosen = list(dict.fromkeys([*wanted, *turns, *rest]))[:choice]
    order = {unit: place for place, unit in enumerate(everything)}
    return sorted(chosen, key=lambda unit: order.get(unit, len(order)))


def unit_texts(listed: Sequence[str]) -> list[str]:
    """A list of units in which a bare number is another channel of the layer before it."""
    found: list[str] = []
    for item in listed:
        if item.isdigit() and found and ":" in found[-1]:
            item = f"{found[-1].rpartition(':')[0]}:{item}"
        found.append(item)
    return list(dict.fromkeys(found))


def readings(made: BuildPlan, units: Sequence[Unit]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every unit's value on every image, ``[units, images]``, and its mean and standard deviation, ``[units]``."""
    from encoscope.units import unit_weights

    rows = []
    for unit in units:
        if unit.space not in made.probes:
            made.probes[unit.space] = probe(made.encoder, made.files, unit.space, progress=made.progress)
        values = made.probes[unit.space].values
        rows.append(
            values[:, unit.index] if len(unit.channels) == 1 else values @ unit_weights(unit, made.encoder).numpy()
        )
    values = np.stack(rows).astype(np.float64)
    return values, values.mean(1), values.std(1)


def class_text(encoder: Encoder, index: int) -> str:
    """How a class is called on the pages."""
    return encoder.classes[index] if encoder.classes is not None else str(index)


def class_name(encoder: Encoder, label: str | None) -> str | None:
    """A label of the data as the encoder's own class is called, where one of them is meant."""
    if label is None or encoder.classes is None:
        return label
    wanted = normalize_name(label)
    return next((name for name in encoder.classes if normalize_name(name) == wanted), label)


def _some(files: ImageListing, most: int | None) -> ImageListing:
    """Evenly drawn from the dataset's order, so that all classes have their share."""
    if most is None or most >= len(files):
        return files
    places = [round((place + 0.5) * len(files) / most - 0.5) for place in range(most)]
    return files.select(places)


def _layers(encoder: Encoder, options: BuildOptions) -> tuple[str, ...]:
    if options.layers is not None:
        asked = dict.fromkeys(options.layers)
    elif isinstance(options.features, tuple):
        units = [parse_unit(text, encoder) for text in unit_texts(options.features)]
        asked = dict.fromkeys(unit.layer for unit in units if unit.layer is not None)
    else:
        asked = {}
    if not asked:
        stages = [info.name for info in encoder.layers if info.role == "stage"]
        blocks = [info.name for info in encoder.layers if info.role == "block"]
        asked = dict.fromkeys(stages[-STAGES:] or blocks[-1:] or [info.name for info in encoder.layers][-1:])
    names = [info.name for info in encoder.layers]
    return tuple(sorted({encoder.layer(name).name for name in asked}, key=names.index))


def _pooled(layers: Sequence[str], probes: dict[str, Probe]) -> str | None:
    """The layer whose channels' spatial means are the features: then its units feed classes by the head's weights."""
    features = np.asarray(probes["features"].values[:64])
    for layer in reversed(layers):
        values = np.asarray(probes[layer].values[:64])
        if values.shape == features.shape and np.allclose(
            values, features, rtol=1e-3, atol=1e-4 * np.abs(features).max()
        ):
            return layer
    return None


def _classes(made: BuildPlan) -> tuple[int, ...]:
    choice, outputs = made.options.classes, made.encoder.outputs
    if outputs is None or choice == "none":
        return ()
    if choice == "all":
        return tuple(range(outputs))
    shown = Counter(class_name(made.encoder, label) for label in made.any.labels)
    said = Counter(made.probes["logits"].values.argmax(1).tolist())

    def rank(index: int) -> tuple[int, int, int]:
        return -shown[class_text(made.encoder, index)], -said[index], index

    ordered = sorted(range(outputs), key=rank)
    return tuple(sorted(ordered[: int(choice)]))


def _text(features: Count | tuple[str, ...]) -> str:
    return ",".join(features) if isinstance(features, tuple) else str(features)


def source_text(source: Any) -> str:
    """A dataset as the manifest names it: of a path the last folder, for pages may be shown to others."""
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        name, mark, rest = text.partition(":") if is_dataset(text) else ("", "", text)
        place, split, after = rest.partition("#") if mark else (rest, "", "")
        return f"{name}{mark}{Path(place).resolve().name}{split}{Path(after).name}"
    return f"{len(source)} files" if hasattr(source, "__len__") else type(source).__name__
