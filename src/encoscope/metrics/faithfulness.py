"""Whether segments fit the network: deletion and insertion curves, and the variance of features that they explain."""

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
    """Compute the area under a deletion or insertion curve by the trapezoidal rule.

    Args:
        scores: The network's output for the class after each step; the first before any step. At least two.
        fractions: The share of pixels deleted (inserted) after each step, rising from 0 to 1; evenly spaced if left
            out. Give them where steps differ in size, as segments do.
        relative: Divide by the first score, which makes images comparable. It must be that of the whole image, as in
            a deletion curve.

    Returns:
        The area. Lower is better for deletion, higher for insertion.

    Raises:
        UsageError: There are fewer than two scores, the fractions do not rise from 0 to 1, or the first score is not
            positive with ``relative``.

    Example:
        >>> curve_auc([1.0, 0.5, 0.0])
        0.5

    Source: Petsiuk et al., 2018.
    """
    values = as_float64(np.asarray(scores, dtype=np.float64), "scores")
    steps = np.linspace(0, 1, len(values)) if fractions is None else np.asarray(fractions, dtype=np.float64)
    if len(values) < 2 or steps.shape != values.shape:
        raise UsageError(f"a curve has at least two scores and as many fractions, not {len(values)} and {len(steps)}")
    if not (steps[0] == 0 and np.isclose(steps[-1], 1) and (np.diff(steps) >= 0).all()):
        raise UsageError("the fractions of a curve rise from 0 to 1")
    if relative:
        if values[0] <= 0:
            raise UsageError(f"a curve relative to a score of {values[0]:g} has no meaning")
        values = values / values[0]
    return float(np.trapezoid(values, steps))


def explained_variance(
    values: Float[np.ndarray, "points channels"] | Float[Tensor, "points channels"],
    labels: Integer[np.ndarray, " points"],
) -> float:
    """Compute the share of the features' variance that lies between the means of segments.

    More segments always explain more: compare with a control that has the same number of segments.

    Args:
        values: A feature vector for each pixel or cell.
        labels: The segment of each pixel or cell.

    Returns:
        The share in [0, 1], of the variance summed over channels; NaN where the features do not vary.

    Raises:
        UsageError: The numbers of feature vectors and labels differ.
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
