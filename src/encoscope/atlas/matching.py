"""Two atlases side by side: each feature with the most similar one of the other atlas over shared images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float

from encoscope import results
from encoscope.atlas import layout
from encoscope.atlas.reader import Atlas, open_atlas
from encoscope.atlas.records import ComparisonRecord, FeatureRecord, ImageFile, MatchedFeature, MatchedPair, Measure
from encoscope.atlas.writer import Writer
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError, UsageError, explain_calls

MIN_IMAGES = 10
"""Images that both atlases have to hold."""

_CONTROL = "the best of the other atlas's features, images permuted (95th percentile)"


@explain_calls
def compare_atlases(
    site: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    name: str | None = None,
    random_state: int = RANDOM_STATE,
) -> ComparisonRecord:
    """Put another atlas beside one, whose pages then show both; what they show of the other is copied into its site.

    Features are matched by the correlation of their activations over the images that both atlases hold. The control
    is the best correlation that each feature reaches when the images are permuted.

    Args:
        site: The site that gets the comparison.
        other: Another site.
        name: What the other atlas is called in this one; None takes the name of its folder.
        random_state: Of the permutation.

    Returns:
        The record that the site got.

    Raises:
        UsageError: The atlases share fewer than ten images.
        MissingError: A site without activations.

    Example:
        ::

            compare_atlases("SITE", "OTHER").pairs[0].similarity
    """
    own, its = open_atlas(site), open_atlas(other)
    (units, images, values), (other_units, other_images, other_values) = own.read_activations(), its.read_activations()
    shared = sorted(set(images) & set(other_images))
    if len(shared) < MIN_IMAGES:
        raise UsageError(
            f"{own.path} and {its.path} share {len(shared)} images, and {MIN_IMAGES} are needed: build both over the "
            "same"
        )
    standard = _standardize(values[:, [images.index(image) for image in shared]])
    other_standard = _standardize(other_values[:, [other_images.index(image) for image in shared]])
    similarity = standard @ other_standard.T
    order = np.random.default_rng(random_state).permutation(len(shared))
    control = float(f"{np.percentile((standard @ other_standard[:, order].T).max(1), 95):.4g}")
    best, back = similarity.argmax(1), similarity.argmax(0)
    pairs = tuple(
        MatchedPair(
            unit,
            _copy_feature(own.path, its, other_units[match]),
            Measure(float(f"{similarity[row, match]:.4g}"), "correlation over the shared images", control, _CONTROL),
            bool(back[match] == row),
        )
        for row, (unit, match) in enumerate(zip(units, best.tolist(), strict=True))
    )
    model = its.manifest["model"] or {}
    record = ComparisonRecord(
        name or its.path.resolve().name,
        str(model.get("source", its.manifest["title"])),
        str(model.get("digest", "")),
        len(shared),
        pairs,
        "correlation of their activations",
    )
    about = {field: own.manifest[field] for field in ("title", "model", "data", "settings", "key")}
    with Writer(own.path, **about, random_state=own.manifest["seed"]) as writer:
        writer.add(record)
    return record


def _standardize(values: Float[np.ndarray, "units images"]) -> Float[np.ndarray, "units images"]:
    centred = values.astype(np.float64) - values.mean(1, keepdims=True, dtype=np.float64)
    length = np.sqrt(np.square(centred).sum(1, keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)


def _copy_feature(site: Path, other: Atlas, unit: str) -> MatchedFeature:
    """What a comparison shows of a feature of another atlas; its pictures are copied into the site."""
    record: FeatureRecord = other.feature(unit)
    shown = next((entry.picture for entry in record.visualizations if entry.is_representative), None)
    crops = [crop.picture for crop in record.activating[:4]]
    concepts = () if record.description is None else record.description.concepts[:4]
    for source in [*([] if shown is None else [shown]), *crops]:
        _copy_image(other, source, site)
    return MatchedFeature(unit, tuple(term.text for term in concepts), shown, tuple(crops))


def _copy_image(other: Atlas, file: ImageFile, site: Path) -> None:
    target = site / layout.IMAGES / file.name
    if target.is_file():
        return
    source = other.image_path(file)
    if not source.resolve().is_relative_to((other.path / layout.IMAGES).resolve()):
        raise EncoscopeError(f"{other.path} names a picture outside of itself: {file.name}")
    with results.atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
