"""Concepts from the captions of images: the word score (equation 1), and the contrast that removes what is common.

The confidences of many images are one sparse matrix, images by terms. The score of a term over any set of images is the
mean of its column over their rows, which is quick to compute for thousands of sets.
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

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.falcon.words import extract_terms

TermKind: TypeAlias = Literal["words", "phrases"]

SPURIOUS_THRESHOLD = 0.1
"""The authors' threshold for softmax scores: a term that scores more over lowly activating images is spurious."""

_MIN_USUAL = 1e-3  # the score over the probe of a term that the probe does not hold
_MARGIN = 1e-9  # sums in another order differ in their last digits


@dataclass(frozen=True, eq=False)
class Confidences:
    """The confidence of each image in each term: the highest score of its captions that hold the term, 0 without any.

    A score below 0 counts as 0 too: equation 1 takes the maximum over all captions, and one without the term counts 0.

    Attributes:
        values: ``[images, terms]``, sparse.
        terms: A name for each column.
    """

    values: sparse.csr_array
    terms: tuple[str, ...]

    @property
    def images(self) -> int:
        """The number of rows."""
        return _shape(self.values)[0]

    @cached_property
    def columns(self) -> dict[str, int]:
        """The column of each term."""
        return {term: column for column, term in enumerate(self.terms)}

    def means(self, images: Sequence[int] | np.ndarray | None = None) -> dict[str, float]:
        """Compute equation 1: the score of each term over some images.

        Args:
            images: Their rows; None takes all.

        Returns:
            The score of each term that any of them holds, best first.
        """
        rows = self.values if images is None else self.values[np.asarray(images, dtype=np.int64)]
        count = _shape(rows)[0]
        if not count:
            return {}
        held = np.unique(rows.indices)
        totals = np.asarray(rows.sum(axis=0), dtype=np.float64)
        return rank_terms({self.terms[column]: float(totals[column]) / count for column in held})


def compute_confidences(
    scores: Float[np.ndarray, "images captions"], captions: Sequence[Sequence[str]], kind: TermKind = "words"
) -> Confidences:
    """Compute each image's confidence in each term of its captions.

    Args:
        scores: The scores of each image's best captions, cosine or softmax.
        captions: Their texts, in the same order.
        kind: "words" or "phrases".

    Returns:
        The confidences.

    Raises:
        UsageError: For another number of captions than of scores.
    """
    if len(captions) != len(scores) or any(len(texts) != scores.shape[1] for texts in captions):
        raise UsageError(f"{scores.shape} scores need as many captions: a list of {scores.shape[1]} for each image")
    columns: dict[str, int] = {}
    rows: list[int] = []
    indices: list[int] = []
    values: list[float] = []
    for image, (confidence, texts) in enumerate(zip(scores.tolist(), captions, strict=True)):
        best: dict[str, float] = {}
        for score, text in zip(confidence, texts, strict=True):
            for term in getattr(extract_terms(text), kind):
                best[term] = max(score, best.get(term, 0.0))
        rows += [image] * len(best)
        indices += [columns.setdefault(term, len(columns)) for term in best]
        values += best.values()
    matrix = sparse.csr_array((values, (rows, indices)), shape=(len(captions), len(columns)), dtype=np.float64)
    return Confidences(matrix, tuple(columns))


def score_terms(
    scores: Float[np.ndarray, "images captions"], captions: Sequence[Sequence[str]], kind: TermKind = "words"
) -> dict[str, float]:
    """Compute equation 1: the mean over images of the highest score of an image's captions that hold the term.

    Args:
        scores: The scores of each image's best captions.
        captions: Their texts, in the same order.
        kind: "words" or "phrases".

    Returns:
        The score of each term, best first, equal ones in alphabetical order. An image none of whose captions holds a
        term counts as 0.

    Example:
        >>> score_terms(np.array([[0.5, 0.25], [0.25, 0.25]]), [["a red car", "a car"], ["a car", "a dog"]])
        {'car': 0.375, 'red': 0.25, 'dog': 0.125}

    Source: FALCON, equation 1.
    """
    return compute_confidences(scores, captions, kind).means()


