"""Measures of features, scores and embeddings, against other libraries and literal forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import auc, r2_score, roc_auc_score

from encoscope._torchvision import ensure_torchvision
from encoscope.errors import UsageError
from encoscope.metrics import (
    LinearCKA,
    auc_interval,
    auc_mad,
    build_zero_shot_weights,
    clarity,
    curve_auc,
    explained_variance,
    frechet_distance,
    frechet_from_moments,
    kernel_distance,
    linear_cka,
    load_templates,
    polysemanticity,
    redundancy,
    split_halves,
    squared_mmd,
    zero_shot_accuracy,
)

ensure_torchvision()  # torchmetrics and open_clip import it


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def samples(rng, count, channels=5, shift=0.0):
    return rng.normal(shift, 1, (count, channels)) @ np.diag(np.arange(1.0, channels + 1)) + 3


# Frechet distance


def test_frechet_distance_is_the_formula_with_a_matrix_root(rng):
    real, made = samples(rng, 60), samples(rng, 40, shift=0.3)
    s1, s2 = np.cov(real.T), np.cov(made.T)
    literal = ((real.mean(0) - made.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(real, made) == pytest.approx(literal, rel=1e-9)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(made)) == frechet_distance(real, made)
    assert frechet_from_moments(real.mean(0), s1, made.mean(0), s2) == pytest.approx(literal, rel=1e-9)


def test_frechet_distance_agrees_with_torchmetrics(rng):
    from torchmetrics.image.fid import _compute_fid

    real, made = (torch.from_numpy(samples(rng, 80, 12, shift)) for shift in (0.0, 0.5))
    expected = _compute_fid(real.mean(0), real.T.cov(), made.mean(0), made.T.cov())
    assert frechet_distance(real, made) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_of_fewer_images_than_channels_is_exact(rng):
    # in orthogonal planes the roots share nothing: the distance is all of both traces and the means'
    real, made = np.zeros((6, 40)), np.zeros((5, 40))
    real[:, :3], made[:, 10:13] = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    separate = ((real.mean(0) - made.mean(0)) ** 2).sum() + real.var(0, ddof=1).sum() + made.var(0, ddof=1).sum()
    assert frechet_distance(real, made) == pytest.approx(separate, rel=1e-12)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-12)
    # a shift alone: the squared length of the shift
    assert frechet_distance(real, real + 2) == pytest.approx(4 * 40, rel=1e-12)
    shifted = frechet_from_moments(real.mean(0), np.cov(real.T), real.mean(0) + 2, np.cov(real.T))
    assert shifted == pytest.approx(4 * 40, rel=1e-6)


def test_frechet_distance_refuses(rng):
    real = samples(rng, 10)
    with pytest.raises(UsageError, match="5 and of 4 channels"):
        frechet_distance(real, real[:, :4])
    with pytest.raises(UsageError, match="at least 2 images, not 1"):
        frechet_distance(real, real[:1])
    with pytest.raises(UsageError, match="real features: 5 of 50 numbers are NaN"):
        frechet_distance(np.where(np.arange(10)[:, None] == 3, np.nan, real), real)
    with pytest.raises(UsageError, match="negative eigenvalues"):
        frechet_from_moments(real[0], -np.eye(5), real[0], np.eye(5))


# Kernel distance


def test_squared_mmd_is_the_mean_over_pairs(rng):
    one, two = samples(rng, 7, 3), samples(rng, 5, 3, 0.5)

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (one, two)]
    across = np.mean([kernel(x, y) for x in one for y in two])
    assert squared_mmd(one, two) == pytest.approx(sum(within) - 2 * across, rel=1e-10)


def test_kernel_distance_agrees_with_torchmetrics(rng):
    from torchmetrics.image.kid import poly_mmd

    one, two = samples(rng, 30, 4), samples(rng, 30, 4, 0.4)
    expected = float(poly_mmd(torch.from_numpy(one), torch.from_numpy(two)))
    found = kernel_distance(one, two)
    assert (found.subsets, found.size, found.std) == (1, 30, 0)
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_unbiased_and_tells_sets_apart(rng):
    photos = samples(rng, 400, 6)
    real = kernel_distance(*split_halves(photos), subsets=40, size=50)
    made = kernel_distance(photos, samples(rng, 60, 6, 0.8), subsets=40, size=50)
    assert abs(real.value) < 3 * real.std / np.sqrt(40) + 0.1 * made.value
    assert made.value > 5 * abs(real.value)
    again = kernel_distance(*split_halves(photos), subsets=40, size=50)
    assert again == real
    assert kernel_distance(*split_halves(photos), subsets=40, size=50, random_state=1) != real
    one, two = split_halves(photos[:9])
    assert len(one) == 4 and sorted(map(tuple, np.vstack([one, two]))) == sorted(map(tuple, photos[:9]))


def test_kernel_distance_refuses(rng):
    with pytest.raises(UsageError, match="2 to 6 images, as the smaller set has, not 7"):
        kernel_distance(samples(rng, 9), samples(rng, 6), size=7)
    with pytest.raises(UsageError, match="at least 4 images"):
        split_halves(samples(rng, 3))


# AUC and MAD


def test_auc_and_mad_are_cosys(rng):
    made, control = rng.normal(2, 1, 30).round(1), rng.normal(0, 2, 50).round(1)  # rounded: with ties
    found = auc_mad(made, control)
    labels = np.r_[np.ones(30), np.zeros(50)]
    assert found.auc == pytest.approx(roc_auc_score(labels, np.r_[made, control]))
    assert found.mad == pytest.approx((made.mean() - control.mean()) / control.std(ddof=1))
    assert 0 < found.p < 0.05
    assert auc_mad(control, made).auc == pytest.approx(1 - found.auc)
    assert auc_mad(made, control, alternative="less").p > 0.95


def test_a_control_without_spread_has_no_mad():
    constant = np.full(10, 0.1)  # its standard deviation comes out as 1e-17
    assert auc_mad(np.array([0.5, 0.7]), constant).mad == 0
    assert auc_mad(np.array([0.5, 0.7]), constant[:1]).mad == 0
    same = auc_mad(constant, constant)
    assert (same.auc, same.mad, same.p) == (0.5, 0, 1)
    with pytest.raises(UsageError, match="at least 1 images, not 0"):
        auc_mad(np.array([]), constant)


def test_the_interval_of_an_auc_holds_each_auc_that_the_values_do_not_rule_out(rng):
    one, zero = rng.normal(1, 1, 6).round(1), rng.normal(0, 1, 9).round(1)
    found = auc_interval(one, zero)
    assert found.value == pytest.approx(auc_mad(one, zero).auc)
    for theta in (found.low, found.high):  # Hanley and McNeil (1982) with both sizes (6 + 9) / 2, at the end itself
        q1, q2, size = theta / (2 - theta), 2 * theta**2 / (1 + theta), 7.5
        variance = theta * (1 - theta) + (size - 1) * (q1 - theta**2 + q2 - theta**2)
        assert abs(found.value - theta) == pytest.approx(1.959964 * np.sqrt(variance / 54), rel=1e-5)
    twos, ones = np.full(6, 2.0), np.ones(6)
    perfect, worst = auc_interval(twos, ones), auc_interval(ones, twos)
    assert perfect.value == perfect.high == 1 and 0.6 < perfect.low < 0.8
    assert (worst.low, worst.high) == (0, pytest.approx(1 - perfect.low))
    with pytest.raises(UsageError, match="level"):
        auc_interval(twos, ones, level=1.0)


# Zero-shot classification


def test_the_templates_are_clips():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    assert load_templates() == tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    assert len(set(load_templates())) == 80


def test_zero_shot_weights_are_means_of_unit_vectors():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        generator = torch.Generator().manual_seed(len(asked))
        return torch.randn(len(texts), 8, generator=generator) * torch.arange(1, len(texts) + 1)[:, None]

    found = build_zero_shot_weights(embed, ["sea_horse", "crab"], ["a {}.", "the {}, a {}."])
    assert asked == [["a sea horse.", "the sea horse, a sea horse."], ["a crab.", "the crab, a crab."]]
    vectors = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    mean = (vectors / vectors.norm(dim=1, keepdim=True)).mean(0)
    torch.testing.assert_close(found[0], mean / mean.norm())
    assert build_zero_shot_weights(embed, ["crab"]).shape == (1, 8) and len(asked[-1]) == 80
    with pytest.raises(UsageError, match=r"'a photo' has no \{\}"):
        build_zero_shot_weights(embed, ["crab"], ["a photo"])


def test_zero_shot_accuracy_agrees_with_torchmetrics():
    from torchmetrics.functional import accuracy

    generator = torch.Generator().manual_seed(0)
    images, weights = torch.randn(60, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(9, (60,), generator=generator)
    found = zero_shot_accuracy(images, weights, labels, top=(1, 3, 9))
    for k in (1, 3):
        expected = accuracy(images @ weights.T, labels, task="multiclass", num_classes=9, average="micro", top_k=k)
        assert found[k] == pytest.approx(float(expected))
    assert found[9] == 1.0


def test_zero_shot_ties_and_refusals():
    images, weights = torch.ones(2, 3), torch.ones(4, 3)  # all alike: the first class is it
    assert zero_shot_accuracy(images, weights, [0, 3], top=(1, 3, 4)) == {1: 0.5, 3: 0.5, 4: 1.0}
    with pytest.raises(UsageError, match="3 labels for 2 images"):
        zero_shot_accuracy(images, weights, [0, 1, 2])
    with pytest.raises(UsageError, match="0 to 3"):
        zero_shot_accuracy(images, weights, [0, 4])


# Clarity, redundancy, polysemanticity


def test_clarity_and_redundancy_are_means_and_maxima_over_pairs(rng):
    vectors = rng.normal(size=(6, 4))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert clarity(vectors) == pytest.approx(cosines[np.triu_indices(6, 1)].mean())
    expected = [max(cosines[i, j] for j in range(6) if j != i) for i in range(6)]
    np.testing.assert_allclose(redundancy(vectors), expected)
    assert clarity(np.ones((3, 4))) == pytest.approx(1)
    with pytest.raises(UsageError, match="embedding 2 is all zeros"):
        clarity(np.vstack([unit[:2], np.zeros(4)]))


def test_polysemanticity_is_high_for_two_meanings(rng):
    noise = rng.normal(0, 0.05, (20, 4))
    one = np.array([1.0, 0, 0, 0]) + noise
    two = np.where(np.arange(20)[:, None] < 10, np.array([0, 1.0, 0, 0]), np.array([1.0, 0, 0, 0])) + noise
    assert polysemanticity(one) < 0.05 < 0.9 < polysemanticity(two) < 1.1
    assert polysemanticity(np.ones((5, 3))) == 0


# CKA


def literal_hsic(kernel, other, unbiased):
    n = len(kernel)
    if not unbiased:
        centring = np.eye(n) - 1 / n
        return np.trace(kernel @ centring @ other @ centring)
    k, o, ones = kernel - np.diag(np.diag(kernel)), other - np.diag(np.diag(other)), np.ones(n)
    value = np.trace(k @ o) + (ones @ k @ ones) * (ones @ o @ ones) / ((n - 1) * (n - 2))
    return (value - 2 / (n - 2) * ones @ k @ o @ ones) / (n * (n - 3))


@pytest.mark.parametrize("unbiased", [False, True])
def test_streamed_cka_is_the_one_of_the_kernels(rng, unbiased):
    x, y = samples(rng, 23, 6), rng.normal(size=(23, 4))
    y[:, :2] += x[:, :2]
    a, b = x @ x.T, y @ y.T
    expected = literal_hsic(a, b, unbiased) / np.sqrt(literal_hsic(a, a, unbiased) * literal_hsic(b, b, unbiased))
    assert linear_cka(x, y, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)
    first = LinearCKA().partial_fit(x[:5], y[:5]).partial_fit(x[5:6], y[5:6])
    second = LinearCKA().partial_fit(x[6:], y[6:])
    assert first.merge(second).score(unbiased=unbiased) == pytest.approx(expected, rel=1e-9)


def test_cka_ignores_rotation_and_scale_and_the_unbiased_one_is_zero_by_chance(rng):
    x = rng.normal(size=(30, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5))).Q
    assert linear_cka(x, 7 * x @ rotation + 3) == pytest.approx(1)
    wide, other = rng.normal(size=(2, 20, 300))
    assert linear_cka(wide, other) > 0.8  # many channels, few images: near 1 for noise
    assert abs(linear_cka(wide, other, unbiased=True)) < 0.1
    with pytest.raises(UsageError, match="at least 4"):
        linear_cka(x[:3], x[:3], unbiased=True)
    with pytest.raises(UsageError, match="do not vary"):
        linear_cka(x, np.ones((30, 2)))
    with pytest.raises(UsageError, match="30 and 29 rows"):
        linear_cka(x, x[1:])
    with pytest.raises(UsageError, match="channels in one comparison"):
        LinearCKA().partial_fit(x, x).partial_fit(x[:, :3], x[:, :3])


# Faithfulness


def test_curve_auc_agrees_with_scikit_learn():
    scores, fractions = [0.9, 0.5, 0.4, 0.1], [0, 0.2, 0.7, 1.0]
    assert curve_auc(scores, fractions) == pytest.approx(auc(fractions, scores))
    assert curve_auc(scores, fractions, relative=True) == pytest.approx(auc(fractions, scores) / 0.9)
    assert curve_auc([1.0, 1.0, 1.0]) == 1
    with pytest.raises(UsageError, match="rise from 0 to 1"):
        curve_auc(scores, [0, 0.5, 0.4, 1])
    with pytest.raises(UsageError, match="at least two scores"):
        curve_auc([1.0])
    with pytest.raises(UsageError, match="score of 0"):
        curve_auc([0.0, 1.0], relative=True)


def test_explained_variance_is_r2_of_segment_means(rng):
    labels = rng.integers(-1, 4, 50)
    values = rng.normal(size=(50, 3)) + labels[:, None]
    means = np.stack([values[labels == label].mean(0) for label in labels])
    expected = r2_score(values, means, multioutput="variance_weighted")
    assert explained_variance(values, labels) == pytest.approx(expected)
    assert explained_variance(values, np.zeros(50, int)) == pytest.approx(0)
    assert explained_variance(values, np.arange(50)) == pytest.approx(1)
    assert np.isnan(explained_variance(np.full((5, 2), 0.1), np.arange(5)))
