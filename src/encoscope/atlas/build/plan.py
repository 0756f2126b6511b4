"""What the settings of an atlas come to for one encoder and its images."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.atlas.settings import AtlasSettings
from encoscope.classes import count_matches, match_labels
from encoscope.encoder import Encoder
from encoscope.errors import MissingError
from encoscope.images import ImageListing, SkippedImage, is_dataset, list_images
from encoscope.nave.layers import choose_layers, choose_size
from encoscope.probing import Probe, probe
from encoscope.progress import Progress
from encoscope.store import content_key
from encoscope.units import Unit, channel_unit, parse_unit

_log = logging.getLogger("encoscope")


@dataclass(frozen=True)
class BuildPlan:
    """Settings, resolved for one encoder and its images.

    Attributes:
        encoder: The encoder.
        settings: As they were given.
        files: The images.
        layers: The layers whose channels are features, in the network's order.
        probes: By what was probed: each layer, and "features" and "logits" where there is a head.
        rows: The row of each image in the probes, by the image's id.
        classes: Indices of the classes that get a record.
        label_classes: For each row the index of the class that its label stands for; None where it stands for none.
        matched: How many labels were matched with classes in which way, as the atlas records it; "" without labels.
        pooled: The layer whose spatial means are what the head takes, if there is one.
        skipped: Images that cannot be read.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        key: What must be equal for resuming a site.
    """

    encoder: Encoder
    settings: AtlasSettings
    files: ImageListing
    layers: tuple[str, ...]
    probes: dict[str, Probe]
    rows: dict[str, int]
    classes: tuple[int, ...]
    label_classes: tuple[int | None, ...]
    matched: str
    pooled: str | None
    skipped: tuple[SkippedImage, ...]
    progress: Progress = None
    key: str = field(default="")

    @property
    def first_probe(self) -> Probe:
        """The probe of the first layer; the others have the same images, in the same order."""
        return next(iter(self.probes.values()))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the images, in the order of the probes' rows."""
        return self.first_probe.ids

    def label_of(self, image: str) -> str | None:
        """An image's label, as its class is called where the encoder has class names.

        Args:
            image: The image's id.

        Returns:
            The label; None where there is none.
        """
        row = self.rows[image]
        index = self.label_classes[row]
        return self.first_probe.labels[row] if index is None else name_class(self.encoder, index)

    def rows_of_class(self, index: int) -> list[int]:
        """The images that are labelled with a class.

        Args:
            index: Of the class in the network's output.

        Returns:
            Their rows in the probes.
        """
        return [row for row, labelled in enumerate(self.label_classes) if labelled == index]

    def file_of(self, image: str) -> str:
        """Where an image is.

        Args:
            image: The image's id.

        Returns:
            Its path.

        Raises:
            MissingError: It was not read from a file.
        """
        path = self.first_probe.paths[self.rows[image]]
        if path is None:
            raise MissingError(f"image {image} was not read from a file: an atlas is built from files")
        return path

    def describe_settings(self) -> dict[str, Any]:
        """What the manifest says of the settings."""
        recorded = {name: value for name, value in self.settings.as_dict().items() if value is not None}
        features = self.settings.features
        text = ",".join(features) if isinstance(features, tuple) else str(features)
        return recorded | {"layers": list(self.layers), "features": text}


def plan_build(encoder: Encoder, source: Any, settings: AtlasSettings, *, progress: Progress = None) -> BuildPlan:
    """Resolve settings, and probe the images: every layer whose channels are features, and the head's two sides.

    Args:
        encoder: The encoder.
        source: A dataset string, a folder, or a list of files.
        settings: What the atlas holds.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The plan.

    Raises:
        UsageError: Unknown layers, units or numbers.
        MissingError: Images that are not there.
    """
    files = list_images(source).sample(settings.max_images, settings.random_state)
    layers = _choose_layers(encoder, settings)
    probes = {layer: probe(encoder, files, layer, progress=progress) for layer in layers}
    if encoder.outputs is not None:
        probes["logits"] = probe(encoder, files, "logits", progress=progress)
    pooled = None
    if encoder.head is not None:
        probes["features"] = probe(encoder, files, "features", progress=progress)
        pooled = _find_pooled(layers, probes)
    first = next(iter(probes.values()))
    label_classes, matched = _match_labels(encoder, first.labels)
    plan = BuildPlan(
        encoder=encoder,
        settings=settings,
        files=files,
        layers=layers,
        probes=probes,
        rows={image: row for row, image in enumerate(first.ids)},
        classes=(),
        label_classes=label_classes,
        matched=matched,
        pooled=pooled,
        skipped=first.skipped,
        progress=progress,
        key=content_key(
            {
                "encoder": encoder.digest,
                "images": hashlib.sha256("\n".join(first.ids).encode()).hexdigest(),
                "layers": list(layers),
                "cells": settings.cells,
                "size": choose_size(encoder),  # at which images are segmented
                "seed": settings.random_state,
                **({} if encoder.class_order is None else {"class_order": encoder.class_order}),
            }
        ),
    )
    return replace(plan, classes=_choose_classes(plan))


