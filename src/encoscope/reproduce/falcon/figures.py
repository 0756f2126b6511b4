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
    STAND_IN,
    auc_of,
    build_report,
    describe_units,
    describe_with_members,
    draw_active_features,
    fit_falcon,
    join_words,
    stack_sheets,
)
from encoscope.reproduce.inputs import load_encoders

HELDOUT_NOTE = (
    "AUC: how well the concepts' similarity to images that the description was not made from tells those that activate "
    "the feature from others, [95 % bootstrap interval], 0.5 by chance."
)


def fig2(request: EvaluationRequest) -> Report:
    """Describe features: highly activating images, the regions that were cropped, and the lowly activating images.

    Args:
        request: the experiment's request.

    Returns:
        The table, with the sheets of the features.

    Source: FALCON, Fig. 2.
    """
    settings = request.settings({**DEFAULTS, "min_images": 5})
    (encoder,) = load_encoders(request, (STAND_IN,), ())[:1]
    falcon = fit_falcon(request, settings, encoder, control=("permuted",))
    descriptions = describe_units(falcon, draw_active_features(falcon, request, 4, settings["min_images"]))
    rows = [
        {
            "feature": item.unit,
            "method": item.method,
            "images": item.images,
            "lowly activating": len(item.low),
            "concepts": join_words(item),
            "spurious": ", ".join(concept.word for concept in item.spurious[:5]),
            "clarity": item.clarity,
            "AUC": auc_of(item),
            "permuted": None if item.heldout is None else str(item.heldout.controls.get("permuted", "")),
            "verdict": item.verdict,
        }
        for item in descriptions
    ]
    notes = [
        f"Features at random among those that at least {settings['min_images']} images activate highly (of all, where "
        'there are none: then the strongest images stand in, as "falcon, top-k"); the paper does not say how it chose.',
        f"{HELDOUT_NOTE} permuted: the same concepts and other features' images.",
    ]
    return build_report(
        "falcon-fig2",
        "concepts of features (Fig. 2)",
        rows,
        falcon,
        request,
        settings,
        notes=notes,
        sheets={"falcon-fig2": stack_sheets([item.draw_sheet() for item in descriptions])},
        paper=SIMCLR,
    )


def fig3(request: EvaluationRequest) -> Report:
    """Show what the lowly activating images take away: concepts with and without contrast, and what each predicts.

    Args:
        request: the experiment's request.

    Returns:
        The table, with the sheets of the features.

    Source: FALCON, Fig. 3 and Eq. 2.
    """
    settings = request.settings({**DEFAULTS, "min_images": 5})
    (encoder,) = load_encoders(request, (STAND_IN,), ())[:1]
    falcon = fit_falcon(request, settings, encoder)
    units = draw_active_features(falcon, request, 6, settings["min_images"])
    without = fit_falcon(request, settings, encoder, contrast=False)
    pairs = list(zip(describe_units(falcon, units), describe_units(without, units), strict=True))
    rows: list[dict[str, Any]] = [
        {
            "feature": ours.unit,
            "with contrast": join_words(ours),
            "without": join_words(other),
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
        "spurious: concepts of the lowly activating images, which are like the others but for the feature (Eq. 2).",
        f"{HELDOUT_NOTE} mean: over features, [95 % bootstrap interval over features], the difference paired.",
    ]
    return build_report(
        "falcon-fig3-contrast",
        "what contrast takes away (Fig. 3)",
        rows,
        falcon,
        request,
        settings,
        notes=notes,
        sheets={"falcon-fig3-contrast": stack_sheets([ours.draw_sheet() for ours, _ in pairs])},
        paper="one feature, whose spurious concepts are 'dog' and 'white'",
    )


def fig4(request: EvaluationRequest) -> Report:
    """Describe features that are highly activated together, beside each of them alone.

    Args:
        request: the experiment's request.

    Returns:
        The table, with the sheets of two groups.

    Source: FALCON, Fig. 4.
    """
    settings = request.settings({**DEFAULTS, "more_than": 10, "largest": 2})
    (encoder,) = load_encoders(request, (STAND_IN,), (DINO,))[:1]
    falcon = fit_falcon(request, settings, encoder)
    groups = falcon.find_groups(more_than=settings["more_than"], largest=settings["largest"], embed=False)
    described = describe_with_members(falcon, groups.groups[: request.limit or 6])
    rows: list[dict[str, Any]] = []
    for whole, members in described:
        rows += [_member(whole, "group"), *(_member(member, "feature") for member in members)]
    rows += _gains(described, request.seed)
    notes = [
        f"The groups of at most {settings['largest']} features that the most images share ({len(groups)} groups have "
        f"more than {settings['more_than']} images); the authors keep groups of more than 10. clarity: mean cosine of "
        "the pairs of crops.",
        "gain: the group's figure less the best of its features', mean over groups, [95 % bootstrap interval].",
        HELDOUT_NOTE,
    ]
    if not described:
        notes.insert(0, "No group of features: give --set more_than=N with a smaller N, or more images.")
        rows = [_empty_row("none")]
    sheets = [item.draw_sheet() for whole, members in described[:2] for item in (whole, *members)]
    return build_report(
        "falcon-fig4-groups",
        "groups of features beside single ones (Fig. 4)",
        rows,
        falcon,
        request,
        settings,
        notes=notes,
        sheets={"falcon-fig4-groups": stack_sheets(sheets)} if sheets else {},
        paper="" if encoder.source == DINO else "DINO's ResNet-50, trained on ImageNet",
    )


def _empty_row(kind: str) -> dict[str, Any]:
    return {"kind": kind, **dict.fromkeys(("unit", "images", "concepts", "clarity", "AUC"))}


def _member(item: Description, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "unit": item.unit,
        "images": item.images,
        "concepts": join_words(item),
        "clarity": item.clarity,
        "AUC": auc_of(item),
    }


def _gains(described: list[tuple[Description, list[Description]]], random_state: int) -> list[dict[str, Any]]:
    """By how much groups surpass the best of their features, where both have a figure."""
    clear = [
        (whole.clarity, max(member.clarity for member in members if member.clarity is not None))
        for whole, members in described
        if whole.clarity is not None and any(member.clarity is not None for member in members)
    ]
    tested = [
        (whole.heldout.auc.value, max(member.heldout.auc.value for member in members if member.heldout is not None))
        for whole, members in described
        if whole.heldout is not None and any(member.heldout is not None for member in members)
    ]
    if not clear:
        return []
    row = _empty_row("gain") | {"unit": f"{len(described)} groups"}
    row["clarity"] = bootstrap([value - best for value, best in clear], random_state=random_state)
    return [
        row
        | {"AUC": bootstrap([value - best for value, best in tested], random_state=random_state) if tested else None}
    ]


def _gain(ours: Description, other: Description) -> float | None:
    if ours.heldout is None or other.heldout is None:
        return None
    return ours.heldout.auc.value - other.heldout.auc.value


def _means(pairs: list[tuple[Description, Description]], random_state: int) -> dict[str, Interval | None]:
    tested = [
        (ours.heldout.auc.value, other.heldout.auc.value)
        for ours, other in pairs
        if ours.heldout is not None and other.heldout is not None
    ]
    if not tested:
        return {}
    ours, others = ([pair[index] for pair in tested] for index in (0, 1))
    return {
        "AUC with": bootstrap(ours, random_state=random_state),
        "AUC without": bootstrap(others, random_state=random_state),
        "difference": bootstrap_difference(ours, others, random_state=random_state),
    }
