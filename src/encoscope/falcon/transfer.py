"""Concepts of one encoder's features carried to another through a linear map between their representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.concise_repr import concise_repr
from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon.description import Concept, Description
from encoscope.images import split_images
from encoscope.probing import Probe

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties that are tried, as shares of the mean squared singular value."""

_MIN_IMAGES = 20


@concise_repr
@dataclass(frozen=True, eq=False)
class Transfer:
    """A ridge-regressed linear map from one encoder's features to another's, over the same images.

    Attributes:
        weights: ``[source, target]``, for centered features.
        source_mean: The mean of each source feature over the fitting images.
        target_mean: The mean of each target feature.
        spread: The standard deviation of each source feature.
        r2: The share of each target feature's variance that is explained on held-out images; NaN for one that does not
            vary on them.
        penalty: The ridge penalty, chosen on a part of the fitting images.
        fitted: The number of images that the map was fitted to.
        tested: The number of held-out images.
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
        """Predict the target's features.

        Args:
            features: The source's features of some images.

        Returns:
            The target's features of these images.
        """
        return (features - self.source_mean) @ self.weights + self.target_mean

    def carry(self, descriptions: Mapping[int, Description], target: int, n_concepts: int = 8) -> tuple[Concept, ...]:
        """Carry the concepts of the source's features to a target feature, each weighed by its share in the map.

        Args:
            descriptions: Descriptions of the source's features by number. The share of a feature is its positive weight
                times its spread, over the sum of those of all described features.
            target: The number of the target feature.
            n_concepts: The concepts that are kept.

        Returns:
            The concepts of largest weighed score, best first.

        Raises:
            UsageError: For a feature that is not there, and for no descriptions.
        """
        if not 0 <= target < self.weights.shape[1]:
            raise UsageError(f"there is no target feature {target}: the map has {self.weights.shape[1]}")
        if not descriptions:
            raise UsageError("no described features were given to carry concepts from")
        features = np.array(sorted(descriptions))
        shares = np.maximum(self.weights[features, target] * self.spread[features], 0)
        total = shares.sum()
        scores: dict[str, float] = {}
        for feature, share in zip(features.tolist(), shares.tolist(), strict=True):
            for concept in descriptions[feature].concepts if share > 0 else ():
                scores[concept.word] = scores.get(concept.word, 0.0) + share / total * concept.score
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:n_concepts]
        return tuple(Concept(word, score) for word, score in best)


def fit_transfer(
    source: Probe, target: Probe, *, holdout: float = 0.2, penalties: Sequence[float] = PENALTIES
) -> Transfer:
    """Fit a linear map on the images that two probes have in common, and test it on a part of them.

    Args:
        source: The probe of the encoder that concepts come from.
        target: The probe of the encoder that they are carried to.
        holdout: The share of the images that tests the map, chosen by their ids.
        penalties: Ridge penalties to try, as shares of the features' mean squared singular value. The one is used that
            predicts a fifth of the fitting images best, when it is fitted to the others.

    Returns:
        The map with its R2 on held-out images.

    Raises:
        UsageError: For a share that leaves no images to fit or to test.
        EncoscopeError: For too few images in common.
    """
    index = {image: row for row, image in enumerate(target.ids)}
    pairs = [(row, index[image]) for row, image in enumerate(source.ids) if image in index]
    if len(pairs) < _MIN_IMAGES:
        raise EncoscopeError(f"the two probes have {len(pairs)} images in common, and a map needs {_MIN_IMAGES}")
    rows, columns = (np.array(side) for side in zip(*pairs, strict=True))
    ids = [source.ids[row] for row in rows]
    x, y = (np.asarray(probe.values[index], dtype=np.float64) for probe, index in ((source, rows), (target, columns)))
    labels = [source.labels[row] for row in rows]
    test = split_images(ids, holdout, labels)
    if not test.any() or test.all():
        raise UsageError(f"holdout {holdout} of {len(ids)} images leaves none to fit or to test: give another share")
    inner = np.zeros(len(ids), dtype=bool)  # another seed than the test's own: a fifth of what is left
    left = np.flatnonzero(~test)
    inner[left] = split_images([ids[row] for row in left], 0.2, [labels[row] for row in left], 1)
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
