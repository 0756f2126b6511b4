"""From units to descriptions: images, crops, captions, concepts, contrast, and the test, for all units together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from encoscope import metrics
from encoscope.falcon.captions.search import find_top_captions
from encoscope.falcon.case import DescriptionCase, list_spaces, select_cases
from encoscope.falcon.concept_scores import (
    SPURIOUS_THRESHOLD,
    Calibration,
    Confidences,
    compute_confidences,
    contrast_terms,
    rank_terms,
)
from encoscope.falcon.context import POOL, DescriptionContext, NearestCaptions
from encoscope.falcon.description import Concept, Description, Descriptions, Example
from encoscope.falcon.dissect import label_unexplained
from encoscope.falcon.evaluation import evaluate_cases, summarize
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.results import record_model
from encoscope.units import Unit


def describe_units(
    units: Sequence[Unit], spaces: Mapping[str, Space], context: DescriptionContext, controls: Sequence[str] = ()
) -> Descriptions:
    """Describe units; each description is the same whatever other units are described with it.

    Args:
        units: The units.
        spaces: Their spaces by name.
        context: What the run shares.
        controls: Controls that the tests are compared with: "permuted", "captions".

    Returns:
        Their descriptions, in their order, with a summary.

    Source: FALCON, section 3.
    """
    settings = context.settings
    cases = select_cases(units, spaces, settings)
    calibrated = settings.contrast and settings.spurious_threshold is None and settings.score == "cosine"
    pool = sorted(set(cases[0].space.fit.ids))[:POOL] if calibrated or settings.rank == "specific" else []
    nearest = find_nearest_captions(cases, context, pool)
    words = _TermScores("words", nearest, pool, settings, calibrated)
    phrases = _TermScores("phrases", nearest, pool, settings, calibrated)
    for case in cases:
        case.concepts, spurious_words = words.find_concepts(case)
        case.phrases, spurious_phrases = phrases.find_concepts(case)
        case.spurious = rank_terms({**spurious_words, **spurious_phrases}, 2 * settings.n_concepts)
    if settings.fallback == "dissect":
        label_unexplained(cases, context, words.confidences.terms, pool)
    evaluate_cases(cases, nearest, context, controls)
    descriptions = [_build_description(case, nearest, context) for case in cases]
    return Descriptions(descriptions, summarize(cases, [description.clarity for description in descriptions], context))


def find_nearest_captions(
    cases: Sequence[DescriptionCase], context: DescriptionContext, pool: Sequence[str]
) -> NearestCaptions:
    """Embed all crops and whole images that are needed, and search the captions once for all of them.

    Args:
        cases: The cases; their ``crop_rows``, ``crop_vectors`` and ``counterfactual_rows`` are filled in.
        context: What the run shares.
        pool: The ids of images that stand for the whole probe.

    Returns:
        The nearest captions of the crops, the pool and the counterfactuals. Held-out images are embedded too.
    """
    embedder, settings = context.embedder, context.settings
    wholes = dict.fromkeys(pool)
    heldout: dict[str, None] = {}
    paths: dict[str, str | None] = {}
    if settings.contrast:
        wholes |= dict.fromkeys(image for case in cases for image in case.low_ids)
    for space in list_spaces(cases).values():
        for images in (space.fit, space.heldout):
            paths |= {} if images is None else dict(zip(images.ids, images.paths, strict=True))
        heldout |= dict.fromkeys(() if space.heldout is None else space.heldout.ids)
    pairs = [(case.unit, image) for case in cases for image in case.high_ids]
    embedder.embed(pairs, [*wholes, *heldout], paths=paths, batch_size=context.batch_size)
    start = 0
    for case in cases:
        case.crop_vectors = embedder.get_crop_vectors(case.unit, case.high_ids)
        case.crop_rows = range(start, start + len(case.crop_vectors))
        start = case.crop_rows.stop
    image_rows = {name: start + number for number, name in enumerate(wholes)}
    queries = np.concatenate([*(case.crop_vectors for case in cases), embedder.get_image_vectors(list(wholes))])
    scores, indices = find_top_captions(
        queries, context.store, settings.captions_per_crop, settings.score, progress=context.progress
    )
    distinct, inverse = np.unique(indices, return_inverse=True)
    texts = context.store.texts(distinct)
    nearest = NearestCaptions(
        scores, [[texts[index] for index in row] for row in inverse.reshape(indices.shape)], image_rows
    )
    for case in cases:
        case.counterfactual_rows = tuple(image_rows[image] for image in case.low_ids) if settings.contrast else ()
    return nearest


class _TermScores:
    """The scores of all words, or of all phrases, over any of the images whose nearest captions are known."""

    def __init__(
        self,
        kind: Literal["words", "phrases"],
        nearest: NearestCaptions,
        pool: Sequence[str],
        settings: FalconSettings,
        calibrated: bool,
    ) -> None:
        self._settings = settings
        self.confidences = compute_confidences(nearest.scores, nearest.texts, kind)
        rows = np.array([nearest.image_rows[image] for image in pool], dtype=np.int64)
        probe = Confidences(self.confidences.values[rows], self.confidences.terms)
        self._calibration: Calibration | None = None
        if calibrated:
            self._calibration = Calibration(
                probe,
                sets=settings.random_sets,
                percentile=100 * settings.spurious_quantile,
                random_state=settings.random_state,
            )
        self._usual = probe.means() if settings.rank == "specific" else None

    def find_concepts(self, case: DescriptionCase) -> tuple[dict[str, float], dict[str, float]]:
        """The best terms by equation 1 that the counterfactuals do not share, and all terms that they share."""
        kept, spurious = self._contrast(case)
        return rank_terms(kept, self._settings.n_concepts, self._usual), spurious

    def _contrast(self, case: DescriptionCase) -> tuple[dict[str, float], dict[str, float]]:
        high = self.confidences.means(list(case.crop_rows))
        rows = list(case.counterfactual_rows)
        if not rows or not high:
            return high, {}
        low = self.confidences.means(rows)
        if self._calibration is None:
            threshold = self._settings.spurious_threshold
            return contrast_terms(high, low, SPURIOUS_THRESHOLD if threshold is None else threshold)
        size = min(len(rows), self._calibration.confidences.images)
        return contrast_terms(high, low, self._calibration.thresholds(size, low))


def _build_description(case: DescriptionCase, nearest: NearestCaptions, context: DescriptionContext) -> Description:
    """The description of a case that is complete."""
    settings, unit, space = context.settings, case.unit, case.space
    images, values = space.fit, case.values

    def example(row: int, captions_row: int | None, *, cropped: bool) -> Example:
        crop = context.embedder.get_crop(unit, images.ids[row]) if cropped else None
        return Example(
            path=images.paths[row],
            id=images.ids[row],
            activation=float(values[row]),
            box=None if crop is None else crop.box,
            cam=None if crop is None else crop.cam,
            captions=()
            if captions_row is None
            else tuple(zip(nearest.texts[captions_row], nearest.scores[captions_row].tolist(), strict=True)),
        )

    high = list(zip(case.selection.high.tolist(), case.crop_rows, strict=True))[: settings.n_concepts]
    low = [(row, nearest.image_rows.get(images.ids[row])) for row in case.selection.low.tolist()]
    count = len(case.crop_vectors)
    clarity = metrics.clarity(case.crop_vectors) if count > 1 else None
    return Description(
        unit=unit.text,
        concepts=_to_concepts(case.concepts),
        phrases=_to_concepts(case.phrases),
        spurious=_to_concepts(case.spurious),
        outcome=case.outcome,
        images=len(case.selection.high),
        note=case.explain(settings.min_images),
        # each crop's cosine with itself counts too, as in the authors' mean
        interpretability=None if clarity is None else (clarity * (count - 1) + 1) / count,
        clarity=clarity,
        interpretable=clarity is not None and clarity > settings.clarity_threshold,
        heldout=case.heldout,
        untested=case.untested,
        high=tuple(example(row, captions_row, cropped=True) for row, captions_row in high),
        low=tuple(example(row, captions_row, cropped=False) for row, captions_row in low[: settings.n_concepts]),
        settings=_record_settings(context, space),
        seed=settings.random_state,
        model=record_model(context.encoder, [space.name]),
        skipped=space.skipped,
    )


def _record_settings(context: DescriptionContext, space: Space) -> dict[str, Any]:
    """All that decides the descriptions of a space's units: settings and thresholds, images, models and captions."""
    return context.settings.as_dict() | {
        "alpha": space.thresholds.alpha,
        "epsilon": space.thresholds.epsilon,
        "holdout": context.holdout,
        "images": dict(space.images),
        "vlm": {"source": context.vlm.source, "digest": context.store.vlm_digest},
        "store": {"captions": len(context.store), "digest": context.store.digest},
    }


def _to_concepts(scores: Mapping[str, float]) -> tuple[Concept, ...]:
    return tuple(Concept(word, float(score)) for word, score in scores.items())
