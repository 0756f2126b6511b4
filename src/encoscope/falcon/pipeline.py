"""From units to descriptions: images, crops, captions, concepts, contrast, and the test, for all units together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from encoscope import metrics
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.falcon.captions import CaptionStore
from encoscope.falcon.crops import Gallery
from encoscope.falcon.description import Concept, Description, Descriptions, Example
from encoscope.falcon.dissect import background, soft_wpmi
from encoscope.falcon.gradcam import space_of
from encoscope.falcon.scan import Score as ScanScore
from encoscope.falcon.scan import top_captions
from encoscope.falcon.scoring import SPURIOUS, Calibration, Confidences, confidences, contrast, ranked
from encoscope.falcon.selection import Selection, activation, select
from encoscope.falcon.settings import Settings
from encoscope.falcon.spaces import Space, raw_activation
from encoscope.falcon.truth import Texts, Truth, auc, auc_interval, aucs, mean_interval, strong_images
from encoscope.metrics import Interval
from encoscope.progress import Progress
from encoscope.units import Unit
from encoscope.vlm import VLM

CONTROLS = ("permuted", "captions")
POOL = 1000
"""Images that stand for the probe where random sets are drawn: enough for percentiles, few enough to embed."""
_STRONGEST = 100  # images that soft-WPMI looks at
_OTHERS = 20  # units whose images a description is held against in the permuted control


@dataclass(frozen=True, eq=False)
class Tools:
    """What all descriptions of a run are made with."""

    encoder: Encoder
    vlm: VLM
    store: CaptionStore
    gallery: Gallery
    settings: Settings
    texts: Texts
    holdout: float | str = 0.0
    progress: Progress = None


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The scan's answers: a row for each crop of each unit, and for each whole image that was asked for."""

    scores: Float[np.ndarray, "rows best"]
    captions: list[list[str]]
    crops: dict[Unit, range]
    wholes: dict[str, int]

    def rows(self, ids: Sequence[str]) -> list[int]:
        return [self.wholes[name] for name in ids]


def describe_units(
    units: Sequence[Unit], spaces: Mapping[str, Space], tools: Tools, controls: Sequence[str] = ()
) -> Descriptions:
    """Descriptions of units, in their order; each is the same whatever other units are described with it."""
    for name in controls:
        if name not in CONTROLS:
            raise UsageError(f"control is {' or '.join(CONTROLS)}, not {name!r}")
    settings = tools.settings
    chosen = selections(units, spaces, settings)
    some = next(iter(spaces.values()))
    calibrated = settings.contrast and settings.spurious is None and settings.score == "cosine"
    pool = sorted(set(some.made.ids))[:POOL] if calibrated or settings.rank == "specific" else []
    evidence = _gather(units, chosen, spaces, tools, pool)
    words = confidences(evidence.scores, evidence.captions, "words")
    phrases = confidences(evidence.scores, evidence.captions, "phrases")
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
        space, selection = spaces[space_of(unit)], chosen[unit]
        low = evidence.rows([space.made.ids[row] for row in selection.low]) if settings.contrast else []
        kept, spurious = _concepts(words, evidence.crops[unit], low, limits[0], settings)
        kept_phrases, spurious_phrases = _concepts(phrases, evidence.crops[unit], low, limits[1], settings)
        description = _plain(unit, space, selection, evidence, tools)
        found.append(
            replace(
                description,
                concepts=_listed(ranked(kept, settings.top, everywhere[0])),
                phrases=_listed(ranked(kept_phrases, settings.top, everywhere[1])),
                spurious=_listed(ranked({**spurious, **spurious_phrases}, 2 * settings.top)),
            )
        )
    if settings.fallback == "dissect":
        found = _fall_back(units, found, spaces, tools, words.terms, pool)
    else:
        found = [
            replace(item, method="none", note=item.note or _NOTHING) if not item.concepts else item for item in found
        ]
    found, tests = _tested(units, found, spaces, tools, controls, evidence)
    return Descriptions(found, _summary(found, tests, tools))


_NOTHING = "every word of its captions is shared with the counterfactuals"


