from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from encoscope.errors import UsageError
from encoscope.falcon.embedding import TextVectors
from encoscope.falcon.heldout import (
    ChanceLevel,
    HeldoutTest,
    compute_auc,
    compute_auc_interval,
    compute_aucs,
    draw_derangement,
    find_strong_images,
)
from encoscope.images import split_images
from encoscope.metrics import Interval, bootstrap


def sample(images: int = 300, seed: int = 0):
    rng = np.random.default_rng(seed)
    strong = rng.random(images) < 0.1
    return (rng.normal(size=images) + strong).round(1), strong  # rounded: ties


def test_auc_is_scikit_learns():
    scores, strong = sample()
    assert compute_auc(scores, strong) == pytest.approx(roc_auc_score(strong, scores), abs=1e-12)
    assert compute_auc_interval(scores, strong).value == pytest.approx(roc_auc_score(strong, scores), abs=1e-6)
    labels = np.stack([scores, -scores, sample(seed=1)[0]], axis=1)
    units = np.stack([strong, sample(seed=2)[1]], axis=1)
    wanted = [[roc_auc_score(units[:, u], labels[:, w]) for w in range(3)] for u in range(2)]
    np.testing.assert_allclose(compute_aucs(labels, units), wanted, atol=1e-12)


def test_a_verdict_needs_the_interval_above_chance_and_the_value_above_its_draws():
    def verdict(auc, low, **controls):
        levels = {name: ChanceLevel(mean, 0.1, high, 20) for name, (mean, high) in controls.items()}
        return HeldoutTest(Interval(auc, low, 1.0), 5, 50, levels).verdict

    better, chance = "beats its control", "no better than chance"
    assert verdict(0.8, 0.6, captions=(0.5, 0.7), permuted=(0.5, 0.6)) == better
    assert verdict(0.8, 0.6, captions=(0.65, 0.66)) == chance  # the interval holds chance
    assert verdict(0.8, 0.6, captions=(0.5, 0.85)) == chance  # more than one random description in twenty is as good
    assert verdict(0.8, 0.6, captions=(0.5, 0.7), permuted=(0.7, 0.71)) == chance
    assert verdict(0.8, 0.49) == chance and verdict(0.8, 0.51) == better


def test_random_descriptions_rarely_beat_chance():
    """Of descriptions without any meaning nearly none is called better than chance."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(200):
        strong = np.zeros(200, dtype=bool)
        strong[rng.permutation(200)[:12]] = True
        levels = {
            name: ChanceLevel.of([compute_auc(rng.normal(size=200), strong) for _ in range(20)])
            for name in ("captions", "permuted")
        }
        interval = compute_auc_interval(rng.normal(size=200), strong, resamples=200)
        verdicts.append(HeldoutTest(interval, 12, 188, levels).verdict)
    assert verdicts.count("beats its control") <= 10  # 5 %


def test_the_interval_is_that_of_the_plain_bootstrap():
    scores, strong = sample()
    found = compute_auc_interval(scores, strong, resamples=4000, random_state=3)

    def of_rows(rows):
        return compute_auc(scores[rows.astype(int)], strong[rows.astype(int)])

    plain = bootstrap(np.arange(300.0), of_rows, resamples=500)
    assert found.low == pytest.approx(plain.low, abs=0.02) and found.high == pytest.approx(plain.high, abs=0.02)
    assert compute_auc_interval(scores, strong, random_state=3) == compute_auc_interval(scores, strong, random_state=3)
    with pytest.raises(UsageError, match="0 and 300"):
        compute_auc_interval(scores, np.zeros(300, dtype=bool))


def test_images_are_held_out_by_their_ids_alone():
    ids = [f"{i}" for i in range(5000)]
    kept = split_images(ids, 0.2)
    assert 0.18 < kept.mean() < 0.22
    assert list(split_images(ids[::-1], 0.2)) == list(kept[::-1])
    assert not split_images(ids, 0).any()
    with pytest.raises(UsageError, match="share of the images"):
        split_images(ids, 1.5)


def test_strong_images_pass_alpha_or_are_the_strongest():
    values = np.linspace(0, 1, 200)
    assert find_strong_images(values, 0.95).sum() == 10
    assert np.flatnonzero(find_strong_images(values, 0.99)).tolist() == list(range(190, 200))  # two pass: too few
    assert find_strong_images(values, 0.1).sum() == 10  # most pass
    assert find_strong_images(values[:9], 0.5) is None and find_strong_images(np.ones(50), 0.5) is None


def test_a_description_is_the_weighted_mean_of_its_words():
    class Stub:
        source, width, digest = "stub", 3, "0"

        def embed_texts(self, texts):
            return torch.eye(3)[[0 if "cat" in text else 1 for text in texts]]

        def embed_images(self, images):
            raise AssertionError

    texts = TextVectors(Stub())
    np.testing.assert_allclose(texts.embed_description({"cat": 0.3, "dog": 0.1}), [0.75, 0.25, 0])
    np.testing.assert_allclose(texts.embed_description({"cat": -0.3, "dog": -0.1}), [0.5, 0.5, 0])


def test_a_derangement_moves_everything():
    for count in (2, 3, 50):
        found = draw_derangement(count, random_state=count)
        assert sorted(found) == list(range(count)) and not (found == np.arange(count)).any()
    with pytest.raises(UsageError):
        draw_derangement(1)
