"""What the descriptions of a run share: the models, the settings, and the captions nearest to all of its crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.falcon.captions.search import find_top_captions
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.case import DescriptionCase
from encoscope.falcon.crops import ImageEmbedder
from encoscope.falcon.heldout import TextVectors
from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Space
from encoscope.progress import Progress
from encoscope.vlm import VLM

POOL = 1000
"""Images that stand for the whole probe where random sets are drawn: enough for percentiles, few enough to embed."""


@dataclass(frozen=True, eq=False)
class DescriptionContext:
    """What all descriptions of a run are made with.

    Attributes:
        encoder: The encoder.
        vlm: The image-text model.
        store: The captions with their vectors.
        embedder: Embeds crops and whole images.
        settings: FALCON's settings.
        texts: Text vectors of words and phrases.
        batch_size: Images at a time.
        holdout: What is held out, as results state it.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
    """

    encoder: Encoder
    vlm: VLM
    store: CaptionStore
    embedder: ImageEmbedder
    settings: FalconSettings
    texts: TextVectors
    batch_size: int = 32
    holdout: float | str = 0.0
    progress: Progress = None

    def record_settings(self, space: Space) -> dict[str, Any]:
        """Write down all that decides the descriptions of a space's units.

        Args:
            space: The space.

        Returns:
            Plain values: the settings with the alpha and epsilon that were used, the images, the models, the captions.
        """
        return self.settings.as_dict() | {
            "alpha": space.thresholds.alpha,
            "epsilon": space.thresholds.epsilon,
            "holdout": self.holdout,
            "images": {"fit": len(space.fit.ids), "heldout": 0 if space.heldout is None else len(space.heldout.ids)},
            "vlm": {"source": self.vlm.source, "digest": self.vlm.digest},
            "store": {"captions": len(self.store), "digest": self.store.digest},
        }


@dataclass(frozen=True, eq=False)
class NearestCaptions:
    """The captions nearest to each crop of each unit, and to whole images.

    Attributes:
        scores: ``[rows, captions]``, the scores of the best captions of each row, best first.
        texts: The captions themselves.
        image_rows: The row of each whole image, by its id. A case says which rows are its crops'.
    """

    scores: Float[np.ndarray, "rows best"]
    texts: list[list[str]]
    image_rows: dict[str, int]

    def find_rows(self, ids: Sequence[str]) -> list[int]:
        """Find the rows of whole images.

        Args:
            ids: The images.

        Returns:
            A row for each.
        """
        return [self.image_rows[name] for name in ids]


def list_spaces(cases: Sequence[DescriptionCase]) -> dict[str, Space]:
    """List the spaces of some cases.

    Args:
        cases: The cases.

    Returns:
        The spaces by name, in the order of their first case.
    """
    return {case.space.name: case.space for case in cases}


def find_nearest_captions(
    cases: Sequence[DescriptionCase], context: DescriptionContext, pool: Sequence[str]
) -> NearestCaptions:
    """Embed all crops and whole images that are needed, and search the captions once for all of them.

    Args:
        cases: The cases; their ``crop_rows``, ``crop_vectors`` and ``counterfactual_rows`` are filled in.
        context: What the run shares.
        pool: The ids of images that stand for the whole probe.

    Returns:
        The nearest captions of the crops, the pool and the counterfactuals. Held-out images are embedded too.
    """
    embedder, settings = context.embedder, context.settings
    wholes = dict.fromkeys(pool)
    heldout: dict[str, None] = {}
    paths: dict[str, str | None] = {}
    if settings.contrast:
        wholes |= dict.fromkeys(image for case in cases for image in case.low_ids)
    for space in list_spaces(cases).values():
        for images in (space.fit, space.heldout):
            paths |= {} if images is None else dict(zip(images.ids, images.paths, strict=True))
        heldout |= dict.fromkeys(() if space.heldout is None else space.heldout.ids)
    pairs = [(case.unit, image) for case in cases for image in case.high_ids]
    embedder.embed(pairs, [*wholes, *heldout], paths=paths, batch_size=context.batch_size)
    start = 0
    for case in cases:
        case.crop_vectors = embedder.get_crop_vectors(case.unit, case.high_ids)
        case.crop_rows = range(start, start + len(case.crop_vectors))
        start = case.crop_rows.stop
    image_rows = {name: start + number for number, name in enumerate(wholes)}
    queries = np.concatenate([*(case.crop_vectors for case in cases), embedder.get_image_vectors(list(wholes))])
    scores, indices = find_top_captions(
        queries, context.store, settings.captions_per_crop, settings.score, progress=context.progress
    )
    distinct, inverse = np.unique(indices, return_inverse=True)
    texts = context.store.texts(distinct)
    nearest = NearestCaptions(
        scores, [[texts[index] for index in row] for row in inverse.reshape(indices.shape)], image_rows
    )
    for case in cases:
        case.counterfactual_rows = tuple(nearest.find_rows(case.low_ids)) if settings.contrast else ()
    return nearest
