"""Equation 1 and contrast, against the literal form."""

from __future__ import annotations

import numpy as np
import pytest

from encoscope.errors import UsageError
from encoscope.falcon.concept_scores import Calibration, compute_confidences, contrast_terms, rank_terms, score_terms
from encoscope.zoo.captions import load_vocabulary
from oracles import falcon_words as oracle


def sample(images: int, seed: int = 0, softmax: bool = False) -> tuple[np.ndarray, list[list[str]]]:
    """Scores, some of them equal and some negative, and captions from a few of the vocabulary's."""
    rng = np.random.default_rng(seed)
    pool = load_vocabulary()[:1200:40]
    captions = [[pool[i] for i in rng.choice(len(pool), 5, replace=False)] for _ in range(images)]
    scores = np.round(rng.uniform(-0.05, 0.4, (images, 5)), 2)
    if softmax:
        scores = np.exp(100 * scores) / np.exp(100 * scores).sum(1, keepdims=True)
    return -np.sort(-scores, axis=1), captions


@pytest.mark.parametrize("kind", ["words", "phrases"])
@pytest.mark.parametrize("softmax", [False, True])
def test_word_scores_are_equation_1(kind, softmax) -> None:
    scores, captions = sample(40, softmax=softmax)
    found = score_terms(scores, captions, kind)
    expected = oracle.all_scores(scores, captions, kind)
    assert found.keys() == expected.keys() and len(found) > 10
    assert all(abs(found[term] - value) < 1e-12 for term, value in expected.items())
    assert list(found) == sorted(found, key=lambda term: (-found[term], term))


def test_a_caption_that_says_a_word_twice_counts_once_and_sets_of_images_are_means() -> None:
    scores = np.array([[0.3, 0.2], [0.4, 0.1]])
    captions = [["a dog and two dogs", "a dog"], ["a cat", "the cat's dog"]]
    assert score_terms(scores, captions) == pytest.approx({"dog": 0.2, "cat": 0.2})
    assert list(score_terms(scores, captions)) == ["cat", "dog"]  # equal: alphabetical
    each = compute_confidences(scores, captions)
    assert each.means([1]) == pytest.approx({"cat": 0.4, "dog": 0.1})
    assert each.means([]) == {} and each.means([0]).keys() == {"dog"}
    assert rank_terms(each.means(), 1).keys() == {"cat"}


def test_captions_without_terms_and_images_without_captions() -> None:
    assert score_terms(np.zeros((2, 1)), [["of the"], [""]]) == {}
    assert score_terms(np.zeros((0, 5)), []) == {}
    with pytest.raises(UsageError, match="a list of 2 for each image"):
        score_terms(np.zeros((2, 2)), [["a dog"], ["a cat"]])


def test_contrast_with_a_constant() -> None:
    high = {"komondor": 0.5, "dog": 0.4, "white": 0.3}
    kept, spurious = contrast_terms(high, {"dog": 0.2, "white": 0.1, "cat": 0.9}, 0.1)
    assert kept == {"komondor": 0.5, "white": 0.3} and spurious == {"dog": 0.4}
    kept, spurious = contrast_terms(high, {"dog": 0.2, "white": 0.1}, {"dog": 0.25})  # none for white: 0
    assert list(kept) == ["komondor", "dog"] and list(spurious) == ["white"]


@pytest.mark.parametrize("kind", ["words", "phrases"])
def test_calibrated_contrast_is_the_literal_one(kind) -> None:
    scores, captions = sample(60, seed=1)
    calibration = Calibration(compute_confidences(scores, captions, kind), sets=20, random_state=3)
    low = [3, 8, 21, 40, 41, 55]
    found = calibration.confidences.means(low)
    _, spurious = contrast_terms(found, found, calibration.thresholds(len(low), found))
    sets = calibration.random_sets(len(low))
    assert all(len(set(images)) == len(low) for images in sets.tolist())
    expected = {term for term in found if oracle.is_spurious(term, low, scores, captions, sets, kind)}
    assert set(spurious) == expected and 0 < len(expected) < len(found)


def test_calibration_follows_from_the_seed_and_refuses_what_cannot_be_drawn() -> None:
    scores, captions = sample(30)
    each = compute_confidences(scores, captions)
    first, again, other = (Calibration(each, sets=10, random_state=seed) for seed in (0, 0, 1))
    first.thresholds(4, each.terms)  # the order of calls does not matter
    assert first.thresholds(7, each.terms) == again.thresholds(7, each.terms) != other.thresholds(7, each.terms)
    assert first.thresholds(7, ["no such term"]) == {}
    for size in (0, 31):
        with pytest.raises(UsageError, match="cannot be drawn from 30"):
            first.thresholds(size, each.terms)
    with pytest.raises(UsageError, match="on no images"):
        Calibration(compute_confidences(np.zeros((0, 5)), []))


def test_specific_terms_can_stand_before_usual_ones() -> None:
    scores = {"animal": 0.8, "leopard": 0.5, "fur": 0.5, "tree": 0.1}
    assert list(rank_terms(scores)) == ["animal", "fur", "leopard", "tree"]
    usual = {"animal": 0.5, "fur": 0.2, "leopard": 0.01}
    found = rank_terms(scores, 3, usual)
    assert found == {"leopard": 0.5, "fur": 0.5, "tree": 0.1}
    assert list(found) == ["leopard", "tree", "fur"]  # s log(s / u): 1.96, 0.1 log(100) = 0.461, 0.458; animal 0.376
