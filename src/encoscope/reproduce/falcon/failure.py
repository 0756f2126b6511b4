"""Why a classifier fails, in words (FALCON): the features behind an answer, and what the answer is without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import FailureExplanation, explain_failure
from encoscope.images import open_dataset
from encoscope.plots import draw_contact_sheet
from encoscope.progress import track, track_steps
from encoscope.reproduce.falcon.harness import DEFAULTS, encoders, fitted, report, words
from encoscope.reproduce.inputs import held_out, of_the_network

_RANDOM = 100  # draws of other features, the control of a failure's explanation
_BATCH = 64


def failure(request: EvaluationRequest) -> Report:
    """Photos that the classifier takes for another class: the features behind it, in words."""
    asked = request.settings({**DEFAULTS, "top": 3})
    (encoder,) = encoders(request, None)[:1]
    other = held_out(request.datasets) or (request.datasets[0] if request.datasets else "")
    falcon = fitted(request, asked, encoder)
    wrong = misclassified(encoder, other, request.limit or 3, request)
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for path, label in track(wrong, len(wrong), "photos", request.progress):
        found = explain_failure(encoder, path, label=label, top=asked["top"], falcon=falcon)
        name = "/".join(path.parts[-2:])
        rows += _features(found, name)
        rows.append(_without(encoder, found, path, name, request.seed))
        cells += _pictured(found, path, asked["top"])
    notes = [
        f"Photos of the test set that are taken for another class, at random; for: the {asked['top']} features of the "
        "largest part in the logit, h (.) U; against: those that speak most for the right class over the answer.",
        "answer without: the class when these features are 0; share of random: how often the answer changes when as "
        f"many other active features are ({_RANDOM} draws).",
        "concepts in brackets are soft-WPMI's, where FALCON has none.",
    ]
    return report(
        "falcon-failure",
        "why a classifier fails",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        pictures={"falcon-failure": Image.fromarray(_sheet(cells, 1 + asked["top"]))},
    )


def misclassified(encoder: Encoder, text: str, count: int, request: EvaluationRequest) -> list[tuple[Path, int]]:
    """Photos at random that are taken for another class, with their own. UsageError where there is none."""
    photos = of_the_network(encoder, open_dataset(text), text)
    order = np.random.default_rng(request.seed).permutation(len(photos)).tolist()
    found: list[tuple[Path, int]] = []
    with track_steps(len(order), "looking for failures", request.progress) as step:
        for first in range(0, len(order), _BATCH):
            rows = order[first : first + _BATCH]
            answers = encoder.logits([photos.paths[row] for row in rows]).argmax(1).tolist()
            pairs = zip(rows, answers, strict=True)
            found += [(photos.paths[row], photos.labels[row]) for row, said in pairs if said != photos.labels[row]]
            step(len(rows))
            if len(found) >= count:
                break
    if not found:
        raise UsageError(f"{encoder.source} takes every photo of {text} for its class: give harder ones")
    return found[:count]


def changed(
    encoder: Encoder, h: Float[np.ndarray, " features"], removed: Sequence[int], seed: int
) -> tuple[int, float]:
    """The answer when some features are 0, and how often it changes when as many other active ones are."""
    head = encoder.head
    assert head is not None  # the explanation has been made
    weight = head.weight.detach().float().cpu().numpy().astype(np.float64)
    bias = 0.0 if head.bias is None else head.bias.detach().float().cpu().numpy().astype(np.float64)

    def answer(without: Sequence[int]) -> int:
        kept = h.astype(np.float64).copy()
        kept[list(without)] = 0
        return int((weight @ kept + bias).argmax())

    usual = answer([])
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.flatnonzero(h), removed)
    number = min(len(removed), len(others))
    draws = [answer(rng.choice(others, number, replace=False).tolist()) != usual for _ in range(_RANDOM)]
    return answer(removed), float(np.mean(draws))


def _features(found: FailureExplanation, name: str) -> list[dict[str, Any]]:
    rows = []
    for role, items in (("for", found.features), ("against", found.against)):
        for item in items:
            text = item.description
            rows.append(
                {
                    **_blank(found, name),
                    "role": role,
                    "feature": f"features:{item.feature}",
                    "contribution": item.contribution,
                    "concepts": None if text is None else words(text) if text.explained else f"({words(text)})",
                }
            )
    return rows


def _without(encoder: Encoder, found: FailureExplanation, path: Path, name: str, seed: int) -> dict[str, Any]:
    h = encoder.features(path)[0].cpu().numpy()
    answer, often = changed(encoder, h, [item.feature for item in found.features], seed)
    row = _blank(found, name) | {"role": "for, together", "feature": f"{len(found.features)} features"}
    row["contribution"] = float(sum(item.contribution for item in found.features))
    label = str(answer) if encoder.classes is None else encoder.classes[answer]
    return row | {"answer without": label, "share of random": often}


def _blank(found: FailureExplanation, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"photo": name, "actual": found.actual, "predicted": found.predicted}
    row |= {"probability": found.probability, "logit": found.logit}
    names = ("role", "feature", "contribution", "concepts", "answer without", "share of random")
    return row | dict.fromkeys(names)


def _pictured(found: FailureExplanation, path: Path, top: int) -> list[tuple[Any, str]]:
    """The photo, and each feature's strongest photo's crop under its concepts."""
    with Image.open(path) as opened:
        cells: list[tuple[Any, str]] = [(opened.convert("RGB"), f"{found.actual}, taken for {found.predicted}")]
    for item in found.features[:top]:
        text = item.description
        crop = text.high[0].crop if text is not None and text.high else np.full((64, 64, 3), 255, np.uint8)
        about = "" if text is None else words(text, 3)
        cells.append((crop, f"features:{item.feature}: {about}"))
    blank = (np.full((64, 64, 3), 255, np.uint8), "")
    return cells + [blank] * (1 + top - len(cells))


def _sheet(cells: Sequence[tuple[Any, str]], columns: int) -> np.ndarray:
    return draw_contact_sheet([picture for picture, _ in cells], [caption for _, caption in cells], columns, cell=220)
