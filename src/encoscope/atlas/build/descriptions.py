"""What features stand for, in words (FALCON), with the truth of it beside its control."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from encoscope import plots
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import BuildPlan
from encoscope.atlas.records import CropRecord, DescriptionRecord, FeatureRecord, ImageRecord, Measure, Term
from encoscope.atlas.writer import Writer
from encoscope.falcon import Falcon
from encoscope.falcon.description import Concept, Description, Descriptions, Example
from encoscope.progress import track_steps
from encoscope.units import Unit

CHUNK = 64
"""Units that are described together: the captions are scanned once for them, and a kill costs no more."""

_PERMUTED = "the same description scored on other features' images"
_UNLIKE = "crops of different features"


def add_words(
    writer: Writer, made: BuildPlan, units: Sequence[Unit], mean: Sequence[float], std: Sequence[float]
) -> None:
    """Words of every unit that has none yet, with clarity, truth and counterfactuals."""
    todo = [place for place, unit in enumerate(units) if _lacks(writer, unit)]
    if todo:
        options = made.options
        captions = None if options.captions is None else Path(options.captions)
        falcon = Falcon(
            made.encoder,
            options.vlm,
            captions,
            control="permuted",
            progress=made.progress,
            seed=options.seed,
        ).fit(list(made.probes.values()))
        writer.method(
            "description (FALCON)",
            **{
                "image-text model": falcon.vlm_.source,
                "its digest": falcon.vlm_.digest,
                "captions": len(falcon.captions_),
                "their digest": falcon.captions_.digest,
                "preset": falcon.preset,
            },
        )
        # a unit's description depends on the others of its call nowhere, so chunks may be cut anywhere
        with track_steps(len(todo), "describe", made.progress) as step:
            for start in range(0, len(todo), CHUNK):
                part = todo[start : start + CHUNK]
                described = falcon.describe([units[place] for place in part])
                assert isinstance(described, Descriptions)  # a list was asked for
                embedder = falcon.context_.embedder
                crops = [
                    embedder.get_crop_vectors(units[place], [example.id for example in found.high])
                    for place, found in zip(part, described, strict=True)
                ]
                control = unlike(crops)
                for place, found in zip(part, described, strict=True):
                    writer.add(_record(writer, units[place], found, float(mean[place]), float(std[place]), control))
                step(len(part))
                writer.stage("describe", len(units) - len(todo) + start + len(part), len(units))
                writer.flush()
    writer.control(
        f"Held-out AUC: of a feature's description on images that were not used to find it, beside {_PERMUTED}."
    )
    writer.control(f"Clarity: how alike the crops of one feature are, beside how alike {_UNLIKE} are.")
    writer.stage("describe", len(units), len(units))


def unlike(crops: Sequence[Float[np.ndarray, "_ width"]]) -> float | None:
    """Clarity's control: the mean cosine of two crops of different features, from the vectors of each."""
    directions = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in crops if len(one)]
    centres = [one.mean(0, dtype=np.float64) for one in directions]
    if len(centres) < 2:
        return None
    every = np.stack(centres) @ np.stack(centres).T
    return float((every.sum() - every.trace()) / (len(centres) * (len(centres) - 1)))


def _record(
    writer: Writer, unit: Unit, found: Description, mean: float, std: float, apart: float | None
) -> FeatureRecord:
    heldout = None
    if found.heldout is not None:
        control = found.heldout.controls.get("permuted")
        heldout = Measure(
            _round(found.heldout.auc.value),
            f"AUC on {found.heldout.strong + found.heldout.ordinary} other images",
            None if control is None else _round(control.value),
            "" if control is None else _PERMUTED,
            (_round(found.heldout.auc.low), _round(found.heldout.auc.high)),
        )
    clarity = None
    if found.clarity is not None:
        clarity = Measure(
            _round(found.clarity),
            "mean cosine of its crops, in the image-text model",
            None if apart is None else _round(apart),
            "" if apart is None else _UNLIKE,
        )
    old = writer.get(FeatureRecord, unit.text)
    captions = {example.id: example.captions for example in found.high}
    active = ()
    if old is not None:
        active = tuple(
            CropRecord(**{**crop.__dict__, "captions": tuple(text for text, _ in captions.get(crop.image, ())[:2])})
            for crop in old.activating
        )
    return FeatureRecord(
        unit.text,
        layer=unit.layer,
        description=DescriptionRecord(
            concepts=_terms(found.concepts),
            phrases=_terms(found.phrases),
            spurious=_terms(found.spurious),
            method=_METHODS.get(found.method, found.method),
            note=found.note,
            score="soft-WPMI" if found.method == "dissect" else f"{found.settings['score']} of its captions",
        ),
        heldout_auc=heldout,
        clarity=clarity,
        activating=active,
        counterfactuals=tuple(_whole(writer, example, mean, std) for example in found.low[:6]),
    )


_METHODS = {"dissect": "soft-WPMI (FALCON found none)", "falcon": "FALCON", "falcon, top-k": "FALCON, top-k"}


def _whole(writer: Writer, example: Example, mean: float, std: float) -> CropRecord:
    known = writer.get(ImageRecord, example.id)
    picture = None if known is None else known.thumbnail
    if picture is None:
        picture = writer.picture(plots.to_rgb(example.pixels), side=176)
    return CropRecord(example.id, picture, Measure(_round((example.activation - mean) / (std or 1)), SIGMA))


def _terms(found: Sequence[Concept]) -> tuple[Term, ...]:
    return tuple(Term(concept.word, _round(concept.score)) for concept in found)


def _lacks(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or record.description is None


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