def selections(units: Sequence[Unit], spaces: Mapping[str, Space], settings: Settings) -> dict[Unit, Selection]:
    """T_i and L_i of each unit, by space."""
    found: dict[Unit, Selection] = {}
    for name, space in spaces.items():
        mine = [unit for unit in units if space_of(unit) == name]
        chosen = select(space.made.h, mine, settings, space.limits, space.made.ids)
        found |= dict(zip(mine, chosen, strict=True))
    return found


def _gather(
    units: Sequence[Unit],
    chosen: Mapping[Unit, Selection],
    spaces: Mapping[str, Space],
    tools: Tools,
    pool: Sequence[str],
) -> _Evidence:
    """Embed all crops and whole images that are needed, and scan the captions once for all of them."""
    crops: dict[Unit, list[str]] = {}
    wholes = dict.fromkeys(pool)
    tests: dict[str, None] = {}
    paths: dict[str, str | None] = {}
    for unit in units:
        made = spaces[space_of(unit)].made
        crops[unit] = [made.ids[row] for row in chosen[unit].high]
        if tools.settings.contrast:
            wholes |= dict.fromkeys(made.ids[row] for row in chosen[unit].low)
    for space in spaces.values():
        paths |= dict(zip(space.made.ids, space.made.paths, strict=True))
        if space.test is not None:
            paths |= dict(zip(space.test.ids, space.test.paths, strict=True))
            tests |= dict.fromkeys(space.test.ids)
    pairs = [(unit, image) for unit, images in crops.items() for image in images]
    tools.gallery.embed(pairs, [*wholes, *tests], paths=paths)
    parts = [tools.gallery.vectors(unit, images) for unit, images in crops.items()]
    parts.append(tools.gallery.wholes(list(wholes)))
    queries = np.concatenate(parts)
    settings = tools.settings
    scores, indices = top_captions(
        queries, tools.store, settings.captions, cast("ScanScore", settings.score), progress=tools.progress
    )
    distinct, inverse = np.unique(indices, return_inverse=True)
    texts = tools.store.texts(distinct)
    captions = [[texts[place] for place in row] for row in inverse.reshape(indices.shape)]
    starts = np.cumsum([0, *(len(images) for images in crops.values())])
    places = {unit: range(starts[i], starts[i + 1]) for i, unit in enumerate(crops)}
    return _Evidence(scores, captions, places, {name: int(starts[-1]) + i for i, name in enumerate(wholes)})


def _concepts(
    found: Confidences, crops: range, low: Sequence[int], calibration: Calibration | None, settings: Settings
) -> tuple[dict[str, float], dict[str, float]]:
    """Terms by equation 1 without and with those that the counterfactuals share."""
    high = found.means(list(crops))
    if not low or not high:
        return high, {}
    shared = found.means(list(low))
    if calibration is None:
        return contrast(high, shared, SPURIOUS if settings.spurious is None else settings.spurious)
    return contrast(high, shared, calibration.thresholds(min(len(low), calibration.confidences.images), shared))


def _plain(unit: Unit, space: Space, selection: Selection, evidence: _Evidence, tools: Tools) -> Description:
    """A description's images and provenance, without concepts yet."""
    settings, made = tools.settings, space.made
    raw = raw_activation(made.values, unit)
    crops = evidence.crops[unit]
    vectors = tools.gallery.vectors(unit, [made.ids[row] for row in selection.high])
    several = len(vectors) > 1
    clarity = metrics.clarity(vectors) if several else None
    high = []
    for place, row in list(zip(crops, selection.high.tolist(), strict=True))[: settings.top]:
        crop = tools.gallery.crop(unit, made.ids[row])
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
        note = f"{_few(settings)} alpha ({space.limits.alpha:.3g}): its {len(selection.high)} strongest stand in"
    elif not len(selection.high):
        method, note = "none", f"{_few(settings)} alpha ({space.limits.alpha:.3g})"
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


def _few(settings: Settings) -> str:
    return "no image passes" if settings.least == 1 else f"fewer than {settings.least} images pass"


def _example(made: Any, row: int, raw: np.ndarray, evidence: _Evidence, place: int | None, **crop: Any) -> Example:
    captions: tuple[tuple[str, float], ...] = ()
    if place is not None:
        captions = tuple(zip(evidence.captions[place], evidence.scores[place].tolist(), strict=True))
    return Example(made.paths[row], made.ids[row], float(raw[row]), captions=captions, **crop)


