"""Concepts of one network's features carried to another through a linear map (FALCON), and what they predict there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from encoscope.errors import UsageError
from encoscope.evaluation.charts import BarRow, bars
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Concept, Description, Falcon, Transfer, fit_transfer
from encoscope.falcon.heldout import compute_auc, draw_derangement, find_strong_images
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.probing import probe
from encoscope.reproduce.falcon.figures import TRUTH
from encoscope.reproduce.falcon.harness import (
    DEFAULTS,
    STAND_IN,
    described,
    drawn,
    encoders,
    features,
    fitted,
    report,
    words,
)
from encoscope.units import Unit, parse_unit


def carried(request: EvaluationRequest) -> Report:
    """Concepts of one network's features carried to another through a linear map, and what they predict there."""
    asked = request.settings({**DEFAULTS, "parts": 8})
    pair = encoders(request, None, (STAND_IN, "zoo:vit-caltech101"))
    if len(pair) != 2:
        raise UsageError("falcon-transfer takes two models: --model the one that is described --model the other")
    source, target = pair
    falcon, there = fitted(request, asked, source), fitted(request, asked, target)
    ours, theirs = (
        probe(encoder, request.datasets[0], "features", progress=request.progress) for encoder in (source, target)
    )
    found = fit_transfer(ours, theirs)
    units = drawn(request, target.width, 10)
    numbers = [parse_unit(text, target).index for text in units]
    needed = sorted({part for number in numbers for part in strongest_parts(found, number, asked["parts"])})
    known = dict(zip(needed, described(falcon, [f"features:{part}" for part in needed]), strict=True))
    brought = {number: found.carry(known, number) for number in numbers}
    own = dict(zip(numbers, described(there, units), strict=True))
    rows = transferred(there, found, brought, own, request.seed)
    notes = [
        f"A ridge map from the features of {source.source} to those of {target.source}, fitted on {found.fitted} "
        f"photos; it explains {found.explained:.0%} of their variance on {found.tested} others (R2). carried: the "
        f"concepts of each feature's {asked['parts']} largest parts, weighed by their shares in the map.",
        f"{TRUTH} permuted: another feature's carried concepts. mean: over features, [95 % bootstrap interval].",
    ]
    return report(
        "falcon-transfer",
        "concepts carried to another network",
        rows,
        there,
        request,
        asked,
        notes=notes,
        pictures={"falcon-transfer": predictions(rows)},
    )


def strongest_parts(found: Transfer, target: int, count: int) -> list[int]:
    """The source's features of the largest positive share in a target feature."""
    shares = found.weights[:, target] * found.spread
    return [int(part) for part in np.argsort(-shares, kind="stable")[:count] if shares[part] > 0]


def transferred(
    there: Falcon,
    found: Transfer,
    brought: Mapping[int, tuple[Concept, ...]],
    own: Mapping[int, Description],
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each of the target's features, and their mean: carried concepts beside its own and another's."""
    numbers = list(brought)
    swap = draw_derangement(len(numbers), seed) if len(numbers) > 1 else None
    rows = []
    for place, number in enumerate(numbers):
        other = None if swap is None else brought[numbers[int(swap[place])]]
        truth = own[number].heldout
        rows.append(
            {
                "feature": f"features:{number}",
                "carried": ", ".join(concept.word for concept in brought[number][:5]) or None,
                "own": words(own[number]),
                "R2": _number(found.r2[number]),
                "AUC carried": predicts(there, number, brought[number]),
                "AUC own": None if truth is None else truth.auc.value,
                "AUC permuted": None if other is None else predicts(there, number, other),
            }
        )
    mean: dict[str, Any] = {**dict.fromkeys(rows[0]), "feature": "mean"}
    for name in ("R2", "AUC carried", "AUC own", "AUC permuted"):
        values = [row[name] for row in rows if row[name] is not None]
        mean[name] = bootstrap(values, seed=seed) if values else None
    pairs = [(row["AUC carried"], row["AUC permuted"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    rows.append(mean)
    if pairs:
        one, two = zip(*pairs, strict=True)
        gain: Interval = bootstrap_difference(one, two, seed=seed)
        rows.append({**dict.fromkeys(rows[0]), "feature": "carried - permuted", "AUC carried": gain})
    return rows


def predicts(falcon: Falcon, feature: int, concepts: Sequence[Concept]) -> float | None:
    """The AUC of concepts for a feature on the photos kept for the test; None where there is nothing to test."""
    space = features(falcon)
    if space.heldout is None or not concepts:
        return None
    unit = Unit(f"features:{feature}", "features", channels=(feature,))
    strong = find_strong_images(unit.activation(space.heldout.h, normalized=True), space.thresholds.alpha)
    if strong is None:
        return None
    falcon.context_.embedder.embed(
        images=space.heldout.ids, paths=dict(zip(space.heldout.ids, space.heldout.paths, strict=True))
    )
    text = falcon.context_.texts.embed_description({concept.word: concept.score for concept in concepts})
    return compute_auc(falcon.context_.embedder.get_image_vectors(space.heldout.ids) @ text, strong)


def predictions(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """How well each feature's carried concepts predict it, beside its own and another feature's."""
    shown = []
    for row in rows:
        if row["AUC carried"] is None or row["feature"] == "carried - permuted":
            continue
        name = f"{row['feature']}: {row['carried']}" if row["carried"] else row["feature"]
        shown.append(BarRow(name, {way: row[f"AUC {way}"] for way in ("carried", "own", "permuted")}))
    return bars(shown, "AUC on photos that were kept for the test", limits=(0, 1), chance=0.5)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
