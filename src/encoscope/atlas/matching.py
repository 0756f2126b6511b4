"""Two atlases side by side: each feature with the one of the other atlas that is most like it over shared images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float

from encoscope import results
from encoscope.atlas import layout
from encoscope.atlas.reader import Atlas, open_atlas
from encoscope.atlas.records import ComparisonRecord, FeatureRecord, MatchedFeature, MatchedPair, Measure, Picture
from encoscope.atlas.writer import Writer
from encoscope.errors import EncoscopeError, UsageError

LEAST = 10
"""Images that both atlases have to hold."""

_CONTROL = "the best of the other atlas's features, images permuted (95th percentile)"


def compare(
    path: str | os.PathLike[str], other: str | os.PathLike[str], *, name: str | None = None, seed: int = 0
) -> ComparisonRecord:
    """Put another atlas beside the one at ``path``, whose pages then show both; what they show of it is copied there.

    Features are matched by the correlation of their activations over the images that both hold. The control is the
    best correlation that each feature here reaches when the images are permuted. Raises UsageError for fewer than ten
    shared images, MissingError for a site without activations.
    """
    here, there = open_atlas(path), open_atlas(other)
    (units, images, values), (units2, images2, values2) = here.activations(), there.activations()
    shared = sorted(set(images) & set(images2))
    if len(shared) < LEAST:
        raise UsageError(
            f"{here.path} and {there.path} share {len(shared)} images, and {LEAST} are needed: build both over the same"
        )
    ours = _standard(values[:, [images.index(image) for image in shared]])
    theirs = _standard(values2[:, [images2.index(image) for image in shared]])
    likeness = ours @ theirs.T
    permuted = ours @ theirs[:, np.random.default_rng(seed).permutation(len(shared))].T
    control = float(f"{np.percentile(permuted.max(1), 95):.4g}")
    best, back = likeness.argmax(1), likeness.argmax(0)
    pairs = tuple(
        MatchedPair(
            unit,
            _side(here.path, there, units2[match]),
            Measure(float(f"{likeness[place, match]:.4g}"), "correlation over the shared images", control, _CONTROL),
            bool(back[match] == place),
        )
        for place, (unit, match) in enumerate(zip(units, best.tolist(), strict=True))
    )
    model = there.manifest["model"] or {}
    record = ComparisonRecord(
        name or there.path.resolve().name,
        str(model.get("source", there.manifest["title"])),
        str(model.get("digest", "")),
        len(shared),
        pairs,
        "correlation of their activations",
    )
    manifest = here.manifest
    about = {field: manifest[field] for field in ("title", "model", "data", "settings", "seed", "key")}
    with Writer(here.path, **about) as writer:
        writer.add(record)
    return record


def _standard(values: Float[np.ndarray, "units images"]) -> Float[np.ndarray, "units images"]:
    centred = values.astype(np.float64) - values.mean(1, keepdims=True, dtype=np.float64)
    length = np.sqrt(np.square(centred).sum(1, keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)


def _side(site: Path, there: Atlas, unit: str) -> MatchedFeature:
    record: FeatureRecord = there.feature(unit)
    shown = next((one.picture for one in record.visualizations if one.stands), None)
    crops = [crop.picture for crop in record.activating[:4]]
    concepts = () if record.description is None else tuple(term.text for term in record.description.concepts[:4])
    for picture in [*([] if shown is None else [shown]), *crops]:
        _copy(there, picture, site)
    return MatchedFeature(unit, concepts, shown, tuple(crops))


def _copy(there: Atlas, picture: Picture, site: Path) -> None:
    target = site / layout.IMAGES / picture.name
    if target.is_file():
        return
    source = there.picture_path(picture)
    if not source.resolve().is_relative_to((there.path / layout.IMAGES).resolve()):
        raise EncoscopeError(f"{there.path} names a picture outside of itself: {picture.name}")
    with results.atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
