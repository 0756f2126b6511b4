"""soft-WPMI against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from encoscope.errors import UsageError
from encoscope.falcon.dissect import compute_background, compute_soft_wpmi
from oracles import dissect as oracle


def sample(images: int = 40, concepts: int = 7, units: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-0.3, 0.5, (images, concepts)).astype(np.float32)
    return similarity, np.round(rng.uniform(0, 1, (images, units)), 1).astype(np.float32)  # with ties


@pytest.mark.parametrize("top_k", [1, 12, 100])
@pytest.mark.parametrize(("a", "strength"), [(10.0, 1.0), (2.0, 0.6)])
def test_it_is_the_published_formula(top_k, a, strength) -> None:
    similarity, activations = sample()
    found = compute_soft_wpmi(similarity, activations, top_k, a, strength=strength)
    expected = oracle.soft_wpmi(similarity.tolist(), activations.tolist(), top_k, a, strength)
    assert np.allclose(found, expected, atol=1e-4, rtol=1e-5)


def test_a_unit_on_its_own_scores_as_among_the_others_given_their_background() -> None:
    similarity, activations = sample()
    together = compute_soft_wpmi(similarity, activations, 12)
    common = compute_background(similarity, activations, 12)
    alone = [compute_soft_wpmi(similarity, activations[:, unit], 12, background=common) for unit in range(5)]
    assert np.allclose(together, alone, atol=1e-5)


def test_a_unit_driven_by_one_concept_is_called_so() -> None:
    rng = np.random.default_rng(1)
    shows = rng.integers(0, 6, 300)
    similarity = (0.2 * np.eye(6)[shows] + rng.normal(0, 0.05, (300, 6))).astype(np.float32)
    similarity[:, 5] += 0.1  # suits everything
    activations = (np.eye(6)[shows] + rng.normal(0, 0.2, (300, 6))).astype(np.float32)
    assert compute_soft_wpmi(similarity, activations, 30).argmax(1).tolist() == list(range(6))
    assert [int(compute_soft_wpmi(similarity, activations[:, unit], 30).argmax()) for unit in range(6)] == list(
        range(6)
    )


def test_numbers_that_do_not_fit_are_refused() -> None:
    similarity, activations = sample()
    for images in (similarity[:3], similarity[:0]):
        with pytest.raises(UsageError, match="do not fit activations of 40"):
            compute_soft_wpmi(images, activations)
    with pytest.raises(UsageError, match="the best 0 images"):
        compute_soft_wpmi(similarity, activations, 0)