def _provenance(space: Space, tools: Tools) -> dict[str, Any]:
    return tools.settings.as_dict() | {
        "alpha": space.limits.alpha,
        "epsilon": space.limits.epsilon,
        "holdout": tools.holdout,
        "images": {"made": len(space.made.ids), "test": 0 if space.test is None else len(space.test.ids)},
        "vlm": {"source": tools.vlm.source, "digest": tools.vlm.digest},
        "store": {"captions": len(tools.store), "digest": tools.store.digest},
    }


def _fall_back(
    units: Sequence[Unit],
    found: Sequence[Description],
    spaces: Mapping[str, Space],
    tools: Tools,
    vocabulary: Sequence[str],
    pool: Sequence[str],
) -> list[Description]:
    """Soft-WPMI for the units that have no concept; one that never fires has none whatever the method."""
    empty = [place for place, item in enumerate(found) if not item.concepts]
    todo = [place for place in empty if "never fires" not in found[place].note]
    labels = dissect([units[place] for place in todo], spaces, tools, vocabulary, pool) if todo and vocabulary else {}
    result = list(found)
    for place in empty:
        concepts = labels.get(units[place], ())
        note = found[place].note or _NOTHING
        result[place] = replace(found[place], concepts=concepts, method="dissect" if concepts else "none", note=note)
    return result


def dissect(
    units: Sequence[Unit],
    spaces: Mapping[str, Space],
    tools: Tools,
    vocabulary: Sequence[str],
    pool: Sequence[str] = (),
) -> dict[Unit, tuple[Concept, ...]]:
    """CLIP-Dissect's best concepts for each unit, of a vocabulary, by soft-WPMI over whole images of the probe.

    pool: images that stand for the probe beside each unit's strongest hundred; the first thousand by id by default.
    """
    words = list(dict.fromkeys(vocabulary))
    texts = tools.texts(words)
    found: dict[Unit, tuple[Concept, ...]] = {}
    for name, space in spaces.items():
        made = space.made
        place = {image: row for row, image in enumerate(made.ids)}
        common = np.array([place[image] for image in (pool or sorted(place)[:POOL]) if image in place], np.int64)
        mine = {unit: activation(made.h, unit) for unit in units if space_of(unit) == name}
        if not mine:
            continue
        rows = {
            unit: np.union1d(common, np.argsort(-value, kind="stable")[:_STRONGEST]) for unit, value in mine.items()
        }
        every = np.unique(np.concatenate([common, *rows.values()]))
        paths = dict(zip(made.ids, made.paths, strict=True))
        tools.gallery.embed(wholes=[made.ids[row] for row in every], paths=paths)
        vectors = tools.gallery.wholes([made.ids[row] for row in every])
        similarity = np.zeros((len(made.ids), len(words)), np.float32)
        similarity[every] = vectors @ texts.T
        # of all the space's channels on the common images, so that a unit's label depends on no other unit asked for
        usual = background(similarity[common], made.h[common])
        for unit, value in mine.items():
            chosen = rows[unit]
            scores = np.asarray(soft_wpmi(similarity[chosen], value[chosen], background=usual), dtype=np.float64)
            best = dict(zip(words, scores.tolist(), strict=True))
            found[unit] = _listed(ranked(best, tools.settings.top))
    return found


def _tested(
    units: Sequence[Unit],
    found: Sequence[Description],
    spaces: Mapping[str, Space],
    tools: Tools,
    controls: Sequence[str],
    evidence: _Evidence,
) -> tuple[list[Description], dict[str, list[tuple[int, np.ndarray, np.ndarray]]]]:
    """Each description with its truth, and for the summary each tested unit's strong images by space."""
    result = list(found)
    tests: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    kept = {name: tools.gallery.wholes(space.test.ids) for name, space in spaces.items() if space.test is not None}
    for place, (unit, item) in enumerate(zip(units, found, strict=True)):
        space = spaces[space_of(unit)]
        if space.test is None or not item.concepts:
            continue
        strong = strong_images(activation(space.test.h, unit), space.limits.alpha)
        if strong is None:
            continue
        images = kept[space.name]
        mean = {concept.word: concept.score for concept in item.concepts}
        scores = images @ tools.texts.description(mean)
        beside: dict[str, Interval] = {}
        seed = tools.settings.seed
        if "permuted" in controls:
            beside["permuted"] = _permuted(unit, scores, space, tools.settings)
        if "captions" in controls:
            other = _random_captions(unit, evidence, tools)
            if other:
                beside["captions"] = auc_interval(
                    images @ tools.texts.description(other), strong, seed=tools.settings.seed
                )
        interval = auc_interval(scores, strong, seed=seed)
        result[place] = replace(item, truth=Truth(interval, int(strong.sum()), int((~strong).sum()), beside))
        tests.setdefault(space.name, []).append((place, strong, images))
    return result, tests


