"""What the descriptions of a run are made with, and the form that their concepts take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.falcon.captions.search import Score as ScanScore
from encoscope.falcon.captions.search import find_top_captions
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.crops import ImageEmbedder
from encoscope.falcon.description import Concept
from encoscope.falcon.heldout import TextVectors
from encoscope.falcon.selection import Selection
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.progress import Progress
from encoscope.units import Unit
from encoscope.vlm import VLM

POOL = 1000
"""Images that stand for the probe where random sets are drawn: enough for percentiles, few enough to embed."""


@dataclass(frozen=True, eq=False)
class DescriptionContext:
    """What all descriptions of a run are made with."""

    encoder: Encoder
    vlm: VLM
    store: CaptionStore
    embedder: ImageEmbedder
    settings: FalconSettings
    texts: TextVectors
    holdout: float | str = 0.0
    progress: Progress = None


def to_concepts(scores: Mapping[str, float]) -> tuple[Concept, ...]:
    """Ranked scores as a description holds them."""
    return tuple(Concept(word, float(score)) for word, score in scores.items())


@dataclass(frozen=True, eq=False)
class CaptionEvidence:
    """The scan's answers: a row for each crop of each unit, and for each whole image that was asked for."""

    scores: Float[np.ndarray, "rows best"]
    captions: list[list[str]]
    crops: dict[Unit, range]
    wholes: dict[str, int]

    def rows(self, ids: Sequence[str]) -> list[int]:
        """Where these whole images are."""
        return [self.wholes[name] for name in ids]


def gather_evidence(
    units: Sequence[Unit],
    chosen: Mapping[Unit, Selection],
    spaces: Mapping[str, Space],
    tools: DescriptionContext,
    pool: Sequence[str],
) -> CaptionEvidence:
    """Embed all crops and whole images that are needed, and scan the captions once for all of them."""
    crops: dict[Unit, list[str]] = {}
    wholes = dict.fromkeys(pool)
    tests: dict[str, None] = {}
    paths: dict[str, str | None] = {}
    for unit in units:
        made = spaces[unit.space].fit
        crops[unit] = [made.ids[row] for row in chosen[unit].high]
        if tools.settings.contrast:
            wholes |= dict.fromkeys(made.ids[row] for row in chosen[unit].low)
    for space in spaces.values():
        paths |= dict(zip(space.fit.ids, space.fit.paths, strict=True))
        if space.heldout is not None:
            paths |= dict(zip(space.heldout.ids, space.heldout.paths, strict=True))
            tests |= dict.fromkeys(space.heldout.ids)
    pairs = [(unit, image) for unit, images in crops.items() for image in images]
    tools.embedder.embed(pairs, [*wholes, *tests], paths=paths)
    parts = [tools.embedder.get_crop_vectors(unit, images) for unit, images in crops.items()]
    parts.append(tools.embedder.get_image_vectors(list(wholes)))
    queries = np.concatenate(parts)
    settings = tools.settings
    scores, indices = find_top_captions(
        queries, tools.store, settings.captions, cast("ScanScore", settings.score), progress=tools.progress
    )
    distinct, inverse = np.unique(indices, return_inverse=True)
    texts = tools.store.texts(distinct)
    captions = [[texts[place] for place in row] for row in inverse.reshape(indices.shape)]
    starts = np.cumsum([0, *(len(images) for images in crops.values())])
    places = {unit: range(starts[i], starts[i + 1]) for i, unit in enumerate(crops)}
    return CaptionEvidence(scores, captions, places, {name: int(starts[-1]) + i for i, name in enumerate(wholes)})
