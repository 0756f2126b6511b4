"""Is a description true? Its own test on images it was not made from, and the controls it has to beat.

A description is turned into one vector, the mean of its concepts' text vectors weighed by their scores, and predicts a
unit's activation on an image by the cosine of that vector and the image's. The measure is the AUC of the unit's strong
images against all others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from encoscope.errors import UsageError
from encoscope.metrics import Interval
from encoscope.vlm import VLM

PROMPTS = ("{}", "a photo of {}")
LEAST = 5  # strong images that a figure needs, and as many ordinary ones
SHARE = 0.05  # of the images count as strong where too few, or most, pass the unit's own threshold
_RESAMPLES = 1000


@dataclass(frozen=True)
class HeldoutTest:
    """auc: with its bootstrap interval, 0.5 by chance. strong, ordinary: images. controls: the same figure without the
    unit's own description, or without its own activations, by the control's name."""

    auc: Interval
    strong: int
    ordinary: int
    controls: Mapping[str, Interval] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document."""
        plain = {"auc": self.auc.value, "interval": [self.auc.low, self.auc.high]}
        plain |= {"strong": self.strong, "ordinary": self.ordinary}
        if self.controls:
            plain["controls"] = {
                name: {"auc": found.value, "interval": [found.low, found.high]} for name, found in self.controls.items()
            }
        return plain


def choose_heldout(ids: Sequence[str], share: float) -> Bool[np.ndarray, " images"]:
    """Which images are kept for the test: those whose id's hash falls in the first ``share`` of all."""
    if not 0 <= share < 1:
        raise UsageError(f"holdout is a share of the images from 0 to below 1, or a dataset, not {share}")
    marks = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") for name in ids]
    return np.array(marks, dtype=np.float64) < share * 2**48


def find_strong_images(activation: Float[np.ndarray, " images"], alpha: float) -> Bool[np.ndarray, " images"] | None:
    """The strong images of a unit: above alpha, as T_i, if those are at least 5 and at most half; else the top 5 %.

    None where no figure can be had: fewer than 10 images, or a unit that is the same on all.
    """
    count = len(activation)
    if count < 2 * LEAST or activation.max() == activation.min():
        return None
    above = activation > alpha
    if LEAST <= above.sum() <= count // 2:
        return above
    chosen = np.zeros(count, dtype=bool)
    chosen[np.argsort(-activation, kind="stable")[: max(LEAST, round(SHARE * count))]] = True
    return chosen


def compute_auc(scores: Float[np.ndarray, " images"], strong: Bool[np.ndarray, " images"]) -> float:
    """The chance that a strong image scores above an ordinary one, ties counted half."""
    positives = int(strong.sum())
    ranks = rankdata(scores)
    return float((ranks[strong].sum() - positives * (positives + 1) / 2) / (positives * (len(scores) - positives)))


def compute_auc_interval(
    scores: Float[np.ndarray, " images"],
    strong: Bool[np.ndarray, " images"],
    *,
    resamples: int = _RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC with its percentile bootstrap interval: strong and ordinary images drawn again, each among themselves.

    Raises UsageError unless there are strong and ordinary images.
    """
    positive, negative = scores[strong], scores[~strong]
    if not len(positive) or not len(negative):
        raise UsageError(f"AUC needs strong and ordinary images: {len(positive)} and {len(negative)} were given")
    rng = np.random.default_rng(seed)
    order = np.sort(negative)
    # for each strong image the ordinary ones below it, half of those equal: a resample only weighs pairs anew
    wins = (positive[:, None] > order).astype(np.float32) + 0.5 * (positive[:, None] == order)
    drawn = []
    for kept in (len(positive), len(negative)):
        places = rng.integers(kept, size=(resamples, kept)) + kept * np.arange(resamples)[:, None]
        counts = np.bincount(places.ravel(), minlength=resamples * kept).reshape(resamples, kept)
        drawn.append(counts.astype(np.float32) / kept)
    values = np.einsum("rn,rn->r", drawn[0] @ wins.astype(np.float32), drawn[1])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(wins.mean(dtype=np.float64)), float(low), float(high), level)


def compute_mean_interval(
    values: Sequence[float], *, resamples: int = _RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """The mean with its percentile bootstrap interval, all resamples at once: for the many means of many units."""
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        raise UsageError("a mean needs at least one value")
    drawn = data[np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))].mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), level)


def compute_aucs(
    scores: Float[np.ndarray, "images labels"], strong: Bool[np.ndarray, "images units"]
) -> Float[np.ndarray, "units labels"]:
    """AUC of every label for every unit."""
    ranks = rankdata(scores, axis=0)
    positives = strong.sum(0)[:, None].astype(np.float64)
    return (strong.T.astype(np.float64) @ ranks - positives * (positives + 1) / 2) / (
        positives * (len(scores) - positives)
    )


class TextVectors:
    """Text vectors of words and phrases, each embedded once, as a photo of it and by itself."""

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, words: Sequence[str]) -> Float[np.ndarray, "words width"]:
        """A unit vector for each word."""
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            found = self.vlm.embed_texts([prompt.format(word) for word in new for prompt in PROMPTS]).numpy()
            means = found.reshape(len(new), len(PROMPTS), -1).mean(1)
            self._known |= dict(zip(new, means / np.linalg.norm(means, axis=1, keepdims=True), strict=True))
        return np.stack([self._known[word] for word in words]) if words else np.zeros((0, self.vlm.width), np.float32)

    def embed_description(self, concepts: Mapping[str, float]) -> Float[np.ndarray, " width"]:
        """One vector of a description: its concepts' mean, weighed by their scores; not negative ones only."""
        weights = np.maximum(np.fromiter(concepts.values(), dtype=np.float32, count=len(concepts)), 0)
        weights = weights if weights.any() else np.ones_like(weights)
        return weights / weights.sum() @ self(list(concepts))


def draw_derangement(count: int, seed: int = 0) -> Int[np.ndarray, " units"]:
    """A random order in which nothing stays in its place. UsageError for fewer than two."""
    if count < 2:
        raise UsageError("units can only be permuted if there are at least two of them")
    order = np.random.default_rng(seed).permutation(count)
    found = np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)  # one cycle through all
    return found
