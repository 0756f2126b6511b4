"""Descriptions held against images that they were not made from, beside their controls, and the run's summary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from encoscope.errors import UsageError
from encoscope.falcon.concept_scores import compute_confidences, rank_terms
from encoscope.falcon.context import CaptionEvidence, DescriptionContext
from encoscope.falcon.description import Description
from encoscope.falcon.heldout import (
    HeldoutTest,
    compute_auc,
    compute_auc_interval,
    compute_aucs,
    compute_mean_interval,
    find_strong_images,
)
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.metrics import Interval
from encoscope.units import Unit

CONTROLS = ("permuted", "captions")
_OTHERS = 20  # units whose images a description is held against in the permuted control


class Tested(NamedTuple):
    """What a unit was tested on: which images are strong, and all images' vectors."""

    strong: Bool[np.ndarray, " images"]
    images: Float[np.ndarray, "images width"]


def checked(
    units: Sequence[Unit],
    found: Sequence[Description],
    spaces: Mapping[str, Space],
    tools: DescriptionContext,
    controls: Sequence[str],
    evidence: CaptionEvidence,
) -> tuple[list[Description], dict[str, list[Tested]]]:
    """Each description with its truth, and what the tested units of each space were tested on, for the summary."""
    result = list(found)
    tests: dict[str, list[Tested]] = {}
    kept = {
        name: tools.embedder.get_image_vectors(space.heldout.ids)
        for name, space in spaces.items()
        if space.heldout is not None
    }
    for place, (unit, item) in enumerate(zip(units, found, strict=True)):
        space = spaces[unit.space]
        if space.heldout is None or not item.concepts:
            continue
        strong = find_strong_images(unit.activation(space.heldout.h, normalized=True), space.thresholds.alpha)
        if strong is None:
            continue
        test = Tested(strong, kept[space.name])
        result[place] = replace(item, heldout=_truth(unit, item, space, test, tools, controls, evidence))
        tests.setdefault(space.name, []).append(test)
    return result, tests


def _truth(
    unit: Unit,
    item: Description,
    space: Space,
    test: Tested,
    tools: DescriptionContext,
    controls: Sequence[str],
    evidence: CaptionEvidence,
) -> HeldoutTest:
    """A description's AUC on the test images, beside the controls that were asked for."""
    seed = tools.settings.seed
    scores = test.images @ tools.texts.embed_description({concept.word: concept.score for concept in item.concepts})
    beside: dict[str, Interval] = {}
    if "permuted" in controls:
        beside["permuted"] = _permuted(unit, scores, space, tools.settings)
    other = _random_captions(unit, evidence, tools) if "captions" in controls else {}
    if other:
        beside["captions"] = compute_auc_interval(
            test.images @ tools.texts.embed_description(other), test.strong, seed=seed
        )
    strong = int(test.strong.sum())
    return HeldoutTest(compute_auc_interval(scores, test.strong, seed=seed), strong, len(test.strong) - strong, beside)


def _permuted(unit: Unit, scores: np.ndarray, space: Space, settings: FalconSettings) -> Interval:
    """The description held against other units' images: their mean AUC, with its interval over those units."""
    assert space.heldout is not None
    rng = np.random.default_rng(_seed(unit, settings.seed))
    others = [channel for channel in rng.permutation(space.width).tolist() if channel not in unit.channels]
    found: list[float] = []
    for channel in others:
        strong = find_strong_images(space.heldout.h[:, channel], space.thresholds.alpha)
        if strong is not None:
            found.append(compute_auc(scores, strong))
        if len(found) == _OTHERS:
            break
    if not found:
        raise UsageError(f"{unit.text} is the only unit of its layer that fires: there is none to permute it with")
    return compute_mean_interval(found, seed=settings.seed)


def _random_captions(unit: Unit, evidence: CaptionEvidence, tools: DescriptionContext) -> dict[str, float]:
    """The concepts of a unit whose crops were given random captions instead of their best, with the scores of those."""
    rows = list(evidence.crops[unit])
    if not rows:
        return {}
    rng = np.random.default_rng(_seed(unit, tools.settings.seed))
    scores = evidence.scores[rows]
    drawn = rng.integers(len(tools.store), size=scores.shape)
    texts = tools.store.texts(drawn.ravel())
    captions = [texts[start : start + scores.shape[1]] for start in range(0, len(texts), scores.shape[1])]
    return rank_terms(compute_confidences(scores, captions, "words").means(), tools.settings.top)


def _seed(unit: Unit, seed: int) -> int:
    """A seed of a unit's own, whatever else is described with it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{unit.text}".encode()).digest()[:8], "big")


def summary(
    found: Sequence[Description],
    tests: Mapping[str, Sequence[Tested]],
    tools: DescriptionContext,
) -> dict[str, Any]:
    """Coverage, and means over units beside the best label that is the same for all."""
    count = len(found)
    methods = sorted({item.method for item in found})
    clarities = [item.clarity for item in found if item.clarity is not None]
    result: dict[str, Any] = {
        "units": count,
        "coverage": sum(item.explained for item in found) / count,
        "labelled": sum(bool(item.concepts) for item in found) / count,
        "methods": {name: sum(item.method == name for item in found) for name in methods},
        "clarity": float(np.mean(clarities)) if clarities else None,
    }
    tested = [item.heldout for item in found if item.heldout is not None]
    if tested:
        result["auc"] = _mean([truth.auc.value for truth in tested], tools.settings.seed)
        names = sorted({name for truth in tested for name in truth.controls})
        result["controls"] = {
            name: _mean([t.controls[name].value for t in tested if name in t.controls], tools.settings.seed)
            for name in names
        }
    words = list(dict.fromkeys(concept.word for item in found for concept in item.concepts))
    if len(tested) > 1 and words:
        texts, totals = tools.texts(words), np.zeros(len(words))
        for items in tests.values():
            strong = np.stack([test.strong for test in items], axis=1)
            totals += compute_aucs(items[0].images @ texts.T, strong).sum(0)
        best = int(totals.argmax())
        result["constant"] = {"word": words[best], "auc": float(totals[best] / len(tested))}
    return result


def _mean(values: Sequence[float], seed: int) -> dict[str, Any]:
    found = compute_mean_interval(values, seed=seed)
    return {"mean": found.value, "interval": [found.low, found.high]}
