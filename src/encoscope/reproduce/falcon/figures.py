"""FALCON's figures: concepts of features (2), what contrast takes away (3), groups beside single features (4)."""

from __future__ import annotations

from typing import Any

from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.falcon import Description
from encoscope.metrics import Interval, bootstrap, bootstrap_difference
from encoscope.reproduce.falcon.harness import (
    DEFAULTS,
    DINO,
    SIMCLR,
    auc_of,
    described,
    encoders,
    firing,
    fitted,
    report,
    stacked,
    words,
)
from encoscope.reproduce.falcon.zoo import beside_members

TRUTH = (
    "AUC: how well the concepts' similarity to photos that the description was not made from tells those that activate "
    "the feature from others, [95 % bootstrap interval], 0.5 by chance."
)


def fig2(request: EvaluationRequest) -> Report:
    """Concepts of some features: highly activating photos, the parts that were cropped, the lowly activating ones."""
    asked = request.settings({**DEFAULTS, "least": 5})
    (encoder,) = encoders(request, None)[:1]
    falcon = fitted(request, asked, encoder, control=("permuted",))
    found = described(falcon, firing(falcon, request, 4, asked["least"]))
    rows = [
        {
            "feature": item.unit,
            "method": item.method,
            "images": item.images,
            "lowly activating": len(item.low),
            "concepts": words(item),
            "spurious": ", ".join(concept.word for concept in item.spurious[:5]),
            "clarity": item.clarity,
            "AUC": auc_of(item),
            "permuted": None if item.heldout is None else item.heldout.controls.get("permuted"),
        }
        for item in found
    ]
    notes = [
        f"Features at random among those that at least {asked['least']} photos activate highly (of all, where "
        'there are none: then the strongest photos stand in, as "falcon, top-k"); the paper does not say how it chose.',
        f"{TRUTH} permuted: the same concepts and other features' photos.",
    ]
    return report(
        "falcon-fig2",
        "concepts of features (Fig. 2)",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        pictures={"falcon-fig2": stacked([item.sheet() for item in found])},
        paper=SIMCLR,
    )


def contrast(request: EvaluationRequest) -> Report:
    """What the lowly activating photos take away: the concepts with and without contrast, and what each predicts."""
    asked = request.settings({**DEFAULTS, "least": 5})
    (encoder,) = encoders(request, None)[:1]
    falcon = fitted(request, asked, encoder)
    units = firing(falcon, request, 6, asked["least"])
    plain = fitted(request, asked, encoder, contrast=False)
    pairs = list(zip(described(falcon, units), described(plain, units), strict=True))
    rows: list[dict[str, Any]] = [
        {
            "feature": ours.unit,
            "with contrast": words(ours),
            "without": words(other),
            "spurious": ", ".join(concept.word for concept in ours.spurious[:5]),
            "lowly activating": len(ours.low),
            "AUC with": auc_of(ours),
            "AUC without": auc_of(other),
            "difference": _gain(ours, other),
        }
        for ours, other in pairs
    ]
    rows.append({**dict.fromkeys(rows[0]), "feature": "mean", **_means(pairs, request.seed)})
    notes = [
        "spurious: concepts of the lowly activating photos, which are like the others but for the feature (Eq. 2).",
        f"{TRUTH} mean: over features, [95 % bootstrap interval over features], the difference paired.",
    ]
    return report(
        "falcon-fig3-contrast",
        "what contrast takes away (Fig. 3)",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        pictures={"falcon-fig3-contrast": stacked([ours.sheet() for ours, _ in pairs])},
        paper="one feature, whose spurious concepts are 'dog' and 'white'",
    )


def groups(request: EvaluationRequest) -> Report:
    """Features that are highly activated together, beside each of them alone."""
    asked = request.settings({**DEFAULTS, "more_than": 10, "largest": 2})
    (encoder,) = encoders(request, DINO)[:1]
    falcon = fitted(request, asked, encoder)
    together = falcon.groups(more_than=asked["more_than"], largest=asked["largest"], embed=False)
    found = beside_members(falcon, together[: request.limit or 6])
    rows: list[dict[str, Any]] = []
    for whole, parts in found:
        rows += [_member(whole, "group"), *(_member(part, "feature") for part in parts)]
    rows += _gains(found, request.seed)
    notes = [
        f"The groups of at most {asked['largest']} features that the most photos share ({len(together)} groups have "
        f"more than {asked['more_than']} photos); the authors keep groups of more than 10. clarity: mean cosine of the "
        "pairs of crops.",
        "gain: the group's figure less the best of its features', mean over groups, [95 % bootstrap interval].",
        TRUTH,
    ]
    if not found:
        notes.insert(0, "No group of features: give --set more_than=N with a smaller N, or more photos.")
        rows = [_blank("none")]
    sheets = [item.sheet() for whole, parts in found[:2] for item in (whole, *parts)]
    return report(
        "falcon-fig4-groups",
        "groups of features beside single ones (Fig. 4)",
        rows,
        falcon,
        request,
        asked,
        notes=notes,
        pictures={"falcon-fig4-groups": stacked(sheets)} if sheets else {},
        paper="" if encoder.source == DINO else "DINO's ResNet-50, trained on ImageNet",
    )


def _blank(kind: str) -> dict[str, Any]:
    return {"kind": kind, **dict.fromkeys(("unit", "images", "concepts", "clarity", "AUC"))}


def _member(item: Description, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "unit": item.unit,
        "images": item.images,
        "concepts": words(item),
        "clarity": item.clarity,
        "AUC": auc_of(item),
    }


def _gains(found: list[tuple[Description, list[Description]]], seed: int) -> list[dict[str, Any]]:
    """By how much groups surpass the best of their features, where both have a figure."""
    clear = [
        (whole.clarity, max(part.clarity for part in parts if part.clarity is not None))
        for whole, parts in found
        if whole.clarity is not None and any(part.clarity is not None for part in parts)
    ]
    true = [
        (whole.heldout.auc.value, max(part.heldout.auc.value for part in parts if part.heldout is not None))
        for whole, parts in found
        if whole.heldout is not None and any(part.heldout is not None for part in parts)
    ]
    if not clear:
        return []
    row = _blank("gain") | {"unit": f"{len(found)} groups"}
    row["clarity"] = bootstrap([one - best for one, best in clear], seed=seed)
    return [row | {"AUC": bootstrap([one - best for one, best in true], seed=seed) if true else None}]


def _gain(ours: Description, other: Description) -> float | None:
    if ours.heldout is None or other.heldout is None:
        return None
    return ours.heldout.auc.value - other.heldout.auc.value


def _means(pairs: list[tuple[Description, Description]], seed: int) -> dict[str, Interval | None]:
    tested = [
        (ours.heldout.auc.value, other.heldout.auc.value)
        for ours, other in pairs
        if ours.heldout is not None and other.heldout is not None
    ]
    if not tested:
        return {}
    one, two = ([pair[place] for pair in tested] for place in (0, 1))
    return {
        "AUC with": bootstrap(one, seed=seed),
        "AUC without": bootstrap(two, seed=seed),
        "difference": bootstrap_difference(one, two, seed=seed),
    }