def choose_units(plan: BuildPlan, preferred: Sequence[Unit] = ()) -> list[Unit]:
    """The units of an atlas: those listed, all channels, or a number of them.

    For a number: first the preferred ones, then the most selective. A channel is selective when its strongest images
    are far above its mean, in standard deviations; the layers take turns.

    Args:
        plan: The plan.
        preferred: Channels that classes rest on, the heaviest first.

    Returns:
        The units, a list's in its order, others in the network's.
    """
    choice, encoder = plan.settings.features, plan.encoder
    if isinstance(choice, tuple):
        return [parse_unit(text, encoder) for text in expand_units(choice)]
    everything = [
        channel_unit(layer, channel) for layer in plan.layers for channel in range(encoder.layer(layer).channels)
    ]
    if choice == "all" or not isinstance(choice, int) or choice >= len(everything):
        return everything
    queues = []
    for layer in plan.layers:
        probed = plan.probes[layer]
        top = np.sort(probed.values, axis=0)[-min(10, len(probed)) :].mean(0)
        spread = np.where(probed.std > 0, probed.std, 1)
        selectivity = np.where(probed.std > 0, (top - probed.mean) / spread, -np.inf)
        queues.append([channel_unit(layer, int(channel)) for channel in np.argsort(-selectivity, kind="stable")])
    turns = [unit for turn in zip(*queues, strict=False) for unit in turn]
    rest = [unit for queue in queues for unit in queue]
    chosen = list(dict.fromkeys([*preferred, *turns, *rest]))[:choice]
    order = {unit: index for index, unit in enumerate(everything)}
    return sorted(chosen, key=lambda unit: order.get(unit, len(order)))


def expand_units(listed: Sequence[str]) -> list[str]:
    """A list of units in which a bare number is another channel of the layer before it.

    Args:
        listed: As a user gives them.

    Returns:
        Every unit in full, each once.

    Example:
        >>> expand_units(["layer4:485", "12", "layer3:7"])
        ['layer4:485', 'layer4:12', 'layer3:7']
    """
    units: list[str] = []
    for item in listed:
        if item.isdigit() and units and ":" in units[-1]:
            item = f"{units[-1].rpartition(':')[0]}:{item}"
        units.append(item)
    return list(dict.fromkeys(units))


def collect_values(
    plan: BuildPlan, units: Sequence[Unit]
) -> tuple[Float[np.ndarray, "units images"], Float[np.ndarray, " units"], Float[np.ndarray, " units"]]:
    """Every unit's value on every image.

    Args:
        plan: The plan; what a unit needs and was not probed yet is probed.
        units: The units.

    Returns:
        The values, and their mean and standard deviation over the images.
    """
    from encoscope.units import unit_weights

    rows = []
    for unit in units:
        if unit.space not in plan.probes:
            plan.probes[unit.space] = probe(plan.encoder, plan.files, unit.space, progress=plan.progress)
        values = plan.probes[unit.space].values
        rows.append(
            values[:, unit.index] if len(unit.channels) == 1 else values @ unit_weights(unit, plan.encoder).numpy()
        )
    values = np.stack(rows).astype(np.float64)
    return values, values.mean(1), values.std(1)


def name_class(encoder: Encoder, index: int) -> str:
    """How a class is called on the pages.

    Args:
        encoder: The encoder.
        index: Of the class in the network's output.

    Returns:
        Its name; its index where the encoder has no names.
    """
    return encoder.classes[index] if encoder.classes is not None else str(index)


def describe_source(source: Any) -> str:
    """A dataset as the manifest names it, without the folders of this machine: pages may be shown to others.

    Args:
        source: A dataset string, a path, or a list.

    Returns:
        Of a path the last folder, of a list its length.
    """
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        name, colon, rest = text.partition(":") if is_dataset(text) else ("", "", text)
        root, split, after = rest.partition("#") if colon else (rest, "", "")
        return f"{name}{colon}{Path(root).resolve().name}{split}{Path(after).name}"
    return f"{len(source)} files" if hasattr(source, "__len__") else type(source).__name__


def _match_labels(encoder: Encoder, labels: Sequence[str | None]) -> tuple[tuple[int | None, ...], str]:
    """The class of each image's label, and how labels were matched.

    Labels that stand for no class stay labels, and what is ambiguous is said.
    """
    known = [label for label in labels if label is not None]
    if encoder.outputs is None or not known:
        return (None,) * len(labels), ""
    matches = match_labels(encoder, known)
    for match in matches.values():
        if match.how == "ambiguous":
            _log.warning("the label %r could be several classes, so its images count for none", match.label)
    indices = tuple(None if label is None else matches[label].index for label in labels)
    return indices, count_matches(matches.values())


def _choose_layers(encoder: Encoder, settings: AtlasSettings) -> tuple[str, ...]:
    if settings.layers:
        chosen = dict.fromkeys(settings.layers)
    elif isinstance(settings.features, tuple):
        units = [parse_unit(text, encoder) for text in expand_units(settings.features)]
        chosen = dict.fromkeys(unit.layer for unit in units if unit.layer is not None)
    else:
        chosen = {}
    if not chosen:
        return choose_layers(encoder)
    names = [info.name for info in encoder.layers]
    return tuple(sorted({encoder.layer(name).name for name in chosen}, key=names.index))


def _find_pooled(layers: Sequence[str], probes: dict[str, Probe]) -> str | None:
    """The layer whose channels' spatial means are the features: then its units feed classes by the head's weights."""
    features = np.asarray(probes["features"].values[:64])
    for layer in reversed(layers):
        values = np.asarray(probes[layer].values[:64])
        if values.shape == features.shape and np.allclose(
            values, features, rtol=1e-3, atol=1e-4 * np.abs(features).max()
        ):
            return layer
    return None


def _choose_classes(plan: BuildPlan) -> tuple[int, ...]:
    choice, outputs = plan.settings.classes, plan.encoder.outputs
    if outputs is None or choice == "none":
        return ()
    if choice == "all":
        return tuple(range(outputs))
    labelled = Counter(plan.label_classes)
    predicted = Counter(plan.probes["logits"].values.argmax(1).tolist())

    def rank(index: int) -> tuple[int, int, int]:
        return -labelled[index], -predicted[index], index

    ordered = sorted(range(outputs), key=rank)
    return tuple(sorted(ordered[: int(choice)]))
