"""What VITAL's and FALCON's experiments are given: a model for each network of the paper, photos with its classes."""

from __future__ import annotations

from collections.abc import Sequence

from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.report import EvaluationRequest
from encoscope.images import LabelledImages
from encoscope.reproduce.vital.published import STAND_INS, WEIGHTS
from encoscope.units import find_class_label


def networks(request: EvaluationRequest, names: Sequence[str]) -> dict[str, str]:
    """The model of each of the paper's networks, by its name.

    "NAME=MODEL" names the network it is or stands for; "paper" takes the paper's weights; another model is the network
    whose weights it names, or stands for the first one without a model. Nothing given: the zoo's stand-ins.
    """
    if not request.models:
        return {name: STAND_INS[name] for name in names if name in STAND_INS}
    found: dict[str, str] = {}
    plain = [text for text in request.models if "=" not in text]
    for text in request.models:
        name, equals, model = text.partition("=")
        if equals and name not in names:
            raise UsageError(f"no network {name!r}{suggest_nearest(name, names)}: there are {', '.join(names)}")
        found |= {name: model} if equals else {}
    if "paper" in plain:
        found |= {name: WEIGHTS[name] for name in names if name not in found}
    known = {WEIGHTS[name]: name for name in names}
    for text in plain:
        name = known.get(text) or next((name for name in names if name not in found), None)
        if text != "paper" and name is not None:
            found[name] = text
    return {name: found[name] for name in names if name in found}


def held_out(datasets: Sequence[str]) -> str | None:
    """The dataset of the photos that pictures are compared with; None where there is none but the references'."""
    if len(datasets) > 1:
        return datasets[1]
    return f"{datasets[0].removesuffix('#train')}#test" if datasets[0].endswith("#train") else None


def of_the_network(encoder: Encoder, photos: LabelledImages, text: str) -> LabelledImages:
    """The photos labelled with the network's classes, those of other labels left out. UsageError where none is left."""
    if encoder.outputs is None:
        raise UsageError(f"{encoder.source} is no classifier: VITAL's experiments picture classes")
    if not photos.labels:
        raise UsageError(f"{text!r} has no labels: name labelled photos, such as caltech101:ROOT#train")
    place: dict[str, int] = {}
    for index in range(encoder.outputs):
        label = find_class_label(encoder, index, photos.classes)
        if label is not None:
            place.setdefault(label, index)
    kept = [
        (path, place[photos.classes[label]])
        for path, label in zip(photos.paths, photos.labels, strict=True)
        if photos.classes[label] in place
    ]
    if not kept:
        raise UsageError(
            f"no label of {text!r} is a class of {encoder.source}: give photos of its classes, in folders of their "
            "names (for ImageNet, of their WordNet numbers)"
        )
    names = encoder.classes or tuple(map(str, range(encoder.outputs)))
    return LabelledImages(tuple(path for path, _ in kept), tuple(label for _, label in kept), names)