def rank_terms(
    scores: Mapping[str, float], n_terms: int | None = None, usual: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Order terms, the best first, equal ones in alphabetical order.

    Args:
        scores: The score s of each term.
        n_terms: The terms that are kept; None keeps all.
        usual: The usual score u of terms. With it they are ordered by s log(s / u), the part of each in the
            Kullback-Leibler divergence of the scores from the usual ones: a word that many images have says little.

    Returns:
        The best terms with their scores.

    Example:
        >>> rank_terms({"cat": 0.1, "dog": 0.3, "ant": 0.1}, n_terms=2)
        {'dog': 0.3, 'ant': 0.1}
    """

    def order(item: tuple[str, float]) -> tuple[float, str]:
        term, score = item
        if usual is None or score <= 0:
            return -score, term
        return -score * math.log(score / max(usual.get(term, 0.0), _MIN_USUAL)), term

    return dict(sorted(scores.items(), key=order)[:n_terms])


def contrast_terms(
    high: Mapping[str, float], low: Mapping[str, float], threshold: float | Mapping[str, float] = SPURIOUS_THRESHOLD
) -> tuple[dict[str, float], dict[str, float]]:
    """Split the terms of highly activating images into those that lowly activating ones share, and the rest.

    Args:
        high: Scores over T_i.
        low: Scores over L_i.
        threshold: A term is spurious when its score over L_i is above it; one number for all terms, or one for each
            (see `Calibration`; a term without one takes 0).

    Returns:
        The terms that are kept, and the spurious ones, both in the order of ``high``.

    Source: FALCON, section 3.3.
    """
    thresholds = threshold if isinstance(threshold, Mapping) else dict.fromkeys(low, threshold)
    spurious = {term for term, score in low.items() if score > thresholds.get(term, 0.0) + _MARGIN}
    kept = {term: score for term, score in high.items() if term not in spurious}
    return kept, {term: score for term, score in high.items() if term in spurious}


class Calibration:
    """Thresholds for cosine scores, where no constant has a meaning: what a term scores over random images.

    A threshold is a percentile of the term's score over random sets of images, as many as L_i has. The sets follow
    from the seed and their size alone. A term that occurs in few of them has the threshold 0, so any score over L_i is
    above it.

    Args:
        confidences: Those of the probe's whole images.
        sets: The number of random sets of one size.
        percentile: From 0 to 100.
        random_state: The seed of the sets.
    """

    def __init__(
        self, confidences: Confidences, *, sets: int = 100, percentile: float = 95.0, random_state: int = RANDOM_STATE
    ) -> None:
        if not confidences.images:
            raise UsageError("contrast cannot be calibrated on no images")
        self.confidences = confidences
        self.sets = sets
        self.percentile = percentile
        self.random_state = random_state
        self._known: dict[int, np.ndarray] = {}

    def random_sets(self, size: int) -> Int[np.ndarray, "sets size"]:
        """Draw the random sets of a size.

        Args:
            size: Images of a set.

        Returns:
            Rows of images, none twice in a set.
        """
        rng = np.random.default_rng([self.random_state, size])
        total = self.confidences.images
        return np.stack([rng.choice(total, size, replace=False) for _ in range(self.sets)])

    def thresholds(self, size: int, terms: Iterable[str]) -> dict[str, float]:
        """Compute the thresholds of terms.

        Args:
            size: Images of a set.
            terms: The terms.

        Returns:
            A threshold for each of the terms that any of the images hold.

        Raises:
            UsageError: For more images in a set than there are.
        """
        total = self.confidences.images
        if not 0 < size <= total:
            raise UsageError(f"sets of {size} images cannot be drawn from {total}")
        if size not in self._known:
            chosen = self.random_sets(size)
            rows = np.repeat(np.arange(self.sets), size)
            member = sparse.csr_array((np.full(chosen.size, 1 / size), (rows, chosen.ravel())), (self.sets, total))
            self._known[size] = _percentiles(member @ self.confidences.values, self.percentile)
        percentiles, columns = self._known[size], self.confidences.columns
        return {term: float(percentiles[columns[term]]) for term in terms if term in columns}


def _percentiles(values: sparse.csr_array, percentile: float) -> Float[np.ndarray, extract_terms]:
    """The percentile of each column, some at a time: the dense matrix of sets and terms need not fit in memory."""
    columns = values.tocsc()
    height, total = _shape(values)
    width = max(1, 4_000_000 // height)
    slices = range(0, total, width)
    percentiles = [np.percentile(columns[:, at : at + width].toarray(), percentile, axis=0) for at in slices]
    return np.concatenate([np.zeros(0), *percentiles])


def _shape(values: sparse.csr_array) -> tuple[int, int]:
    """Rows and columns: scipy's types leave open how many dimensions an array has."""
    rows, columns = cast("tuple[int, int]", values.shape)
    return rows, columns