def _permuted(unit: Unit, scores: np.ndarray, space: Space, settings: Settings) -> Interval:
    """The description held against other units' images: their mean AUC, with its interval over those units."""
    assert space.test is not None
    rng = np.random.default_rng(_seed(unit, settings.seed))
    others = [channel for channel in rng.permutation(space.width).tolist() if channel not in unit.channels]
    found: list[float] = []
    for channel in others:
        strong = strong_images(space.test.h[:, channel], space.limits.alpha)
        if strong is not None:
            found.append(auc(scores, strong))
        if len(found) == _OTHERS:
            break
    if not found:
        raise UsageError(f"{unit.text} is the only unit of its layer that fires: there is none to permute it with")
    return mean_interval(found, seed=settings.seed)


def _random_captions(unit: Unit, evidence: _Evidence, tools: Tools) -> dict[str, float]:
    """The concepts of a unit whose crops were given random captions instead of their best, with the scores of those."""
    rows = list(evidence.crops[unit])
    if not rows:
        return {}
    rng = np.random.default_rng(_seed(unit, tools.settings.seed))
    scores = evidence.scores[rows]
    drawn = rng.integers(len(tools.store), size=scores.shape)
    texts = tools.store.texts(drawn.ravel())
    captions = [texts[start : start + scores.shape[1]] for start in range(0, len(texts), scores.shape[1])]
    return ranked(confidences(scores, captions, "words").means(), tools.settings.top)


def _seed(unit: Unit, seed: int) -> int:
    """A seed of a unit's own, whatever else is described with it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{unit.text}".encode()).digest()[:8], "big")


def _summary(
    found: Sequence[Description],
    tests: Mapping[str, Sequence[tuple[int, np.ndarray, np.ndarray]]],
    tools: Tools,
) -> dict[str, Any]:
    """Coverage, and means over units beside the best label that is the same for all."""
    count = len(found)
    methods = sorted({item.method for item in found})
    clarities = [item.clarity for item in found if item.clarity is not None]
    summary: dict[str, Any] = {
        "units": count,
        "coverage": sum(item.explained for item in found) / count,
        "labelled": sum(bool(item.concepts) for item in found) / count,
        "methods": {name: sum(item.method == name for item in found) for name in methods},
        "clarity": float(np.mean(clarities)) if clarities else None,
    }
    tested = [item.truth for item in found if item.truth is not None]
    if tested:
        summary["auc"] = _mean([truth.auc.value for truth in tested], tools.settings.seed)
        names = sorted({name for truth in tested for name in truth.controls})
        summary["controls"] = {
            name: _mean([t.controls[name].value for t in tested if name in t.controls], tools.settings.seed)
            for name in names
        }
    words = list(dict.fromkeys(concept.word for item in found for concept in item.concepts))
    if len(tested) > 1 and words:
        texts, totals = tools.texts(words), np.zeros(len(words))
        for items in tests.values():
            strong = np.stack([mask for _, mask, _ in items], axis=1)
            totals += aucs(items[0][2] @ texts.T, strong).sum(0)
        best = int(totals.argmax())
        summary["constant"] = {"word": words[best], "auc": float(totals[best] / len(tested))}
    return summary


def _mean(values: Sequence[float], seed: int) -> dict[str, Any]:
    found = mean_interval(values, seed=seed)
    return {"mean": found.value, "interval": [found.low, found.high]}


def _listed(scores: Mapping[str, float]) -> tuple[Concept, ...]:
    return tuple(Concept(word, float(score)) for word, score in scores.items())
