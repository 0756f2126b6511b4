"""The test of a description on images it was not made from, and the statistics of it.

A description is turned into one vector, the mean of its concepts' text vectors weighed by their scores, and predicts a
unit's activation on an image by the cosine of that vector and the image's, less the image's mean cosine with all
captions: some images are near to any text, which has nothing to do with the unit. The measure is the AUC of the unit's
strong images against all others. Beside it stands what chance gives for this very unit: random descriptions on its
images, and its description on other units' images.
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


BEATS_CHANCE, AS_CHANCE, TOO_FEW = "beats its control", "no better than chance", "too few images"
NO_WORDS = "no words"
"""What the test of a description can come to, where it has no words at all the last."""
VERDICTS = (BEATS_CHANCE, AS_CHANCE, TOO_FEW, NO_WORDS)

_QUANTILE = 0.95  # of a control's draws that a description has to be above


@dataclass(frozen=True)
class ChanceLevel:
    """The AUC of a control, over several draws of it.

    Attributes:
        value: The mean over the draws.
        spread: Their standard deviation.
        high: Their 95 % quantile.
        draws: How many there are.
    """

    value: float
    spread: float
    high: float
    draws: int

    @classmethod
    def of(cls, aucs: Sequence[float]) -> ChanceLevel:
        """Compute the level of some draws.

        Args:
            aucs: The AUC of each, at least one.

        Returns:
            Their mean, standard deviation and quantile.
        """
        high = float(np.quantile(aucs, _QUANTILE))
        return cls(float(np.mean(aucs)), float(np.std(aucs)), high, len(aucs))

    def __str__(self) -> str:
        return f"{self.value:.3f} \u00b1 {self.spread:.3f}"


@dataclass(frozen=True)
class HeldoutTest:
    """How well a description predicts a unit on held-out images.

    Attributes:
        auc: With its bootstrap interval; 0.5 by chance.
        strong: The number of strong images.
        ordinary: The number of all others.
        controls: What chance gives: descriptions of random captions on the unit's images ("captions"), and the unit's
            description on the images of other units ("permuted").
    """

    auc: Interval
    strong: int
    ordinary: int
    controls: Mapping[str, ChanceLevel] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ "beats its control" or "no better than chance".

        It beats them if its interval lies above the mean of each control, and the AUC itself above 95 % of its draws.
        Without any control the interval has to lie above 0.5.
        """
        levels = list(self.controls.values()) or [ChanceLevel(0.5, 0.0, 0.5, 0)]
        beats = all(self.auc.low > level.value and self.auc.value > level.high for level in levels)
        return BEATS_CHANCE if beats else AS_CHANCE

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain = _write_interval(self.auc) | {"strong": self.strong, "ordinary": self.ordinary}
        if self.controls:
            plain["controls"] = {
                name: {"auc": level.value, "spread": level.spread, "high": level.high, "draws": level.draws}
                for name, level in self.controls.items()
            }
        return plain | {"verdict": self.verdict}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> HeldoutTest:
        """Read what ``as_dict`` gave.

        Args:
            plain: The "heldout" of an entry.

        Returns:
            The test.
        """
        controls = {
            name: ChanceLevel(control["auc"], control["spread"], control["high"], control["draws"])
            for name, control in plain.get("controls", {}).items()
        }
        return cls(_read_interval(plain), plain["strong"], plain["ordinary"], controls)


def give_verdict(test: HeldoutTest | None, has_words: bool) -> str:
    """Say what the test of a description came to.

    Args:
        test: The test; None where there is none.
        has_words: Whether there is a description at all.

    Returns:
        One of `VERDICTS`.
    """
    if not has_words:
        return NO_WORDS
    return TOO_FEW if test is None else test.verdict


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
        be computed: see ``explain_no_test``.
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


def explain_no_test(activation: Float[np.ndarray, " images"] | None) -> str:
    """Say why no AUC can be computed on some held-out images.

    Args:
        activation: The unit's value on each; None where none are held out.

    Returns:
        One clause; empty where there is a test.
    """
    if activation is None or not len(activation):
        return "no images are held out to test it"
    if len(activation) < 2 * MIN_STRONG:
        return f"{len(activation)} held-out images are too few to test it: {2 * MIN_STRONG} are needed"
    if activation.max() == activation.min():
        return f"it has the same value on all {len(activation)} held-out images"
    return ""


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
    low, high = np.clip([low, high], 0, 1)  # single precision may pass 1 in its last digit
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
