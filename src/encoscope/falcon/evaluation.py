"""Tests of descriptions on images that they were not made from, beside their controls, and the summary of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.falcon.case import DescriptionCase, list_spaces
from encoscope.falcon.concept_scores import compute_confidences, rank_terms
from encoscope.falcon.context import DescriptionContext, NearestCaptions
from encoscope.falcon.heldout import (
    VERDICTS,
    ChanceLevel,
    HeldoutTest,
    compute_auc,
    compute_auc_interval,
    compute_aucs,
    compute_mean_interval,
    explain_no_test,
    find_strong_images,
)
from encoscope.falcon.selection import DescriptionOutcome
from encoscope.falcon.spaces import ProbedImages
from encoscope.units import Unit

_DRAWS = 20  # of each control: other units whose images a description is tested on, and random descriptions
_RANDOM_CROPS = 10  # of the random description of a unit without crops


def evaluate_cases(
    cases: Sequence[DescriptionCase], nearest: NearestCaptions, context: DescriptionContext, controls: Sequence[str]
) -> None:
    """Test every case that has concepts, and fill in its ``heldout``.

    Args:
        cases: The cases.
        nearest: The captions nearest to their crops.
        context: What the run shares.
        controls: Controls to compare with: "permuted", "captions".

    """
    vectors = {
        name: context.embedder.get_image_vectors(space.heldout.ids)
        for name, space in list_spaces(cases).items()
        if space.heldout is not None
    }
    for case in cases:
        images, activation = case.space.heldout, case.heldout_activation
        if not case.concepts:
            continue
        case.untested = explain_no_test(activation)
        if images is None or activation is None or case.untested:
            continue
        case.strong = find_strong_images(activation, case.space.thresholds.alpha)
        if case.strong is not None:
            case.heldout = _test(case, images, case.strong, vectors[case.space.name], nearest, context, controls)


def _test(
    case: DescriptionCase,
    images: ProbedImages,
    strong: np.ndarray,
    vectors: Float[np.ndarray, "images width"],
    nearest: NearestCaptions,
    context: DescriptionContext,
    controls: Sequence[str],
) -> HeldoutTest:
    """A description's AUC on the held-out images, beside the controls."""
    seed = context.settings.random_state
    usual = vectors @ context.store.mean  # what an image has in common with any text
    scores = vectors @ context.texts.embed_description(case.concepts) - usual
    levels: dict[str, ChanceLevel] = {}
    if "permuted" in controls:
        aucs = _test_permuted(case, images, scores, seed)
        levels |= {"permuted": ChanceLevel.of(aucs)} if aucs else {}
    drawn = _describe_at_random(case, nearest, context) if "captions" in controls else []
    if drawn:
        labels = np.stack([context.texts.embed_description(concepts) for concepts in drawn], 1)
        levels["captions"] = ChanceLevel.of(
            compute_aucs(vectors @ labels - usual[:, None], strong[:, None])[0].tolist()
        )
    auc, n_strong = compute_auc_interval(scores, strong, random_state=seed), int(strong.sum())
    return HeldoutTest(auc, n_strong, len(strong) - n_strong, levels)


def _test_permuted(case: DescriptionCase, images: ProbedImages, scores: np.ndarray, random_state: int) -> list[float]:
    """The AUC of the description on the images of other units; none where no other unit activates."""
    rng = np.random.default_rng(_seed_of(case.unit, random_state))
    aucs: list[float] = []
    for channel in rng.permutation(case.space.width).tolist():
        if channel in case.unit.channels:
            continue
        strong = find_strong_images(images.h[:, channel], case.space.thresholds.alpha)
        if strong is not None:
            aucs.append(compute_auc(scores, strong))
        if len(aucs) == _DRAWS:
            break
    return aucs


