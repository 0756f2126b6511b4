"""Why a classifier fails, in words (FALCON): the features behind an answer, and the answer without them."""

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
from encoscope.evaluation.runner import shorten_dataset
from encoscope.falcon import FailureExplanation, explain_failure
from encoscope.progress import track, track_steps
from encoscope.reproduce.falcon.harness import DEFAULTS, STAND_IN, build_report, fit_falcon, join_words
from encoscope.reproduce.inputs import choose_heldout_dataset, describe_matching, load_encoders, select_network_classes
from encoscope.reproduce.sheets import Cell, blank_cell, draw_sheet

_RANDOM = 100  # draws of other features, the control of a failure's explanation
_BATCH = 64


def run(request: EvaluationRequest) -> Report:
    """Explain in words why images are taken for another class.

    Args:
        request: the experiment's request.

    Returns:
        A table of the features behind each wrong answer, with a sheet.
    """
    settings = request.settings({**DEFAULTS, "top": 3})
    (encoder,) = load_encoders(request, (STAND_IN,), ())[:1]
    heldout = choose_heldout_dataset(request.datasets) or (request.datasets[0] if request.datasets else "")
    falcon = fit_falcon(request, settings, encoder)
    wrong = find_misclassified(encoder, heldout, request.limit or 3, request)
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    for path, label in track(wrong, len(wrong), "images", request.progress):
        explanation = explain_failure(encoder, path, label=label, n_features=settings["top"], falcon=falcon)
        name = "/".join(path.parts[-2:])
        rows += _feature_rows(explanation, name)
        rows.append(_removal_row(encoder, explanation, path, name, request.seed))
        cells += _draw_failure(explanation, path, settings["top"])
    notes = [
        f"Images of the test set that are taken for another class, at random; for: the {settings['top']} features "
        "with the largest share in the logit, h (.) U; against: those that add most to the right class's logit over "
        "the answer's.",
        "answer without: the class when these features are 0; share of random: how often the answer changes when as "
        f"many other active features are ({_RANDOM} draws).",
        "concepts in brackets are soft-WPMI's, where FALCON has none.",
        describe_matching(encoder, heldout, shorten_dataset(heldout)),
    ]
    return build_report(
        "falcon-failure",
        "why a classifier fails",
        rows,
        falcon,
        request,
        settings,
        notes=notes,
        sheets={"falcon-failure": draw_sheet(cells, 1 + settings["top"], cell=220)},
    )


def find_misclassified(
    encoder: Encoder, dataset: str, count: int, request: EvaluationRequest
) -> list[tuple[Path, int]]:
    """Find images, at random, that are taken for another class.

    Args:
        encoder: the classifier.
        dataset: dataset string of labelled images.
        count: number of images.
        request: its seed draws the images.

    Returns:
        Image files, each with its own class.

    Raises:
        UsageError: if no image is taken for another class.
    """
    images = select_network_classes(encoder, dataset, dataset)
    order = np.random.default_rng(request.seed).permutation(len(images)).tolist()
    misclassified: list[tuple[Path, int]] = []
    with track_steps(len(order), "looking for failures", request.progress) as step:
        for first in range(0, len(order), _BATCH):
            rows = order[first : first + _BATCH]
            answers = encoder.logits([images.paths[row] for row in rows]).argmax(1).tolist()
            pairs = zip(rows, answers, strict=True)
            misclassified += [
                (images.paths[row], images.labels[row]) for row, answer in pairs if answer != images.labels[row]
            ]
            step(len(rows))
            if len(misclassified) >= count:
                break
    if not misclassified:
        raise UsageError(f"{encoder.source} takes every image of {dataset} for its class: give harder ones")
    return misclassified[:count]


def remove_features(
    encoder: Encoder, h: Float[np.ndarray, " features"], removed: Sequence[int], random_state: int
) -> tuple[int, float]:
    """Compute the answer when features are 0, and how often it changes when as many other active ones are.

    Args:
        encoder: the classifier.
        h: the pooled features of an image.
        removed: features that are set to 0.
        random_state: seed of the 100 draws of other features.

    Returns:
        The class without the features, and a share from 0 to 1.
    """
    head = encoder.head
    assert head is not None  # an explanation needs a head
    weight = head.weight.detach().float().cpu().numpy().astype(np.float64)
    bias = 0.0 if head.bias is None else head.bias.detach().float().cpu().numpy().astype(np.float64)

    def answer(without: Sequence[int]) -> int:
        kept = h.astype(np.float64).copy()
        kept[list(without)] = 0
        return int((weight @ kept + bias).argmax())

    original = answer([])
    rng = np.random.default_rng(random_state)
    others = np.setdiff1d(np.flatnonzero(h), removed)
    number = min(len(removed), len(others))
    draws = [answer(rng.choice(others, number, replace=False).tolist()) != original for _ in range(_RANDOM)]
    return answer(removed), float(np.mean(draws))


def _feature_rows(explanation: FailureExplanation, name: str) -> list[dict[str, Any]]:
    rows = []
    for role, items in (("for", explanation.features), ("against", explanation.against)):
        for item in items:
            text = item.description
            rows.append(
                {
                    **_empty_row(explanation, name),
                    "role": role,
                    "feature": f"features:{item.feature}",
                    "contribution": item.contribution,
                    "concepts": None
                    if text is None
                    else join_words(text)
                    if text.explained
                    else f"({join_words(text)})",
                }
            )
    return rows


def _removal_row(
    encoder: Encoder, explanation: FailureExplanation, path: Path, name: str, random_state: int
) -> dict[str, Any]:
    h = encoder.features(path)[0].cpu().numpy()
    answer, often = remove_features(encoder, h, [item.feature for item in explanation.features], random_state)
    row = _empty_row(explanation, name) | {"role": "for, together", "feature": f"{len(explanation.features)} features"}
    row["contribution"] = float(sum(item.contribution for item in explanation.features))
    label = str(answer) if encoder.classes is None else encoder.classes[answer]
    return row | {"answer without": label, "share of random": often}


def _empty_row(explanation: FailureExplanation, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"photo": name, "actual": explanation.actual, "predicted": explanation.predicted}
    row |= {"probability": explanation.probability, "logit": explanation.logit}
    names = ("role", "feature", "contribution", "concepts", "answer without", "share of random")
    return row | dict.fromkeys(names)


def _draw_failure(explanation: FailureExplanation, path: Path, top: int) -> list[Cell]:
    """The photo, and each feature's strongest photo's crop under its concepts."""
    with Image.open(path) as opened:
        cells: list[Cell] = [(opened.convert("RGB"), f"{explanation.actual}, taken for {explanation.predicted}")]
    for item in explanation.features[:top]:
        text = item.description
        crop = text.high[0].crop if text is not None and text.high else blank_cell()[0]
        caption = "" if text is None else join_words(text, 3)
        cells.append((crop, f"features:{item.feature}: {caption}"))
    return cells + [blank_cell()] * (1 + top - len(cells))
