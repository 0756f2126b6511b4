"""Whether segments say something true about the network: deletion and insertion curves, variance explained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.metrics._arrays import as_float64


def curve_auc(
    scores: Sequence[float] | Float[np.ndarray, " steps"],
    fractions: Sequence[float] | Float[np.ndarray, " steps"] | None = None,
    *,
    relative: bool = False,
) -> float:
    """The area under a deletion or insertion curve (Petsiuk et al., 2018), by the trapezoidal rule.

    scores: the network's output for the class after each step, the first before any. fractions: the share of pixels
    deleted (inserted) by then, rising from 0 to 1; evenly spaced if left out. Segments differ in size, so give them.
    relative: divide by the score of the whole image (the first of a deletion curve, so give that order), which makes
    images comparable.

    For deletion lower is better, for insertion higher. Raises UsageError for fewer than two scores, fractions that do
    not rise from 0 to 1, and a whole image's score of 0 or less with ``relative``.
    """
    values = as_float64(np.asarray(scores, dtype=np.float64), "scores")
    at = np.linspace(0, 1, len(values)) if fractions is None else np.asarray(fractions, dtype=np.float64)
    if len(values) < 2 or at.shape != values.shape:
        raise UsageError(f"a curve has at least two scores and as many fractions, not {len(values)} and {len(at)}")
    if not (at[0] == 0 and np.isclose(at[-1], 1) and (np.diff(at) >= 0).all()):
        raise UsageError("the fractions of a curve rise from 0 to 1")
    if relative:
        if values[0] <= 0:
            raise UsageError(f"a curve relative to a score of {values[0]:g} has no meaning")
        values = values / values[0]
    return float(np.trapezoid(values, at))


def explained_variance(
    values: Float[np.ndarray, "points channels"] | Float[Tensor, "points channels"],
    labels: Integer[np.ndarray, " points"],
) -> float:
    """The share of the features' variance, summed over channels, that lies between segments' means: in [0, 1].

    values: a feature vector per pixel or cell; labels: its segment. NaN when the features do not vary. More segments
    always explain more: compare with a control of as many. Raises UsageError for other numbers of labels.
    """
    data = as_float64(values, "features")
    if len(data) != len(labels):
        raise UsageError(f"{len(labels)} labels for {len(data)} feature vectors")
    if not len(data):
        return float("nan")
    centred = data - data.mean(0)
    total = float((centred**2).sum())
    if total <= np.finfo(np.float64).eps * float((data**2).sum()):
        return float("nan")
    _, segment, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), data.shape[1]))
    np.add.at(sums, segment, centred)
    return float((sums**2 / counts[:, None]).sum() / total)
