"""Sort matching against its definition, its gradients, moments, the regularisers, transparency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoscope.encoder import Activation
from encoscope.vital.matching import compute_moment_matching, compute_sort_matching, flatten_values, sort_values
from encoscope.vital.smoothness import compute_l2_norm, compute_total_variation
from encoscope.vital.transparency import compute_transparency, stretch_colors


def by_ranks(values, prototype):
    """Equation 2: every value against the prototype's value of its rank (argsort of argsort; ties by place)."""
    ranks = values.detach().argsort(dim=2, stable=True).argsort(2)
    return (values - prototype.gather(2, ranks)).square().mean((1, 2))


@pytest.mark.parametrize(
    ("dtype", "channels", "positions"),
    [(torch.float32, 7, 50), (torch.float64, 7, 50), (torch.float32, 5, 30_000), (torch.float32, 2, 70_000)],
)
def test_sort_matching_is_equation_2_with_its_gradient(dtype, channels, positions):
    torch.manual_seed(0)
    values = torch.randn(3, channels, positions, dtype=dtype, requires_grad=True)
    prototype = torch.randn(3, channels, positions, dtype=dtype).sort(2).values
    upstream = torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    fast, slow = compute_sort_matching(values, prototype), by_ranks(values, prototype)
    torch.testing.assert_close(fast, slow)
    size = channels * positions  # which the mean divides by: without it gradients are as small as the tolerance
    (gradient,) = torch.autograd.grad(size * fast @ upstream, values)
    (expected,) = torch.autograd.grad(size * slow @ upstream, values)
    torch.testing.assert_close(gradient, expected)


def test_channel_weights_are_factors_of_each_channels_mean():
    values, prototype = torch.randn(2, 3, 8), torch.randn(2, 3, 8).sort(2).values
    weights = torch.rand(2, 3)
    alone = torch.stack([compute_sort_matching(values[:, c : c + 1], prototype[:, c : c + 1]) for c in range(3)], 1)
    torch.testing.assert_close(compute_sort_matching(values, prototype, weights), (alone * weights).mean(1))


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_of_channels_keep_their_own_weights_and_prototypes(threads):
    """Seven blocks, the last a small one, of values and prototypes that do not lie in memory one after the other."""
    made = torch.Generator().manual_seed(0)
    values = torch.randn(2, 100, 150, 13, generator=made).flatten(1, 2).mT
    values.requires_grad_()
    prototype = torch.randn(2, 1, 15_000, generator=made).sort(2).values.expand(-1, 13, -1)
    weights = torch.rand(13, 2, generator=made).T
    assert not values.is_contiguous() and not prototype.is_contiguous() and not weights.is_contiguous()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = compute_sort_matching(values, prototype, weights)
    finally:
        torch.set_num_threads(before)
    expected = torch.stack([by_ranks(values[:, c : c + 1], prototype[:, c : c + 1]) for c in range(13)], 1)
    expected = (expected * weights).mean(1)
    torch.testing.assert_close(found, expected)
    losses = [loss.sum() * 13 * 15_000 for loss in (found, found, expected)]  # gradients far above the tolerance
    gradients = [torch.autograd.grad(loss, values, retain_graph=True)[0] for loss in losses]
    assert torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_sort_is_exact_with_ties_zeros_and_infinities(numbers):
    values = torch.tensor([numbers, numbers[::-1]])
    ordered, places = sort_values(values)
    assert torch.equal(ordered, values.sort(1).values)  # -0.0 equals 0.0
    assert torch.equal(values.gather(1, places), ordered)
    assert torch.equal(places.sort(1).values, torch.arange(len(numbers)).expand(2, -1))


def test_tokens_are_matched_with_the_class_token():
    maps, prefix = torch.arange(8.0).reshape(1, 2, 2, 2), torch.tensor([[[-1.0, -2.0]]])
    assert flatten_values(Activation(maps, prefix))[0].tolist() == [[-1, 0, 1, 2, 3], [-2, 4, 5, 6, 7]]


def test_moments_match_shifted_and_scaled_channels():
    values = torch.randn(1, 1, 500)
    values = (values - values.mean()) / values.std(correction=0)
    prototype = (2 * values + 3).sort(2).values
    assert float(compute_moment_matching(values, prototype)) == pytest.approx(3**2 + 1**2, rel=1e-4)
    flat = torch.zeros(1, 2, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(compute_moment_matching(flat, prototype[:, :, :9].expand(1, 2, 9)).sum(), flat)
    assert torch.isfinite(gradient).all()


def test_regularisers_are_global_norms_of_each_image():
    images = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for image, found, norm in zip(images, compute_total_variation(images), compute_l2_norm(images), strict=True):
        x = image.numpy()
        pairs = (
            (x[:, :, 1:], x[:, :, :-1]),
            (x[:, 1:], x[:, :-1]),
            (x[:, 1:, 1:], x[:, :-1, :-1]),
            (x[:, 1:, :-1], x[:, :-1, 1:]),
        )
        assert float(found) == pytest.approx(sum(np.sqrt(((a - b) ** 2).sum()) for a, b in pairs))
        assert float(norm) == pytest.approx(np.sqrt((x**2).sum()))
    flat = torch.zeros(1, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad((compute_total_variation(flat) + compute_l2_norm(flat)).sum(), flat)
    assert torch.equal(gradient, torch.zeros_like(flat))


def test_transparency_and_colours():
    attention = torch.zeros(3, 10, 10)
    attention[:, 2:5, 2:5] = 2.0
    attention[:, 0, 0] = 100.0  # an outlier beyond the 98th percentile
    alpha = compute_transparency(attention)
    assert alpha.shape == (10, 10)
    assert alpha[0, 0] == alpha[3, 3] == 1
    assert alpha[8, 8] == 0
    assert compute_transparency(torch.zeros(3, 4, 4)).max() == 0
    shown = stretch_colors(torch.linspace(0.4, 0.6, 3 * 400).reshape(3, 20, 20))
    assert shown.shape == (20, 20, 3)
    assert (shown.min(), shown.max()) == (0, 1)
    assert stretch_colors(torch.full((3, 2, 2), 0.3)) == pytest.approx(0.3)


def test_sort_on_several_threads_is_the_same_sort():
    values = torch.randn(3, 16, 9000, generator=torch.Generator().manual_seed(0)).relu()  # many ties
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        ordered, places = sort_values(values)
    finally:
        torch.set_num_threads(before)
    true = values.sort(dim=2, stable=True)
    assert torch.equal(ordered, true.values)
    assert torch.equal(places, true.indices)
