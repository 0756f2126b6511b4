"""Classes: their most typical images, the channels they rest on, and the images they are missed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoscope.atlas.build.images import chance, probabilities
from encoscope.atlas.build.plan import BuildPlan, class_text
from encoscope.atlas.records import (
    CircuitLayer,
    CircuitLink,
    ClassRecord,
    CropRecord,
    Failure,
    ImageRecord,
    Measure,
    Picture,
)
from encoscope.atlas.writer import Writer
from encoscope.progress import track
from encoscope.relevance import choose_method, compute_channel_relevance
from encoscope.units import Unit, channel_unit, parse_unit

_IMAGES, _CHANNELS, _FAILURES, _DRIVERS, _EXAMPLES = 6, 5, 4, 4, 4
_FOR_RELEVANCE = 24  # images of a class that its circuit is averaged over


def add_classes(writer: Writer, made: BuildPlan) -> None:
    """A record of every class: images, accuracy, circuit, failures."""
    shares = probabilities(made)
    if shares is None:
        return
    for place, index in enumerate(track(made.classes, len(made.classes), "classes", made.progress)):
        record = writer.get(ClassRecord, str(index))
        rows = made.of_class(index)
        found = ClassRecord(
            class_text(made.encoder, index),
            index,
            images=_typical(writer, made, index),
            accuracy=_accuracy(made, shares, index, rows),
            failures=_failures(writer, made, shares, index, rows),
        )
        if record is None or not record.circuit:
            found = ClassRecord(
                **{**found.__dict__, "circuit": _circuit(writer, made, index, rows), "circuit_method": _method(made)}
            )
        writer.add(found)
        writer.stage("classes", place + 1, len(made.classes))
    writer.stage("classes", len(made.classes), len(made.classes))


def channels_of(writer: Writer, made: BuildPlan) -> list[Unit]:
    """The channels that classes rest on and failures come from: the heaviest of every class first, then the second, ...

    Failures name channels where the head reads a layer's means; other features have no map to be pictured by.
    """
    records = list(writer.records(ClassRecord))
    circuits = [layer.channels for record in records for layer in reversed(record.circuit)]
    drivers = [failure.drivers for record in records for failure in record.failures] if made.pooled else []
    found: dict[Unit, None] = {}
    for rank in range(max(_CHANNELS, _DRIVERS)):
        for links in (*circuits, *drivers):
            if rank < len(links):
                layer, _, channel = links[rank].target.rpartition(":")
                found[channel_unit(layer, int(channel))] = None
    return list(found)


def _typical(writer: Writer, made: BuildPlan, index: int) -> tuple[CropRecord, ...]:
    logits = np.asarray(made.probes["logits"].values[:, index], dtype=np.float64)
    best = np.argsort(-logits, kind="stable")[:_IMAGES]
    mean = _round(float(logits.mean()))
    found = []
    for row in best.tolist():
        value = Measure(_round(float(logits[row])), "its logit", mean, "mean over all images")
        image = writer.get(ImageRecord, made.any.ids[row])
        if image is not None and image.thumbnail is not None:
            found.append(CropRecord(image.id, image.thumbnail, value))
    return tuple(found)


def _accuracy(made: BuildPlan, shares: np.ndarray, index: int, rows: Sequence[int]) -> Measure | None:
    if not rows:
        return None
    right = float((shares[list(rows)].argmax(1) == index).mean())
    control, name = chance(made)
    return Measure(_round(right), f"of its {len(rows)} images here are recognised", control, name)


def _circuit(writer: Writer, made: BuildPlan, index: int, rows: Sequence[int]) -> tuple[CircuitLayer, ...]:
    """The heaviest channels of each layer, by their share of the layer's positive relevance over the class's images."""
    if not rows:
        return ()
    unit = parse_unit(f"class:{index}", made.encoder)
    files = [made.file(made.any.ids[row]) for row in rows[:_FOR_RELEVANCE]]
    found = []
    for layer in made.layers:
        relevance = (
            compute_channel_relevance(made.encoder, files, unit, layer, progress=False).numpy().astype(np.float64)
        )
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
                _examples(writer, made, layer, channel),
            )
            for channel in best.tolist()
            if relevance[channel] > 0
        )
        found.append(CircuitLayer(layer, links))
    return tuple(found)


def _method(made: BuildPlan) -> str:
    method = str(choose_method(made.encoder))
    names = {"lrp": "layer-wise relevance propagation", "gradient-input": "gradient times input"}
    return f"{names.get(method, method)}, summed over space, mean over up to {_FOR_RELEVANCE} of the class's images"


def _failures(
    writer: Writer, made: BuildPlan, shares: np.ndarray, index: int, rows: Sequence[int]
) -> tuple[Failure, ...]:
    """Images of the class that are taken for another, the surest first, with h (.) U of the predicted class."""
    wrong = [row for row in rows if shares[row].argmax() != index]
    wrong.sort(key=lambda row: -shares[row].max())
    control, name = chance(made)
    found = []
    for row in wrong[:_FAILURES]:
        image = writer.get(ImageRecord, made.any.ids[row])
        if image is None or image.thumbnail is None:
            continue
        predicted = int(shares[row].argmax())
        found.append(
            Failure(
                image.id,
                image.thumbnail,
                class_text(made.encoder, predicted),
                Measure(_round(shares[row, predicted]), "probability", control, name),
                _drivers(writer, made, row, predicted),
            )
        )
    return tuple(found)


def _drivers(writer: Writer, made: BuildPlan, row: int, predicted: int) -> tuple[CircuitLink, ...]:
    head = made.encoder.head
    if head is None or "features" not in made.probes:
        return ()
    features = made.probes["features"]
    weight = head.weight.detach().cpu().numpy()[predicted].astype(np.float64)
    share = np.asarray(features.values[row], dtype=np.float64) * weight
    usual = features.mean * weight
    place = "features" if made.pooled is None else made.pooled
    return tuple(
        CircuitLink(
            f"{place}:{feature}",
            Measure(_round(share[feature]), "logits for what it was taken for", _round(usual[feature]), "on average"),
            _examples(writer, made, "features", feature),
        )
        for feature in np.argsort(-share, kind="stable")[:_DRIVERS].tolist()
    )


def _examples(writer: Writer, made: BuildPlan, probed: str, channel: int) -> tuple[Picture, ...]:
    """The images on which a channel is strongest: it may be none of the features that the atlas describes."""
    values = made.probes[probed].values[:, channel]
    images = (writer.get(ImageRecord, made.any.ids[row]) for row in np.argsort(-values, kind="stable")[:_EXAMPLES])
    return tuple(image.thumbnail for image in images if image is not None and image.thumbnail is not None)


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
