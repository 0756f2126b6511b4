"""Do descriptions of class neurons name their class? Measured on a table of names and attributes, against two controls.

A class neuron's meaning is known, so its concepts can be right or wrong: a word is right for a class when it is a word
of the class's name, of a synonym, or of one of its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoscope.falcon import Description
from encoscope.falcon.heldout import compute_mean_interval
from encoscope.falcon.words import extract_terms
from encoscope.metrics import Interval
from encoscope.zoo.attributes import HELD_OUT, ClassWords

TOP = 3


@dataclass(frozen=True)
class Hits:
    """How often the top 3 concepts are right for their class, each class counted alike.

    precision: share of the top 3 that is right. permuted: the same held against all other classes' words. constant:
    the best three words, the same for all classes. lift, over_constant: precision above them, with bootstrap intervals
    over classes. any: share of classes with at least one right. named: share of classes whose whole name is in the top
    3 words or phrases, of those whose name is in the captions; named_or_synonym: its synonyms count as well.
    """

    precision: Interval
    permuted: float
    constant: float
    constant_words: tuple[str, ...]
    lift: Interval
    over_constant: Interval
    any: float
    named: float
    named_or_synonym: float
    classes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = {}
        for name, value in vars(self).items():
            interval = isinstance(value, Interval)
            plain[name] = {"value": value.value, "interval": [value.low, value.high]} if interval else value
        return plain


def words_of(entry: ClassWords) -> frozenset[str]:
    """The words, as concepts are written, of a class's names and attributes."""
    lists = (entry.kind, entry.parts, entry.material, entry.texture, entry.colour, entry.place, entry.doing)
    texts = [*entry.names, *(text for texts in lists for text in texts)]
    return frozenset(word for text in texts for word in extract_terms(text).words)


def hits(descriptions: Sequence[Description], table: Sequence[ClassWords], seed: int = 0) -> Hits:
    """The measures, for a description of each class of the table."""
    right = [words_of(entry) for entry in table]
    matrix = np.array([[_precision(item.words[:TOP], words) for words in right] for item in descriptions])
    count = len(table)
    own = np.diag(matrix)
    others = (matrix.sum(1) - own) / max(count - 1, 1)
    common: dict[str, int] = {}
    for words in right:
        for word in words:
            common[word] = common.get(word, 0) + 1
    constant = tuple(sorted(common, key=lambda word: (-common[word], word))[:TOP])
    always = np.array([_precision(constant, words) for words in right])
    known = [place for place, entry in enumerate(table) if entry.folder not in HELD_OUT]
    named = [_named(descriptions[place], (table[place].name,)) for place in known]
    any_name = [_named(descriptions[place], table[place].names) for place in known]
    return Hits(
        precision=compute_mean_interval(own.tolist(), seed=seed),
        permuted=float(others.mean()),
        constant=float(always.mean()),
        constant_words=constant,
        lift=compute_mean_interval((own - others).tolist(), seed=seed),
        over_constant=compute_mean_interval((own - always).tolist(), seed=seed),
        any=float((own > 0).mean()),
        named=float(np.mean(named)) if named else float("nan"),
        named_or_synonym=float(np.mean(any_name)) if any_name else float("nan"),
        classes=count,
    )


def curve(descriptions: Sequence[Description], table: Sequence[ClassWords], longest: int) -> list[tuple[float, float]]:
    """(concept recall, precision) of the first 1, 2, ... concepts, each class counted alike.

    Concept recall: share of a class's right words that are among them.
    """
    points = []
    for k in range(1, longest + 1):
        recall, precision = [], []
        for item, entry in zip(descriptions, table, strict=True):
            right = words_of(entry)
            found = item.words[:k]
            recall.append(len(right & set(found)) / len(right))
            precision.append(_precision(found, right))
        points.append((float(np.mean(recall)), float(np.mean(precision))))
    return points


def precision_at(points: Sequence[tuple[float, float]], recall: float) -> float | None:
    """The precision where a curve has that recall, between its points; None beyond its ends."""
    recalls = np.array([point[0] for point in points])
    precisions = np.array([point[1] for point in points])
    if not len(recalls) or recall < recalls.min() or recall > recalls.max():
        return None
    order = np.argsort(recalls, kind="stable")
    return float(np.interp(recall, recalls[order], precisions[order]))


def contrast_gain(
    with_contrast: Sequence[tuple[float, float]], without: Sequence[tuple[float, float]]
) -> Mapping[str, float | None]:
    """Both precisions at equal concept recall: that of the contrasted top 3, or the most that both curves reach."""
    recall = min(with_contrast[min(TOP, len(with_contrast)) - 1][0], without[-1][0])
    recall = max(recall, without[0][0], with_contrast[0][0])
    return {
        "recall": recall,
        "contrast": precision_at(with_contrast, recall),
        "no_contrast": precision_at(without, recall),
    }


def _precision(words: Sequence[str], right: frozenset[str]) -> float:
    return sum(word in right for word in words) / len(words) if words else 0.0


def _named(description: Description, names: Sequence[str]) -> bool:
    """Whether all words of one of the names are among the top concepts, or the name is a top phrase."""
    top = set(description.words[:TOP])
    phrases = {concept.word for concept in description.phrases[:TOP]}
    for name in names:
        found = extract_terms(name)
        if found.words and (set(found.words) <= top or phrases & set(found.phrases[-1:])):
            return True
    return False
