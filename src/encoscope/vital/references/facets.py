"""The facets of a polysemantic unit: groups of the images it answers to (paper, figure 26)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.progress import Progress, track
from encoscope.units import Unit
from encoscope.vital.references.references import Reference, References

POOL = 1000
"""How many of a unit's top patches are grouped."""


def split_facets(
    encoder: Encoder,
    unit: Unit,
    pool: References,
    facets: int,
    *,
    number: int = 50,
    seed: int = 0,
    progress: Progress = None,
) -> list[References]:
    """K-means on the activations of a unit's references: for each cluster, the largest first, its first ``number``.

    pool: the unit's references, the strongest first (1,000 top patches, or all images of a class). The activations are
    the spatial means of the unit's layer (of the pooled features, for classes and features). The references' unit is
    named UNIT#1, UNIT#2, ...

    Raises UsageError for fewer than two facets or fewer images than facets.
    """
    if facets < 2:
        raise UsageError(f"facets are groups of a unit's images, at least 2, not {facets}")
    items, activations = _activations(encoder, unit, pool.items, progress)
    if len(items) < facets:
        raise UsageError(f"{unit.text} has {len(items)} reference images: too few for {facets} facets")
    from sklearn.cluster import KMeans

    clustering = KMeans(facets, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = clustering.fit_predict(activations)
    sizes = np.bincount(labels, minlength=facets)
    found = []
    for place, cluster in enumerate(np.argsort(-sizes, kind="stable")):
        members = [item for item, label in zip(items, labels, strict=True) if label == cluster]
        notes = [*pool.notes, f"facet {place + 1} of {facets}: {len(members)} of its {len(items)} images"]
        if len(members) < number:
            notes.append(f"{len(members)} references where {number} were asked for")
        found.append(References(f"{unit.text}#{place + 1}", tuple(members[:number]), tuple(notes)))
    return found


def _activations(
    encoder: Encoder, unit: Unit, items: Sequence[Reference], progress: Progress
) -> tuple[list[Reference], Float[np.ndarray, "images channels"]]:
    """The references that can be read, and what is grouped, float64."""
    kept, rows = [], []
    for item in track(items, len(items), f"facets of {unit.text}", progress):
        try:
            pixels = item.input(encoder)
        except EncoscopeError:
            continue  # the statistics of what is left say how many there were
        if unit.layer is None:
            row = encoder.features(pixels)[0]
        else:
            row = encoder.activations(pixels, unit.layer)[unit.layer].maps[0].mean((1, 2))
        kept.append(item)
        rows.append(row.double().cpu().numpy())
    return kept, np.stack(rows) if rows else np.zeros((0, 1))
