"""What the descriptions of a run share: the models and settings, and the captions nearest to all of its crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.embedding import ImageEmbedder, TextVectors
from encoscope.falcon.settings import FalconSettings
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
    batch_size: int = BATCH_SIZE
    holdout: float | str = 0.0
    progress: Progress = None


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
