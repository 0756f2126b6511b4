"""Concepts of one encoder's features carried to another through a linear map between their representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.concise_repr import concise_repr
from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon.description import Concept, Description
from encoscope.falcon.heldout import choose_heldout
from encoscope.probing import Probe

_LEAST = 20
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties that are tried, as shares of the mean squared singular value."""


@concise_repr
@dataclass(frozen=True, eq=False)
class Transfer:
    """A ridge-regressed linear map from one encoder's features to another's, over the same images.

    weights: ``[source, target]``, for centred features. spread: standard deviations of the source's features.
    r2: share of each target feature's variance that is explained on images the map was not fitted to; NaN for one that
    does not vary there. penalty: chosen on a part of the fitting images. fitted, tested: numbers of images.
    """

    weights: Float[np.ndarray, "source target"]
    source_mean: Float[np.ndarray, " source"]
    target_mean: Float[np.ndarray, " target"]
    spread: Float[np.ndarray, " source"]
    r2: Float[np.ndarray, " target"]
    penalty: float
    fitted: int
    tested: int

    @property
    def explained(self) -> float:
        """The mean of ``r2`` over the target's features that vary."""
        return float(np.nanmean(self.r2))

    def __call__(self, features: Float[np.ndarray, "images source"]) -> Float[np.ndarray, "images target"]:
        """The other encoder's features as this one's tell them."""
        return (features - self.source_mean) @ self.weights + self.target_mean

    def carry(self, described: Mapping[int, Description], target: int, top: int = 8) -> tuple[Concept, ...]:
        """The concepts of a target feature: those of the source's features, each weighed by its share in the map.

        described: descriptions of the source's features by number. A source feature's share is its positive weight
        times its spread, over the sum of those of all described features.
        """
        if not 0 <= target < self.weights.shape[1]:
            raise UsageError(f"there is no target feature {target}: the map has {self.weights.shape[1]}")
        if not described:
            raise UsageError("no described features were given to carry concepts from")
        places = np.array(sorted(described))
        shares = np.maximum(self.weights[places, target] * self.spread[places], 0)
        total = shares.sum()
        scores: dict[str, float] = {}
        for place, share in zip(places.tolist(), shares.tolist(), strict=True):
            for concept in described[place].concepts if share > 0 else ():
                scores[concept.word] = scores.get(concept.word, 0.0) + share / total * concept.score
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:top]
        return tuple(Concept(word, score) for word, score in best)


def fit_transfer(
    source: Probe, target: Probe, *, holdout: float = 0.2, penalties: Sequence[float] = PENALTIES
) -> Transfer:
    """Fit the map on the images that both probes hold, and test it on ``holdout`` of them, by the images' ids.

    penalties: ridge penalties to try, shares of the features' mean squared singular value; the one that predicts best
    a fifth of the fitting images, when fitted to the others, is used.

    Raises UsageError for a share that cannot be, EncoscopeError for too few images in common.
    """
    place = {image: row for row, image in enumerate(target.ids)}
    pairs = [(row, place[image]) for row, image in enumerate(source.ids) if image in place]
    if len(pairs) < _LEAST:
        raise EncoscopeError(f"the two probes have {len(pairs)} images in common, and a map needs {_LEAST}")
    rows, columns = (np.array(side) for side in zip(*pairs, strict=True))
    ids = [source.ids[row] for row in rows]
    x, y = (np.asarray(probe.values[index], dtype=np.float64) for probe, index in ((source, rows), (target, columns)))
    test = choose_heldout(ids, holdout)
    if not test.any() or test.all():
        raise UsageError(f"holdout {holdout} of {len(ids)} images leaves none to fit or to test: give another share")
    # another hash than the test's own: a fifth of what is left
    inner = choose_heldout([f"penalty:{image}" for image in ids], 0.2) & ~test
    penalty = penalties[0]
    if inner.any() and len(penalties) > 1:
        fit = ~test & ~inner
        scores = [float(np.nanmean(_r2(_solve(x[fit], y[fit], p), x[inner], y[inner]))) for p in penalties]
        penalty = penalties[int(np.argmax(scores))]
    solved = _solve(x[~test], y[~test], penalty)
    weights, mean_x, mean_y = solved
    return Transfer(
        weights=weights,
        source_mean=mean_x,
        target_mean=mean_y,
        r2=_r2(solved, x[test], y[test]),
        penalty=float(penalty),
        fitted=int((~test).sum()),
        tested=int(test.sum()),
        spread=x[~test].std(0),
    )


def _solve(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    ridge = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
    if not gram.any():
        raise EncoscopeError("the source's features are the same on all images: there is nothing to map from")
    return np.linalg.solve(gram + ridge, (x - mean_x).T @ (y - mean_y)), mean_x, mean_y


def _r2(solved: tuple[np.ndarray, np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    weights, mean_x, mean_y = solved
    error = np.square((x - mean_x) @ weights + mean_y - y).sum(0)
    total = np.square(y - y.mean(0)).sum(0)
    return np.where(total > 0, 1 - error / np.where(total > 0, total, 1), np.nan)
