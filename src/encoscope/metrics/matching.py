"""Which feature of one network corresponds to which of another: correlations over images, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64


@dataclass(eq=False)
class Correlation:
    """Pearson correlations between all features of two networks, over any number of batches of the same images.

    Attributes:
        count: Number of images so far.
    """

    count: int = 0
    _x: np.ndarray | float = 0.0
    _y: np.ndarray | float = 0.0
    _xx: np.ndarray | float = 0.0
    _yy: np.ndarray | float = 0.0
    _xy: np.ndarray | float = 0.0
    _origin: tuple[np.ndarray, np.ndarray] | None = None

    def partial_fit(self, first: Features, second: Features) -> Correlation:
        """Add a batch of images.

        Args:
            first: ``[images, channels]``, the features of one network.
            second: ``[images, channels]``, the other network's features of the same images in the same order.

        Returns:
            This object.

        Raises:
            UsageError: The numbers of images differ.
        """
        x, y = as_float64(first, "first features"), as_float64(second, "second features")
        if len(x) != len(y):
            raise UsageError(f"features of the same images are needed: {len(x)} and {len(y)} rows")
        if not len(x):
            return self
        if self._origin is None:  # sums around a typical value lose fewer digits
            self._origin = (x[0].copy(), y[0].copy())
        x, y = x - self._origin[0], y - self._origin[1]
        self.count += len(x)
        self._x, self._y = self._x + x.sum(0), self._y + y.sum(0)
        self._xx, self._yy = self._xx + (x * x).sum(0), self._yy + (y * y).sum(0)
        self._xy = self._xy + x.T @ y
        return self

    def merge(self, other: Correlation) -> Correlation:
        """Add the sums of other images.

        Args:
            other: Theirs, of the same features.

        Returns:
            This object.
        """
        if other._origin is None:
            return self
        if self._origin is None:
            self._origin = other._origin
        dx, dy = (theirs - ours for ours, theirs in zip(self._origin, other._origin, strict=True))
        n, x, y = other.count, other._x, other._y
        self.count += n
        self._xx = self._xx + other._xx + 2 * dx * x + n * dx * dx
        self._yy = self._yy + other._yy + 2 * dy * y + n * dy * dy
        self._xy = self._xy + other._xy + np.outer(dx, y) + np.outer(x, dy) + n * np.outer(dx, dy)
        self._x, self._y = self._x + x + n * dx, self._y + y + n * dy
        return self

    def finalize(self) -> Float[np.ndarray, "first second"]:
        """Compute the correlations, in [-1, 1]; 0 for a feature that does not vary.

        Raises:
            UsageError: There are fewer than two images.
        """
        if self.count < 2:
            raise UsageError(f"correlations need at least 2 images, not {self.count}")
        covariance = self._xy - np.multiply.outer(self._x, self._y) / self.count
        x = np.maximum(self._xx - np.square(self._x) / self.count, 0)
        y = np.maximum(self._yy - np.square(self._y) / self.count, 0)
        # what is left of a constant feature by rounding is no variation
        x, y = (np.where(part > 1e-12 * np.max(part, initial=0), part, 0) for part in (x, y))
        scale = np.sqrt(np.multiply.outer(x, y))
        return np.clip(np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0), -1, 1)


def match_units(similarity: Float[np.ndarray, "first second"]) -> Int[np.ndarray, "pairs 2"]:
    """Find the one-to-one pairs with the largest sum of similarities (Hungarian method).

    Args:
        similarity: How similar each feature of the first network is to each of the second.

    Returns:
        Pairs of indices (first, second), the most similar first; as many as the smaller network has features.

    Example:
        >>> match_units(np.array([[0.1, 0.9], [0.8, 0.2]])).tolist()
        [[0, 1], [1, 0]]
    """
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    order = np.argsort(-similarity[rows, columns], kind="stable")
    return np.stack([rows[order], columns[order]], 1)
