"""Do descriptions of class neurons name their class? Measured on a table of names and attributes, with two controls.

A class neuron's meaning is known, so its concepts can be right or wrong: a word is right for a class when it is a word
of the class's name, of a synonym, or of one of its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encoscope.defaults import RANDOM_STATE
from encoscope.falcon import Description
from encoscope.falcon.heldout import compute_mean_interval
from encoscope.falcon.words import extract_terms
from encoscope.metrics import Interval
from encoscope.zoo.attributes import HELD_OUT, ClassWords

TOP = 3


@dataclass(frozen=True)
class Hits:
    """How often the top 3 concepts are right for their class, each class counted alike.

    Attributes:
        precision: share of the top 3 that is right.
        permuted: the same for all other classes' words.
        constant: the same for the best three words, which are the same for all classes.
        constant_words: these words.
        lift: precision above ``permuted``, with a bootstrap interval over classes.
        over_constant: precision above ``constant``, with a bootstrap interval over classes.
        any_right: share of classes with at least one right concept.
        named: share of classes whose whole name is in the top 3 words or phrases, of those whose name is in the
            captions.
        named_or_synonym: the same where synonyms count as well.
        classes: number of classes.
    """

    precision: Interval
    permuted: float
    constant: float
    constant_words: tuple[str, ...]
    lift: Interval
    over_constant: Interval
    any_right: float
    named: float
    named_or_synonym: float
    classes: int


def collect_words(entry: ClassWords) -> frozenset[str]:
    """Collect the words, as concepts are written, of a class's names and attributes.

    Args:
        entry: the class's line of the table.

    Returns:
        The words that are right for the class.
    """
    lists = (entry.kind, entry.parts, entry.material, entry.texture, entry.color, entry.location, entry.doing)
    texts = [*entry.names, *(text for texts in lists for text in texts)]
    return frozenset(word for text in texts for word in extract_terms(text).words)


def measure_hits(
    descriptions: Sequence[Description], table: Sequence[ClassWords], random_state: int = RANDOM_STATE
) -> Hits:
    """Measure how often descriptions name their class.

    Args:
        descriptions: a description of each class.
        table: names and attributes of each class.
        random_state: seed of the bootstrap.

    Returns:
        The measures.
    """
    right = [collect_words(entry) for entry in table]
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
    known = [index for index, entry in enumerate(table) if entry.folder not in HELD_OUT]
    named = [_named(descriptions[index], (table[index].name,)) for index in known]
    any_name = [_named(descriptions[index], table[index].names) for index in known]
    return Hits(
        precision=compute_mean_interval(own.tolist(), random_state=random_state),
        permuted=float(others.mean()),
        constant=float(always.mean()),
        constant_words=constant,
        lift=compute_mean_interval((own - others).tolist(), random_state=random_state),
        over_constant=compute_mean_interval((own - always).tolist(), random_state=random_state),
        any_right=float((own > 0).mean()),
        named=float(np.mean(named)) if named else float("nan"),
        named_or_synonym=float(np.mean(any_name)) if any_name else float("nan"),
        classes=count,
    )


def compute_curve(
    descriptions: Sequence[Description], table: Sequence[ClassWords], longest: int
) -> list[tuple[float, float]]:
    """Compute concept recall and precision of the first 1, 2, ... concepts, each class counted alike.

    Args:
        descriptions: a description of each class.
        table: names and attributes of each class.
        longest: largest number of concepts.

    Returns:
        Pairs of concept recall, the share of a class's right words that are among the concepts, and precision.
    """
    points = []
    for k in range(1, longest + 1):
        recall, precision = [], []
        for item, entry in zip(descriptions, table, strict=True):
            right = collect_words(entry)
            words = item.words[:k]
            recall.append(len(right & set(words)) / len(right))
            precision.append(_precision(words, right))
        points.append((float(np.mean(recall)), float(np.mean(precision))))
    return points


def interpolate_precision(points: Sequence[tuple[float, float]], recall: float) -> float | None:
    """Interpolate the precision of a curve at a recall.

    Args:
        points: pairs of recall and precision.
        recall: the recall, from 0 to 1.

    Returns:
        The precision; None beyond the ends of the curve.
    """
    recalls = np.array([point[0] for point in points])
    precisions = np.array([point[1] for point in points])
    if not len(recalls) or recall < recalls.min() or recall > recalls.max():
        return None
    order = np.argsort(recalls, kind="stable")
    return float(np.interp(recall, recalls[order], precisions[order]))


def compare_contrast(
    with_contrast: Sequence[tuple[float, float]], without: Sequence[tuple[float, float]]
) -> Mapping[str, float | None]:
    """Compare the precision with and without contrast at equal concept recall.

    The recall is that of the contrasted top 3, or the largest that both curves reach.

    Args:
        with_contrast: the curve with contrast.
        without: the curve without contrast.

    Returns:
        The recall and both precisions.
    """
    recall = min(with_contrast[min(TOP, len(with_contrast)) - 1][0], without[-1][0])
    recall = max(recall, without[0][0], with_contrast[0][0])
    return {
        "recall": recall,
        "contrast": interpolate_precision(with_contrast, recall),
        "no_contrast": interpolate_precision(without, recall),
    }


def _precision(words: Sequence[str], right: frozenset[str]) -> float:
    return sum(word in right for word in words) / len(words) if words else 0.0


def _named(description: Description, names: Sequence[str]) -> bool:
    """Whether all words of one of the names are among the top concepts, or the name is a top phrase."""
    top = set(description.words[:TOP])
    phrases = {concept.word for concept in description.phrases[:TOP]}
    for name in names:
        name_terms = extract_terms(name)
        if name_terms.words and (set(name_terms.words) <= top or phrases & set(name_terms.phrases[-1:])):
            return True
    return False
