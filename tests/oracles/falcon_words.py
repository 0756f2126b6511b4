"""FALCON's concepts, word by word and image by image: equation 1 and the contrast with its random sets."""

from __future__ import annotations

import numpy as np

from encoscope.falcon.words import extract_terms


def word_score(term: str, scores, captions, kind: str = "words") -> float:
    """Equation 1 for one term: mean over images of the maximum over captions, one that does not hold it counting 0."""
    total = 0.0
    for image in range(len(captions)):
        total += max(
            0.0,  # of all the captions that are not among the best
            *(
                scores[image][p] if term in getattr(extract_terms(captions[image][p]), kind) else 0.0
                for p in range(len(captions[image]))
            ),
        )
    return total / len(captions)


def all_scores(scores, captions, kind: str = "words") -> dict[str, float]:
    """Every term of every caption with its score."""
    found = {term for texts in captions for text in texts for term in getattr(extract_terms(text), kind)}
    return {term: word_score(term, scores, captions, kind) for term in found}


def is_spurious(term: str, low: list[int], scores, captions, random_sets, kind: str = "words") -> bool:
    """Whether the term's score over ``low`` passes the 95th percentile of its scores over the random sets."""

    def over(images) -> float:
        return word_score(term, [scores[i] for i in images], [captions[i] for i in images], kind)

    values = sorted(over(images) for images in random_sets)
    place = 0.95 * (len(values) - 1)  # linear between the two nearest
    below = int(np.floor(place))
    above = min(below + 1, len(values) - 1)
    limit = values[below] + (place - below) * (values[above] - values[below])
    return over(low) > limit + 1e-9
