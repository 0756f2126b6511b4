"""Classes: their most typical images, the channels they rest on, and the images that are taken for another class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoscope.atlas.build.images import compute_chance, compute_probabilities
from encoscope.atlas.build.plan import BuildPlan, name_class
from encoscope.atlas.records import (
    CircuitLayer,
    CircuitLink,
    ClassRecord,
    CropRecord,
    Failure,
    ImageFile,
    ImageRecord,
    Measure,
)
from encoscope.atlas.writer import Writer
from encoscope.progress import track
from encoscope.relevance import choose_method, compute_channel_relevance
from encoscope.units import Unit, channel_unit, parse_unit

_IMAGES, _CHANNELS, _FAILURES, _DRIVERS, _EXAMPLES = 6, 5, 4, 4, 4
_RELEVANCE_IMAGES = 24  # images of a class that its circuit is averaged over


def add_classes(writer: Writer, plan: BuildPlan) -> None:
    """Add a record of every class: images, accuracy, circuit, failures.

    Args:
        writer: Of the site.
        plan: What the atlas holds; a network without a classifier has no classes.
    """
    shares = compute_probabilities(plan)
    if shares is None:
        return
    for done, index in enumerate(track(plan.classes, len(plan.classes), "classes", plan.progress), 1):
        previous = writer.get(ClassRecord, str(index))
        rows = plan.rows_of_class(index)
        record = ClassRecord(
            name_class(plan.encoder, index),
            index,
            images=_find_typical(writer, plan, index),
            accuracy=_measure_accuracy(plan, shares, index, rows),
            failures=_find_failures(writer, plan, shares, index, rows),
        )
        if previous is None or not previous.circuit:
            circuit = _compute_circuit(writer, plan, index, rows)
            record = replace(record, circuit=circuit, circuit_method=_name_method(plan))
        writer.add(record)
        writer.set_stage("classes", done, len(plan.classes))
    writer.set_stage("classes", len(plan.classes), len(plan.classes))


def list_channels(writer: Writer, plan: BuildPlan) -> list[Unit]:
    """The channels that classes rest on and failures come from.

    Failures name channels only where the head reads a layer's means; other features have no map to visualize.

    Args:
        writer: Of a site whose classes are there.
        plan: What the atlas holds.

    Returns:
        The heaviest channel of every class first, then the second, ...
    """
    records = list(writer.records(ClassRecord))
    circuits = [layer.channels for record in records for layer in reversed(record.circuit)]
    drivers = [failure.drivers for record in records for failure in record.failures] if plan.pooled else []
    units: dict[Unit, None] = {}
    for rank in range(max(_CHANNELS, _DRIVERS)):
        for links in (*circuits, *drivers):
            if rank < len(links):
                layer, _, channel = links[rank].target.rpartition(":")
                units[channel_unit(layer, int(channel))] = None
    return list(units)


def _find_typical(writer: Writer, plan: BuildPlan, index: int) -> tuple[CropRecord, ...]:
    """The images with the highest logits of a class."""
    logits = np.asarray(plan.probes["logits"].values[:, index], dtype=np.float64)
    best = np.argsort(-logits, kind="stable")[:_IMAGES]
    mean = _round(float(logits.mean()))
    crops = []
    for row in best.tolist():
        value = Measure(_round(float(logits[row])), "its logit", mean, "mean over all images")
        image = writer.get(ImageRecord, plan.ids[row])
        if image is not None and image.thumbnail is not None:
            crops.append(CropRecord(image.id, image.thumbnail, value))
    return tuple(crops)


def _measure_accuracy(plan: BuildPlan, shares: np.ndarray, index: int, rows: Sequence[int]) -> Measure | None:
    if not rows:
        return None
    right = float((shares[list(rows)].argmax(1) == index).mean())
    control, name = compute_chance(plan)
    return Measure(_round(right), f"of its {len(rows)} images here are recognized", control, name)


def _compute_circuit(writer: Writer, plan: BuildPlan, index: int, rows: Sequence[int]) -> tuple[CircuitLayer, ...]:
    """The heaviest channels of each layer, by their share of the layer's positive relevance over the class's images."""
    if not rows:
        return ()
    unit = parse_unit(f"class:{index}", plan.encoder)
    files = [plan.file_of(plan.ids[row]) for row in rows[:_RELEVANCE_IMAGES]]
    layers = []
    for layer in plan.layers:
        values = compute_channel_relevance(plan.encoder, files, unit, layer, progress=False)
        relevance = values.numpy().astype(np.float64)
        total = relevance.clip(min=0).sum()
        if total <= 0:
            continue
        best = np.argsort(-relevance, kind="stable")[:_CHANNELS]
        links = tuple(
            CircuitLink(
                f"{layer}:{channel}",
                Measure(
                    _round(100 * relevance[channel] / total),
                    "% of the layer's positive relevance",
                    _round(100 / len(relevance)),
                    f"an equal share of its {len(relevance)} channels",
                ),
                _find_examples(writer, plan, layer, channel),
            )
            for channel in best.tolist()
            if relevance[channel] > 0
        )
        layers.append(CircuitLayer(layer, links))
    return tuple(layers)


def _name_method(plan: BuildPlan) -> str:
    method = str(choose_method(plan.encoder))
    names = {"lrp": "layer-wise relevance propagation", "gradient-input": "gradient times input"}
    count = f"mean over up to {_RELEVANCE_IMAGES} of the class's images"
    return f"{names.get(method, method)}, summed over space, {count}"


def _find_failures(
    writer: Writer, plan: BuildPlan, shares: np.ndarray, index: int, rows: Sequence[int]
) -> tuple[Failure, ...]:
    """Images of the class that are taken for another, the most confident first."""
    wrong = [row for row in rows if shares[row].argmax() != index]
    wrong.sort(key=lambda row: -shares[row].max())
    control, name = compute_chance(plan)
    failures = []
    for row in wrong[:_FAILURES]:
        image = writer.get(ImageRecord, plan.ids[row])
        if image is None or image.thumbnail is None:
            continue
        predicted = int(shares[row].argmax())
        failures.append(
            Failure(
                image.id,
                image.thumbnail,
                name_class(plan.encoder, predicted),
                Measure(_round(shares[row, predicted]), "probability", control, name),
                _find_drivers(writer, plan, row, predicted),
            )
        )
    return tuple(failures)


def _find_drivers(writer: Writer, plan: BuildPlan, row: int, predicted: int) -> tuple[CircuitLink, ...]:
    """The features with the largest products of value and weight of the predicted class."""
    head = plan.encoder.head
    if head is None or "features" not in plan.probes:
        return ()
    features = plan.probes["features"]
    weight = head.weight.detach().cpu().numpy()[predicted].astype(np.float64)
    effect = np.asarray(features.values[row], dtype=np.float64) * weight
    average = features.mean * weight
    layer = "features" if plan.pooled is None else plan.pooled
    return tuple(
        CircuitLink(
            f"{layer}:{feature}",
            Measure(
                _round(effect[feature]), "logits for what it was taken for", _round(average[feature]), "on average"
            ),
            _find_examples(writer, plan, "features", feature),
        )
        for feature in np.argsort(-effect, kind="stable")[:_DRIVERS].tolist()
    )


def _find_examples(writer: Writer, plan: BuildPlan, probed: str, channel: int) -> tuple[ImageFile, ...]:
    """The images on which a channel is strongest: it may be none of the features that the atlas describes."""
    values = plan.probes[probed].values[:, channel]
    images = (writer.get(ImageRecord, plan.ids[row]) for row in np.argsort(-values, kind="stable")[:_EXAMPLES])
    return tuple(image.thumbnail for image in images if image is not None and image.thumbnail is not None)


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
