"""From units to descriptions: images, crops, captions, concepts, contrast, and the test, for all units together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from encoscope import metrics
from encoscope.errors import UsageError
from encoscope.falcon.concept_scores import (
    SPURIOUS_THRESHOLD,
    Calibration,
    Confidences,
    compute_confidences,
    contrast_terms,
    rank_terms,
)
from encoscope.falcon.context import POOL, CaptionEvidence, DescriptionContext, gather_evidence, to_concepts
from encoscope.falcon.description import Description, Descriptions, Example
from encoscope.falcon.dissect import NOTHING, label_unexplained
from encoscope.falcon.evaluation import CONTROLS, checked, summary
from encoscope.falcon.selection import Selection, select_images
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.units import Unit


def describe_units(
    units: Sequence[Unit], spaces: Mapping[str, Space], tools: DescriptionContext, controls: Sequence[str] = ()
) -> Descriptions:
    """Descriptions of units, in their order; each is the same whatever other units are described with it."""
    for name in controls:
        if name not in CONTROLS:
            raise UsageError(f"control is {' or '.join(CONTROLS)}, not {name!r}")
    settings = tools.settings
    chosen = selections(units, spaces, settings)
    some = next(iter(spaces.values()))
    calibrated = settings.contrast and settings.spurious is None and settings.score == "cosine"
    pool = sorted(set(some.fit.ids))[:POOL] if calibrated or settings.rank == "specific" else []
    evidence = gather_evidence(units, chosen, spaces, tools, pool)
    words = compute_confidences(evidence.scores, evidence.captions, "words")
    phrases = compute_confidences(evidence.scores, evidence.captions, "phrases")
    usual = [
        Confidences(found.values[np.array(evidence.rows(pool), dtype=np.int64)], found.terms)
        for found in (words, phrases)
    ]
    limits = [
        Calibration(probe, sets=settings.random_sets, percentile=100 * settings.quantile, seed=settings.seed)
        if calibrated
        else None
        for probe in usual
    ]
    everywhere = [probe.means() if settings.rank == "specific" else None for probe in usual]
    found: list[Description] = []
    for unit in units:
        space, selection = spaces[unit.space], chosen[unit]
        low = evidence.rows([space.fit.ids[row] for row in selection.low]) if settings.contrast else []
        kept, spurious = _concepts(words, evidence.crops[unit], low, limits[0], settings)
        kept_phrases, spurious_phrases = _concepts(phrases, evidence.crops[unit], low, limits[1], settings)
        description = _plain(unit, space, selection, evidence, tools)
        found.append(
            replace(
                description,
                concepts=to_concepts(rank_terms(kept, settings.top, everywhere[0])),
                phrases=to_concepts(rank_terms(kept_phrases, settings.top, everywhere[1])),
                spurious=to_concepts(rank_terms({**spurious, **spurious_phrases}, 2 * settings.top)),
            )
        )
    if settings.fallback == "dissect":
        found = label_unexplained(units, found, spaces, tools, words.terms, pool)
    else:
        found = [
            replace(item, method="none", note=item.note or NOTHING) if not item.concepts else item for item in found
        ]
    found, tests = checked(units, found, spaces, tools, controls, evidence)
    return Descriptions(found, summary(found, tests, tools))


def selections(units: Sequence[Unit], spaces: Mapping[str, Space], settings: FalconSettings) -> dict[Unit, Selection]:
    """T_i and L_i of each unit, by space."""
    found: dict[Unit, Selection] = {}
    for name, space in spaces.items():
        mine = [unit for unit in units if unit.space == name]
        chosen = select_images(space.fit.h, mine, settings, space.thresholds, space.fit.ids)
        found |= dict(zip(mine, chosen, strict=True))
    return found


def _concepts(
    found: Confidences, crops: range, low: Sequence[int], calibration: Calibration | None, settings: FalconSettings
) -> tuple[dict[str, float], dict[str, float]]:
    """Terms by equation 1 without and with those that the counterfactuals share."""
    high = found.means(list(crops))
    if not low or not high:
        return high, {}
    shared = found.means(list(low))
    if calibration is None:
        return contrast_terms(high, shared, SPURIOUS_THRESHOLD if settings.spurious is None else settings.spurious)
    return contrast_terms(high, shared, calibration.thresholds(min(len(low), calibration.confidences.images), shared))


def _plain(
    unit: Unit, space: Space, selection: Selection, evidence: CaptionEvidence, tools: DescriptionContext
) -> Description:
    """A description's images and provenance, without concepts yet."""
    settings, made = tools.settings, space.fit
    raw = unit.activation(made.values)
    crops = evidence.crops[unit]
    vectors = tools.embedder.get_crop_vectors(unit, [made.ids[row] for row in selection.high])
    several = len(vectors) > 1
    clarity = metrics.clarity(vectors) if several else None
    high = []
    for place, row in list(zip(crops, selection.high.tolist(), strict=True))[: settings.top]:
        crop = tools.embedder.get_crop(unit, made.ids[row])
        high.append(_example(made, row, raw, evidence, place, box=crop.box, cam=crop.cam))
    low = [
        _example(made, row, raw, evidence, evidence.wholes.get(made.ids[row]))
        for row in selection.low.tolist()[: settings.top]
    ]
    method, note = "falcon", ""
    if not selection.fires:
        method, note = "none", f"it never fires: one value on all {len(made.ids)} images"
    elif selection.adaptive:
        method = "falcon, top-k"
        note = f"{_few(settings)} alpha ({space.thresholds.alpha:.3g}): its {len(selection.high)} strongest stand in"
    elif not len(selection.high):
        method, note = "none", f"{_few(settings)} alpha ({space.thresholds.alpha:.3g})"
    return Description(
        unit=unit.text,
        concepts=(),
        phrases=(),
        spurious=(),
        method=method,
        note=note,
        images=len(selection.high),
        # with each crop's cosine with itself, as the authors' mean has it
        interpretability=None if clarity is None else (clarity * (len(vectors) - 1) + 1) / len(vectors),
        clarity=clarity,
        interpretable=clarity is not None and clarity > settings.clear,
        high=tuple(high),
        low=tuple(low),
        settings=_provenance(space, tools),
        model={"source": tools.encoder.source, "digest": tools.encoder.digest, "layers": [space.name]},
    )


def _few(settings: FalconSettings) -> str:
    return "no image passes" if settings.least == 1 else f"fewer than {settings.least} images pass"


def _example(
    made: Any, row: int, raw: np.ndarray, evidence: CaptionEvidence, place: int | None, **crop: Any
) -> Example:
    captions: tuple[tuple[str, float], ...] = ()
    if place is not None:
        captions = tuple(zip(evidence.captions[place], evidence.scores[place].tolist(), strict=True))
    return Example(made.paths[row], made.ids[row], float(raw[row]), captions=captions, **crop)


def _provenance(space: Space, tools: DescriptionContext) -> dict[str, Any]:
    return tools.settings.as_dict() | {
        "alpha": space.thresholds.alpha,
        "epsilon": space.thresholds.epsilon,
        "holdout": tools.holdout,
        "images": {"fit": len(space.fit.ids), "heldout": 0 if space.heldout is None else len(space.heldout.ids)},
        "vlm": {"source": tools.vlm.source, "digest": tools.vlm.digest},
        "store": {"captions": len(tools.store), "digest": tools.store.digest},
    }
