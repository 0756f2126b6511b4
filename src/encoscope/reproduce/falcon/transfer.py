"""Concepts of one network's features carried to another through a linear map (FALCON), and what they predict there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from encoscope.errors import UsageError
from encoscope.evaluation.charts import BarRow, draw_bars
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Concept, Description, Falcon, Transfer, fit_transfer
from encoscope.falcon.heldout import compute_auc, draw_derangement, find_strong_images
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.probing import probe
from encoscope.reproduce.falcon.figures import HELDOUT_NOTE
from encoscope.reproduce.falcon.harness import (
    DEFAULTS,
    STAND_IN,
    auc_of,
    build_report,
    describe_units,
    draw_features,
    feature_space,
    fit_falcon,
    join_words,
)
from encoscope.reproduce.inputs import load_encoders
from encoscope.units import Unit, parse_unit


def run(request: EvaluationRequest) -> Report:
    """Carry concepts of one network's features to another, and measure what they predict there.

    Args:
        request: the experiment's request; it takes two models.

    Returns:
        The table, with a chart of it.

    Raises:
        UsageError: for other than two models.
    """
    settings = request.settings({**DEFAULTS, "sources": 8})
    pair = load_encoders(request, (STAND_IN, "zoo:vit-caltech101"), ())
    if len(pair) != 2:
        raise UsageError("falcon-transfer takes two models: --model the one that is described --model the other")
    source, target = pair
    falcon, target_falcon = (fit_falcon(request, settings, encoder) for encoder in (source, target))
    ours, theirs = (
        probe(encoder, request.datasets[0], "features", progress=request.progress) for encoder in (source, target)
    )
    mapping = fit_transfer(ours, theirs)
    units = draw_features(request, target.width, 10)
    numbers = [parse_unit(text, target).index for text in units]
    needed = sorted(
        {index for number in numbers for index in find_strongest_sources(mapping, number, settings["sources"])}
    )
    known = dict(zip(needed, describe_units(falcon, [f"features:{index}" for index in needed]), strict=True))
    carried = {number: mapping.carry(known, number) for number in numbers}
    own = dict(zip(numbers, describe_units(target_falcon, units), strict=True))
    rows = compare_transferred(target_falcon, mapping, carried, own, request.seed)
    notes = [
        f"A ridge map from the features of {source.source} to those of {target.source}, fitted on {mapping.fitted} "
        f"images; it explains {mapping.explained:.0%} of their variance on {mapping.tested} others (R2). carried: the "
        f"concepts of each feature's {settings['sources']} largest source features, weighted by their shares.",
        f"{HELDOUT_NOTE} permuted: another feature's carried concepts. mean: over features, [95 % bootstrap interval].",
    ]
    return build_report(
        "falcon-transfer",
        "concepts carried to another network",
        rows,
        target_falcon,
        request,
        settings,
        notes=notes,
        sheets={"falcon-transfer": draw_predictions(rows)},
    )


def find_strongest_sources(mapping: Transfer, target: int, count: int) -> list[int]:
    """Find the source's features of the largest positive share in a target feature.

    Args:
        mapping: the linear map.
        target: index of the target feature.
        count: number of source features, at most.

    Returns:
        Indices of source features, the largest share first.
    """
    shares = mapping.weights[:, target] * mapping.spread
    return [int(index) for index in np.argsort(-shares, kind="stable")[:count] if shares[index] > 0]


def compare_transferred(
    falcon: Falcon,
    mapping: Transfer,
    carried: Mapping[int, tuple[Concept, ...]],
    own: Mapping[int, Description],
    random_state: int,
) -> list[dict[str, Any]]:
    """Compare carried concepts with the target's own and with another feature's.

    Args:
        falcon: FALCON fitted on the target.
        mapping: the linear map.
        carried: carried concepts by target feature.
        own: the target's own descriptions by feature.
        random_state: seed of the bootstrap and of the permutation.

    Returns:
        A row for each feature, their mean, and the gain over another feature's concepts.
    """
    numbers = list(carried)
    swap = draw_derangement(len(numbers), random_state) if len(numbers) > 1 else None
    rows = []
    for index, number in enumerate(numbers):
        other = None if swap is None else carried[numbers[int(swap[index])]]
        auc = auc_of(own[number])
        rows.append(
            {
                "feature": f"features:{number}",
                "carried": ", ".join(concept.word for concept in carried[number][:5]) or None,
                "own": join_words(own[number]),
                "R2": _number(mapping.r2[number]),
                "AUC carried": compute_predictive_auc(falcon, number, carried[number]),
                "AUC own": None if auc is None else auc.value,
                "AUC permuted": None if other is None else compute_predictive_auc(falcon, number, other),
            }
        )
    mean: dict[str, Any] = {**dict.fromkeys(rows[0]), "feature": "mean"}
    for name in ("R2", "AUC carried", "AUC own", "AUC permuted"):
        values = [row[name] for row in rows if row[name] is not None]
        mean[name] = bootstrap(values, random_state=random_state) if values else None
    pairs = [(row["AUC carried"], row["AUC permuted"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    rows.append(mean)
    if pairs:
        ours, permuted = zip(*pairs, strict=True)
        gain: Interval = bootstrap_difference(ours, permuted, random_state=random_state)
        rows.append({**dict.fromkeys(rows[0]), "feature": "carried - permuted", "AUC carried": gain})
    return rows


def compute_predictive_auc(falcon: Falcon, feature: int, concepts: Sequence[Concept]) -> float | None:
    """Compute the AUC of concepts for a feature on the images kept for the test.

    Args:
        falcon: a fitted estimator.
        feature: index of the feature.
        concepts: the concepts.

    Returns:
        The AUC; None where there is nothing to test.
    """
    space = feature_space(falcon)
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


def draw_predictions(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw how well each feature's carried concepts predict it, beside its own and another feature's.

    Args:
        rows: the table.

    Returns:
        The chart.
    """
    shown = []
    for row in rows:
        if row["AUC carried"] is None or row["feature"] == "carried - permuted":
            continue
        label = f"{row['feature']}: {row['carried']}" if row["carried"] else row["feature"]
        shown.append(BarRow(label, {name: row[f"AUC {name}"] for name in ("carried", "own", "permuted")}))
    return draw_bars(shown, "AUC on photos that were kept for the test", limits=(0, 1), chance=0.5)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
