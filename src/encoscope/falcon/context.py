"""What the descriptions of a run are made with, and the form that their concepts take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from encoscope.encoder import Encoder
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.crops import Gallery
from encoscope.falcon.description import Concept
from encoscope.falcon.heldout import Texts
from encoscope.falcon.settings import Settings
from encoscope.progress import Progress
from encoscope.vlm import VLM

POOL = 1000
"""Images that stand for the probe where random sets are drawn: enough for percentiles, few enough to embed."""


@dataclass(frozen=True, eq=False)
class Tools:
    """What all descriptions of a run are made with."""

    encoder: Encoder
    vlm: VLM
    store: CaptionStore
    gallery: Gallery
    settings: Settings
    texts: Texts
    holdout: float | str = 0.0
    progress: Progress = None


def listed(scores: Mapping[str, float]) -> tuple[Concept, ...]:
    """Ranked scores as a description holds them."""
    return tuple(Concept(word, float(score)) for word, score in scores.items())
