"""Concepts from the captions of images: the word score (equation 1), and the contrast that removes what is common.

Scores of many images are kept as one sparse matrix, images by terms: the score of a term over any set of images is the
mean of its column over those rows, so sets are cheap and there may be thousands of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, cast

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from encoscope.errors import UsageError
from encoscope.falcon.words import extract_terms

Kind: TypeAlias = Literal["words", "phrases"]

_RARE = 1e-3  # what a term that the probe does not hold counts as scoring there
_MARGIN = 1e-9  # sums in another order differ in their last digits

SPURIOUS_THRESHOLD = 0.1
"""The authors' threshold for softmax scores: a term that scores more over lowly activating images is spurious."""


@dataclass(frozen=True, eq=False)
class Confidences:
    """How surely each image shows each term: the highest score of its captions that hold the term, 0 without any.

    values: sparse. terms: a name for each column.
    """

    values: sparse.csr_array
    terms: tuple[str, ...]

    @property
    def images(self) -> int:
        """Number of rows."""
        return _shape(self.values)[0]

    @cached_property
    def columns(self) -> dict[str, int]:
        """Where each term is."""
        return {term: column for column, term in enumerate(self.terms)}

    def means(self, images: Sequence[int] | np.ndarray | None = None) -> dict[str, float]:
        """Equation 1 over all images, or over those: the score of each term that one of them holds, best first."""
        rows = self.values if images is None else self.values[np.asarray(images, dtype=np.int64)]
        count = _shape(rows)[0]
        if not count:
            return {}
        held = np.unique(rows.indices)
        totals = np.asarray(rows.sum(axis=0), dtype=np.float64)
        return rank_terms({self.terms[column]: float(totals[column]) / count for column in held})


def compute_confidences(
    scores: Float[np.ndarray, "images captions"], captions: Sequence[Sequence[str]], kind: Kind = "words"
) -> Confidences:
    """Each image's confidence in each term of its captions.

    scores: of each image's top captions, cosine or softmax. captions: their texts, in the same order.
    """
    if len(captions) != len(scores) or any(len(texts) != scores.shape[1] for texts in captions):
        raise UsageError(f"{scores.shape} scores need as many captions: a list of {scores.shape[1]} for each image")
    columns: dict[str, int] = {}
    rows: list[int] = []
    places: list[int] = []
    values: list[float] = []
    for image, (confidence, texts) in enumerate(zip(scores.tolist(), captions, strict=True)):
        best: dict[str, float] = {}
        for score, text in zip(confidence, texts, strict=True):
            for term in getattr(extract_terms(text), kind):
                best[term] = max(score, best.get(term, score))
        rows += [image] * len(best)
        places += [columns.setdefault(term, len(columns)) for term in best]
        values += best.values()
    matrix = sparse.csr_array((values, (rows, places)), shape=(len(captions), len(columns)), dtype=np.float64)
    return Confidences(matrix, tuple(columns))


def score_terms(
    scores: Float[np.ndarray, "images captions"], captions: Sequence[Sequence[str]], kind: Kind = "words"
) -> dict[str, float]:
    """Equation 1: the mean over images of the highest score of an image's captions that hold the term; best first.

    An image none of whose captions holds a term counts as 0. Terms of equal score stand in alphabetical order.
    """
    return compute_confidences(scores, captions, kind).means()


def rank_terms(
    scores: Mapping[str, float], top: int | None = None, usual: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The best terms with their scores, best first; equals in alphabetical order.

    usual: what terms score anyway, u; given, terms stand in the order of s log(s / u), each one's part in the
    Kullback-Leibler divergence of the scores from the usual ones: a word that many images have says little of these.
    """

    def order(item: tuple[str, float]) -> tuple[float, str]:
        term, score = item
        if usual is None or score <= 0:
            return -score, term
        return -score * math.log(score / max(usual.get(term, 0.0), _RARE)), term

    return dict(sorted(scores.items(), key=order)[:top])


def contrast_terms(
    high: Mapping[str, float], low: Mapping[str, float], threshold: float | Mapping[str, float] = SPURIOUS_THRESHOLD
) -> tuple[dict[str, float], dict[str, float]]:
    """The terms of highly activating images without and with those also found in lowly activating ones (section 2.3).

    high, low: word scores over T_i and L_i. threshold: a term is spurious when its score over L_i is above it; one for
    all, or one for each term (see `Calibration`; a term that has none takes 0). Both parts keep the order of ``high``.
    """
    limits = threshold if isinstance(threshold, Mapping) else dict.fromkeys(low, threshold)
    spurious = {term for term, score in low.items() if score > limits.get(term, 0.0) + _MARGIN}
    kept = {term: score for term, score in high.items() if term not in spurious}
    return kept, {term: score for term, score in high.items() if term in spurious}


class Calibration:
    """What a term scores over images of no special kind: thresholds for cosine scores, where no constant has a meaning.

    A threshold is a percentile of the term's score over random sets of images, as many as L_i has. The sets follow
    from the seed and their size alone; a term that turns up in few of them has the threshold 0, so that any score of
    L_i is above it.

    confidences: of the probe's images, each as a whole. sets: how many random sets of one size.
    """

    def __init__(self, confidences: Confidences, *, sets: int = 100, percentile: float = 95.0, seed: int = 0) -> None:
        if not confidences.images:
            raise UsageError("contrast cannot be calibrated on no images")
        self.confidences = confidences
        self.sets = sets
        self.percentile = percentile
        self.seed = seed
        self._known: dict[int, np.ndarray] = {}

    def random_sets(self, size: int) -> Int[np.ndarray, "sets size"]:
        """The random sets of that size: rows of images, none twice in a set."""
        rng = np.random.default_rng([self.seed, size])
        total = self.confidences.images
        return np.stack([rng.choice(total, size, replace=False) for _ in range(self.sets)])

    def thresholds(self, size: int, terms: Iterable[str]) -> dict[str, float]:
        """A threshold for each of the terms that the images hold, for sets of that many images."""
        total = self.confidences.images
        if not 0 < size <= total:
            raise UsageError(f"sets of {size} images cannot be drawn from {total}")
        if size not in self._known:
            chosen = self.random_sets(size)
            rows = np.repeat(np.arange(self.sets), size)
            member = sparse.csr_array((np.full(chosen.size, 1 / size), (rows, chosen.ravel())), (self.sets, total))
            self._known[size] = _percentiles(member @ self.confidences.values, self.percentile)
        found, columns = self._known[size], self.confidences.columns
        return {term: float(found[columns[term]]) for term in terms if term in columns}


def _percentiles(values: sparse.csr_array, percentile: float) -> Float[np.ndarray, extract_terms]:
    """The percentile of each column, a slice of columns at a time: sets by terms need not fit in memory as numbers."""
    columns = values.tocsc()
    height, total = _shape(values)
    width = max(1, 4_000_000 // height)
    slices = range(0, total, width)
    parts = [np.percentile(columns[:, at : at + width].toarray(), percentile, axis=0) for at in slices]
    return np.concatenate([np.zeros(0), *parts])


def _shape(values: sparse.csr_array) -> tuple[int, int]:
    """Rows and columns: scipy's types leave open how many dimensions an array has."""
    rows, columns = cast("tuple[int, int]", values.shape)
    return rows, columns
