"""What features stand for (FALCON): descriptions with their held-out AUC and clarity beside controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from encoscope import plots
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import BuildPlan
from encoscope.atlas.records import CropRecord, DescriptionRecord, FeatureRecord, ImageRecord, Measure, Term
from encoscope.atlas.writer import Writer
from encoscope.falcon import Falcon
from encoscope.falcon.description import Concept, Description, Example
from encoscope.progress import track_steps
from encoscope.units import Unit

CHUNK = 64
"""Units that are described together: the captions are scanned once for them, and no more are lost when it is killed."""

_PERMUTED = "the same description scored on other features' images"
_OTHER_CROPS = "crops of different features"
_METHODS = {"dissect": "soft-WPMI (FALCON found none)", "falcon": "FALCON", "falcon, top-k": "FALCON, top-k"}


def add_descriptions(
    writer: Writer, plan: BuildPlan, units: Sequence[Unit], mean: Sequence[float], std: Sequence[float]
) -> None:
    """Add a description of every unit that has none yet, with clarity, held-out AUC and counterfactuals.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
        units: The units.
        mean: Of every unit's values over the images.
        std: Standard deviation of every unit's values over the images.
    """
    todo = [index for index, unit in enumerate(units) if _lacks_description(writer, unit)]
    if todo:
        falcon = _fit_falcon(writer, plan)
        # a unit's description does not depend on the others of its call, so chunks may be cut anywhere
        with track_steps(len(todo), "describe", plan.progress) as step:
            for start in range(0, len(todo), CHUNK):
                chunk = todo[start : start + CHUNK]
                described = falcon.describe([units[index] for index in chunk])
                embedder = falcon.context_.embedder
                control = compute_clarity_control(
                    [
                        embedder.get_crop_vectors(units[index], [example.id for example in description.high])
                        for index, description in zip(chunk, described, strict=True)
                    ]
                )
                for index, description in zip(chunk, described, strict=True):
                    values = float(mean[index]), float(std[index])
                    writer.add(_make_record(writer, units[index], description, values, control))
                step(len(chunk))
                writer.set_stage("describe", len(units) - len(todo) + start + len(chunk), len(units))
                writer.flush()
    writer.add_control(
        f"Held-out AUC: of a feature's description on images that were not used to find it, beside {_PERMUTED}."
    )
    writer.add_control(f"Clarity: how alike the crops of one feature are, beside how alike {_OTHER_CROPS} are.")
    writer.set_stage("describe", len(units), len(units))


def compute_clarity_control(crops: Sequence[Float[np.ndarray, "_ width"]]) -> float | None:
    """Clarity's control: the mean cosine of two crops of different features.

    Args:
        crops: Of every feature, the vectors of its crops.

    Returns:
        The mean over all pairs of features; None for fewer than two features with crops.
    """
    directions = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in crops if len(vectors)]
    if len(directions) < 2:
        return None
    centres = np.stack([vectors.mean(0, dtype=np.float64) for vectors in directions])
    cosines = centres @ centres.T
    return float((cosines.sum() - cosines.trace()) / (len(centres) * (len(centres) - 1)))


def _fit_falcon(writer: Writer, plan: BuildPlan) -> Falcon:
    settings = plan.settings
    falcon = Falcon(
        plan.encoder,
        vlm=settings.vlm,
        captions=None if settings.captions is None else Path(settings.captions),
        control="permuted",
        progress=plan.progress,
        random_state=settings.random_state,
    ).fit(list(plan.probes.values()))
    writer.set_method(
        "description (FALCON)",
        **{
            "image-text model": falcon.vlm_.source,
            "its digest": falcon.vlm_.digest,
            "captions": len(falcon.captions_),
            "their digest": falcon.captions_.digest,
            "preset": falcon.settings_.preset,
        },
    )
    return falcon


def _make_record(
    writer: Writer, unit: Unit, description: Description, values: tuple[float, float], clarity_control: float | None
) -> FeatureRecord:
    """values: the mean and standard deviation of the unit over the images."""
    previous = writer.get(FeatureRecord, unit.text)
    captions = {example.id: example.captions for example in description.high}
    active = ()
    if previous is not None:
        active = tuple(
            replace(crop, captions=tuple(text for text, _ in captions.get(crop.image, ())[:2]))
            for crop in previous.activating
        )
    return FeatureRecord(
        unit.text,
        layer=unit.layer,
        description=DescriptionRecord(
            concepts=_make_terms(description.concepts),
            phrases=_make_terms(description.phrases),
            spurious=_make_terms(description.spurious),
            method=_METHODS.get(description.method, description.method),
            note=description.untested if description.untested and not description.note else description.note,
            verdict=description.verdict if description.concepts else "",
            score=(
                "soft-WPMI" if description.method == "dissect" else f"{description.settings['score']} of its captions"
            ),
        ),
        heldout_auc=_measure_heldout(description),
        clarity=_measure_clarity(description, clarity_control),
        activating=active,
        counterfactuals=tuple(_make_crop(writer, example, *values) for example in description.low[:6]),
    )


def _measure_heldout(description: Description) -> Measure | None:
    heldout = description.heldout
    if heldout is None:
        return None
    control = heldout.controls.get("permuted")
    return Measure(
        _round(heldout.auc.value),
        f"AUC on {heldout.strong + heldout.ordinary} other images",
        None if control is None else _round(control.value),
        "" if control is None else _PERMUTED,
        (_round(heldout.auc.low), _round(heldout.auc.high)),
    )


def _measure_clarity(description: Description, control: float | None) -> Measure | None:
    if description.clarity is None:
        return None
    return Measure(
        _round(description.clarity),
        "mean cosine of its crops, in the image-text model",
        None if control is None else _round(control),
        "" if control is None else _OTHER_CROPS,
    )


def _make_crop(writer: Writer, example: Example, mean: float, std: float) -> CropRecord:
    """A whole image, as the atlas shows it already where it does."""
    known = writer.get(ImageRecord, example.id)
    thumbnail = None if known is None else known.thumbnail
    if thumbnail is None:
        thumbnail = writer.save_image(plots.to_rgb(example.pixels), side=176)
    return CropRecord(example.id, thumbnail, Measure(_round((example.activation - mean) / (std or 1)), SIGMA))


def _make_terms(concepts: Sequence[Concept]) -> tuple[Term, ...]:
    return tuple(Term(concept.word, _round(concept.score)) for concept in concepts)


def _lacks_description(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or record.description is None


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
