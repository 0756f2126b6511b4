"""The facets of a polysemantic unit: clusters of the images it answers to (VITAL, figure 26)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.progress import Progress, track
from encoscope.units import Unit
from encoscope.vital.references.references import Reference, References

POOL = 1000
"""How many of a unit's top patches are clustered."""


def split_facets(
    encoder: Encoder,
    unit: Unit,
    pool: References,
    n_facets: int,
    *,
    n_references: int = 50,
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
) -> list[References]:
    """Cluster a unit's references by k-means on their activations.

    The activations are the spatial means of the unit's layer, and the pooled features for classes and features.

    Args:
        encoder: The encoder.
        unit: The unit.
        pool: The unit's references, the strongest first: 1,000 top patches, or all images of a class.
        n_facets: The number of clusters, from 2 on.
        n_references: How many references of each cluster are kept, the first in the order of ``pool``.
        random_state: The seed of k-means.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The references of each cluster, the largest cluster first. Their units are named UNIT#1, UNIT#2, ...

    Raises:
        UsageError: For fewer than two facets, or fewer images than facets.

    Source: VITAL, figure 26.
    """
    if n_facets < 2:
        raise UsageError(f"facets are groups of a unit's images, at least 2, not {n_facets}")
    items, activations = _read_activations(encoder, unit, pool.items, progress)
    if len(items) < n_facets:
        raise UsageError(f"{unit.text} has {len(items)} reference images: too few for {n_facets} facets")
    from sklearn.cluster import KMeans

    clustering = KMeans(n_facets, n_init=10, random_state=random_state)  # pyright: ignore[reportArgumentType]
    labels = clustering.fit_predict(activations)
    sizes = np.bincount(labels, minlength=n_facets)
    facets = []
    for number, cluster in enumerate(np.argsort(-sizes, kind="stable"), 1):
        members = [item for item, label in zip(items, labels, strict=True) if label == cluster]
        notes = [*pool.notes, f"facet {number} of {n_facets}: {len(members)} of its {len(items)} images"]
        if len(members) < n_references:
            notes.append(f"{len(members)} references where {n_references} were asked for")
        facets.append(References(f"{unit.text}#{number}", tuple(members[:n_references]), tuple(notes)))
    return facets


def _read_activations(
    encoder: Encoder, unit: Unit, items: Sequence[Reference], progress: Progress
) -> tuple[list[Reference], Float[np.ndarray, "images channels"]]:
    """The references that can be read, and what is clustered, float64."""
    readable, rows = [], []
    for item in track(items, len(items), f"facets of {unit.text}", progress):
        try:
            pixels = item.input(encoder)
        except EncoscopeError:
            continue  # the statistics of the rest say how many there were
        if unit.layer is None:
            row = encoder.features(pixels)[0]
        else:
            row = encoder.activations(pixels, unit.layer)[unit.layer].maps[0].mean((1, 2))
        readable.append(item)
        rows.append(row.double().cpu().numpy())
    return readable, np.stack(rows) if rows else np.zeros((0, 1))