def _describe_at_random(
    case: DescriptionCase, nearest: NearestCaptions, context: DescriptionContext
) -> list[dict[str, float]]:
    """Descriptions of a unit whose crops get random captions instead of their best, with the scores of those."""
    rows = list(case.crop_rows)
    rng = np.random.default_rng(_seed_of(case.unit, context.settings.random_state))
    scores = nearest.scores[rows] if rows else np.ones((_RANDOM_CROPS, context.settings.captions_per_crop))
    count, width = scores.shape
    drawn = rng.integers(len(context.store), size=(_DRAWS, count, width))
    texts = context.store.texts(drawn.ravel())
    captions = [texts[start : start + width] for start in range(0, len(texts), width)]
    descriptions = []
    for first in range(0, len(captions), count):
        means = compute_confidences(scores, captions[first : first + count], "words").means()
        descriptions.append(rank_terms(means, context.settings.n_concepts))
    return [concepts for concepts in descriptions if concepts]


def _seed_of(unit: Unit, random_state: int) -> int:
    """A seed of the unit's own, whatever else is described with it."""
    return int.from_bytes(hashlib.sha256(f"{random_state}:{unit.text}".encode()).digest()[:8], "big")


def summarize(
    cases: Sequence[DescriptionCase], clarities: Sequence[float | None], context: DescriptionContext
) -> dict[str, Any]:
    """Compute coverage, and means over units beside the best label that is the same for all.

    Args:
        cases: Cases that are complete.
        clarities: The clarity of each case.
        context: What the run shares.

    Returns:
        Plain values: "units" (their number), "coverage" (the share FALCON explains), "labelled" (the share with any
        label), "methods", "clarity", "verdicts" (how many units have each), and
        where units were tested "auc", "controls" and "constant" (the best word that
        is the same for all units, with its mean AUC).
    """
    count, seed = len(cases), context.settings.random_state
    methods = [case.outcome.method for case in cases]
    known = [clarity for clarity in clarities if clarity is not None]
    summary: dict[str, Any] = {
        "units": count,
        "coverage": sum(case.outcome is DescriptionOutcome.EXPLAINED for case in cases) / count,
        "labelled": sum(bool(case.concepts) for case in cases) / count,
        "methods": {name: methods.count(name) for name in sorted(set(methods))},
        "clarity": float(np.mean(known)) if known else None,
        "verdicts": {name: sum(case.verdict == name for case in cases) for name in VERDICTS},
    }
    tests = [case.heldout for case in cases if case.heldout is not None]
    if tests:
        summary["auc"] = _summarize_mean([test.auc.value for test in tests], seed)
        names = sorted({name for test in tests for name in test.controls})
        summary["controls"] = {
            name: _summarize_mean([test.controls[name].value for test in tests if name in test.controls], seed)
            for name in names
        }
    words = list(dict.fromkeys(word for case in cases for word in case.concepts))
    if len(tests) > 1 and words:
        summary["constant"] = _find_best_constant(cases, words, context)
    return summary


def _find_best_constant(
    cases: Sequence[DescriptionCase], words: Sequence[str], context: DescriptionContext
) -> dict[str, Any]:
    """The word that describes all tested units best, with its mean AUC."""
    strong: dict[str, list[np.ndarray]] = {}
    for case in cases:
        if case.strong is not None:
            strong.setdefault(case.space.name, []).append(case.strong)
    texts, totals = context.texts(words), np.zeros(len(words))
    for name, units in strong.items():
        heldout = list_spaces(cases)[name].heldout
        if heldout is not None:
            images = context.embedder.get_image_vectors(heldout.ids)
            usual = images @ context.store.mean
            totals += compute_aucs(images @ texts.T - usual[:, None], np.stack(units, axis=1)).sum(0)
    count = sum(map(len, strong.values()))
    best = int(totals.argmax())
    return {"word": words[best], "auc": float(totals[best] / count)}


def _summarize_mean(values: Sequence[float], random_state: int) -> dict[str, Any]:
    interval = compute_mean_interval(values, random_state=random_state)
    return {"mean": interval.value, "interval": [interval.low, interval.high]}
