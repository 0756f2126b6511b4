"""Which features drove a prediction, in words: argmax of h (.) U_y, the representation times the class's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.falcon.description import Description, Descriptions
from encoscope.falcon.estimator import Falcon
from encoscope.images import read_image
from encoscope.units import Unit, find_class_index


@dataclass(frozen=True)
class Contribution:
    """A feature's part in a logit: its value times its weight, and the feature in words where it was described."""

    feature: int
    value: float
    weight: float
    contribution: float
    description: Description | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        plain = {"unit": f"features:{self.feature}", "value": self.value, "weight": self.weight}
        return plain | {"contribution": self.contribution}


@dataclass(frozen=True)
class FailureExplanation:
    """Why an image was taken for a class.

    predicted, actual: class names (or numbers); actual is None where it was not told. probability: of the prediction,
    after a softmax. features: the most contributing, largest first. against: those that speak most for the actual
    class over the predicted one; empty where the actual class was not told or is the predicted one. bias: of the
    logit. logit: which all features' contributions and the bias add up to.
    """

    path: str | None
    predicted: str
    actual: str | None
    probability: float
    logit: float
    bias: float
    features: tuple[Contribution, ...]
    against: tuple[Contribution, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document, without descriptions."""
        plain = {name: getattr(self, name) for name in ("path", "predicted", "actual", "probability", "logit", "bias")}
        return plain | {
            "features": [item.as_dict() for item in self.features],
            "against": [item.as_dict() for item in self.against],
        }


def explain_failure(
    encoder: Encoder, image: Any, *, label: str | int | None = None, top: int = 5, falcon: Falcon | None = None
) -> FailureExplanation:
    """The features that contribute most to what an image is taken for, described if a fitted Falcon is given.

    image: one image, as ``read`` takes it. label: the class it is of, by name or number; then the features that speak
    for it against the prediction are given as well. top: how many of each.

    Raises UsageError for an encoder without a linear head, an unknown label, and ``top`` below 1.
    """
    head = encoder.head
    if head is None:
        raise UsageError(f"{encoder.source} has no linear head, so no feature's part in a prediction can be told")
    if top < 1:
        raise UsageError(f"top is a number of features from 1 on, not {top}")
    photo = read_image(image, channels=encoder.preprocess.channels)
    with torch.no_grad():
        h = encoder.features(photo)[0].cpu()
        weight, bias = head.weight.detach().float().cpu(), head.bias
        offset = torch.zeros(len(weight)) if bias is None else bias.detach().float().cpu()
        logits = weight @ h + offset
    predicted = int(logits.argmax())
    actual = None if label is None else _class(label, encoder, len(weight))
    found = FailureExplanation(
        path=photo.path,
        predicted=_name(predicted, encoder),
        actual=None if actual is None else _name(actual, encoder),
        probability=float(logits.softmax(0)[predicted]),
        logit=float(logits[predicted]),
        bias=float(offset[predicted]),
        features=_largest(h, weight[predicted], top),
        against=() if actual in (None, predicted) else _largest(h, weight[actual] - weight[predicted], top),
    )
    return found if falcon is None else describe_contributions(found, falcon)


def describe_contributions(found: FailureExplanation, falcon: Falcon) -> FailureExplanation:
    """The same with its features in words; all are described together."""
    items = [*found.features, *found.against]
    units = [Unit(f"features:{item.feature}", "features", channels=(item.feature,)) for item in items]
    texts = falcon.describe(list(dict.fromkeys(units)))
    by_unit = {item.unit: item for item in (texts if isinstance(texts, Descriptions) else [texts])}

    def with_words(parts: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
        return tuple(replace(part, description=by_unit[f"features:{part.feature}"]) for part in parts)

    return replace(found, features=with_words(found.features), against=with_words(found.against))


def build_failure_document(
    found: FailureExplanation, encoder: Encoder, settings: Mapping[str, Any], seed: int
) -> results.Document:
    """The explanation as a result document: the features' descriptions, each with its part in the prediction."""
    entries = []
    for role, items in (("for", found.features), ("against", found.against)):
        for item in items:
            words = {} if item.description is None else item.description.entry()
            entries.append({**words, **item.as_dict(), "role": role})
    model = {"source": encoder.source, "digest": encoder.digest, "layers": ["features"]}
    whole = results.envelope("description", entries, model=model, settings=settings, seed=seed)
    plain = {name: value for name, value in found.as_dict().items() if name not in ("features", "against")}
    return whole | {"prediction": plain}


def _largest(h: torch.Tensor, weight: torch.Tensor, top: int) -> tuple[Contribution, ...]:
    parts = h * weight
    chosen = parts.sort(descending=True, stable=True).indices[:top].tolist()
    return tuple(Contribution(i, float(h[i]), float(weight[i]), float(parts[i])) for i in chosen)


def _class(label: str | int, encoder: Encoder, count: int) -> int:
    text = str(label)
    if text.isascii() and text.isdigit():
        if int(text) >= count:
            raise UsageError(f"there is no class {text}: {encoder.source} has {count}, 0 to {count - 1}")
        return int(text)
    if encoder.classes is None:
        raise UsageError(f"{encoder.source} has no class names: give the label as a number from 0 to {count - 1}")
    return find_class_index(text, encoder.classes)


def _name(index: int, encoder: Encoder) -> str:
    return str(index) if encoder.classes is None else encoder.classes[index]
