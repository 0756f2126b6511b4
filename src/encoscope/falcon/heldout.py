"""The test of a description on images it was not made from, and the statistics of it.

A description is turned into one vector, the mean of its concepts' text vectors weighed by their scores, and predicts a
unit's activation on an image by the cosine of that vector and the image's. The measure is the AUC of the unit's strong
images against all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.metrics import Interval

MIN_STRONG = 5
"""The least strong images that an AUC is computed from, and the least ordinary ones."""

STRONG_SHARE = 0.05
"""The share of images that count as strong where too few, or most, pass the unit's own threshold."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class HeldoutTest:
    """How well a description predicts a unit on held-out images.

    Attributes:
        auc: With its bootstrap interval; 0.5 by chance.
        strong: The number of strong images.
        ordinary: The number of all others.
        controls: The AUC without the unit's own description ("captions"), or without its own activations ("permuted").
    """

    auc: Interval
    strong: int
    ordinary: int
    controls: Mapping[str, Interval] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain = _write_interval(self.auc) | {"strong": self.strong, "ordinary": self.ordinary}
        if self.controls:
            plain["controls"] = {name: _write_interval(interval) for name, interval in self.controls.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeldoutTest:
        """Read what ``as_dict`` gave.

        Args:
            plain: The "heldout" of an entry.

        Returns:
            The test.
        """
        controls = {name: _read_interval(control) for name, control in plain.get("controls", {}).items()}
        return cls(_read_interval(plain), plain["strong"], plain["ordinary"], controls)


def _write_interval(interval: Interval) -> dict[str, Any]:
    return {"auc": interval.value, "interval": [interval.low, interval.high]}


def _read_interval(plain: Mapping[str, Any]) -> Interval:
    return Interval(plain["auc"], *plain["interval"])


def find_strong_images(activation: Float[np.ndarray, " images"], alpha: float) -> Bool[np.ndarray, " images"] | None:
    """Find the strong images of a unit.

    Args:
        activation: The unit's normalized value on each image.
        alpha: Its threshold, as for T_i.

    Returns:
        The images above alpha, if those are at least 5 and at most half; else the strongest 5 %. None where no AUC can
        be computed: for fewer than 10 images, or a unit that is the same on all.
    """
    count = len(activation)
    if count < 2 * MIN_STRONG or activation.max() == activation.min():
        return None
    above = activation > alpha
    if MIN_STRONG <= above.sum() <= count // 2:
        return above
    strongest = np.zeros(count, dtype=bool)
    strongest[np.argsort(-activation, kind="stable")[: max(MIN_STRONG, round(STRONG_SHARE * count))]] = True
    return strongest


def compute_auc(scores: Float[np.ndarray, " images"], strong: Bool[np.ndarray, " images"]) -> float:
    """Compute the chance that a strong image scores above an ordinary one, ties counted half.

    Args:
        scores: The score of each image.
        strong: Whether each is strong; both kinds must exist.

    Returns:
        The area under the ROC curve, from 0 to 1.

    Example:
        >>> compute_auc(np.array([0.1, 0.4, 0.8]), np.array([False, False, True]))
        1.0
    """
    positives = int(strong.sum())
    ranks = rankdata(scores)
    return float((ranks[strong].sum() - positives * (positives + 1) / 2) / (positives * (len(scores) - positives)))


def compute_auc_interval(
    scores: Float[np.ndarray, " images"],
    strong: Bool[np.ndarray, " images"],
    *,
    resamples: int = _RESAMPLES,
    level: float = 0.95,
    random_state: int = RANDOM_STATE,
) -> Interval:
    """Compute an AUC with its percentile bootstrap interval; strong and ordinary images are resampled separately.

    Args:
        scores: The score of each image.
        strong: Whether each is strong.
        resamples: Bootstrap resamples.
        level: The coverage of the interval.
        random_state: The seed of the resamples.

    Returns:
        The AUC and its interval.

    Raises:
        UsageError: Unless there are strong and ordinary images.
    """
    positive, negative = scores[strong], scores[~strong]
    if not len(positive) or not len(negative):
        raise UsageError(f"AUC needs strong and ordinary images: {len(positive)} and {len(negative)} were given")
    rng = np.random.default_rng(random_state)
    order = np.sort(negative)
    # for each strong image whether each ordinary one is below it, equal ones half: a resample gives pairs other weights
    wins = (positive[:, None] > order).astype(np.float32) + 0.5 * (positive[:, None] == order)
    weights = []
    for kept in (len(positive), len(negative)):
        indices = rng.integers(kept, size=(resamples, kept)) + kept * np.arange(resamples)[:, None]
        counts = np.bincount(indices.ravel(), minlength=resamples * kept).reshape(resamples, kept)
        weights.append(counts.astype(np.float32) / kept)
    values = np.einsum("rn,rn->r", weights[0] @ wins.astype(np.float32), weights[1])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(wins.mean(dtype=np.float64)), float(low), float(high), level)


def compute_mean_interval(
    values: Sequence[float], *, resamples: int = _RESAMPLES, level: float = 0.95, random_state: int = RANDOM_STATE
) -> Interval:
    """Compute a mean with its percentile bootstrap interval, all resamples in one array.

    Args:
        values: The values.
        resamples: Bootstrap resamples.
        level: The coverage of the interval.
        random_state: The seed of the resamples.

    Returns:
        The mean and its interval.

    Raises:
        UsageError: For no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        raise UsageError("a mean needs at least one value")
    means = data[np.random.default_rng(random_state).integers(len(data), size=(resamples, len(data)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), level)


def compute_aucs(
    scores: Float[np.ndarray, "images labels"], strong: Bool[np.ndarray, "images units"]
) -> Float[np.ndarray, "units labels"]:
    """Compute the AUC of every label for every unit.

    Args:
        scores: The score of each image for each label.
        strong: Whether each image is strong for each unit.

    Returns:
        An AUC for each pair.
    """
    ranks = rankdata(scores, axis=0)
    positives = strong.sum(0)[:, None].astype(np.float64)
    return (strong.T.astype(np.float64) @ ranks - positives * (positives + 1) / 2) / (
        positives * (len(scores) - positives)
    )


def draw_derangement(count: int, random_state: int = RANDOM_STATE) -> Int[np.ndarray, " units"]:
    """Draw a random order in which nothing keeps its index.

    Args:
        count: How many things there are.
        random_state: The seed.

    Returns:
        For each index another one.

    Raises:
        UsageError: For fewer than two.
    """
    if count < 2:
        raise UsageError("units can only be permuted if there are at least two of them")
    order = np.random.default_rng(random_state).permutation(count)
    deranged = np.empty(count, dtype=np.int64)
    deranged[order] = np.roll(order, 1)  # one cycle through all
    return deranged
