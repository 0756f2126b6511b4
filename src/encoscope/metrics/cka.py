"""Centred kernel alignment (CKA) of two representations of the same images, linear and batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64


def linear_cka(first: Features, second: Features, *, unbiased: bool = False) -> float:
    """Compute the linear CKA of two sets of features of the same images.

    Args:
        first: ``[images, channels]``.
        second: ``[images, channels]`` of the same images in the same order; the number of channels may differ.
        unbiased: Take the unbiased estimate of HSIC, which does not grow with the number of channels per image.

    Returns:
        CKA in [0, 1]; 1 where the features are equal up to rotation and scale. The unbiased value may be slightly
        negative.

    Raises:
        UsageError: The numbers of images differ, there are fewer than 2 (4 if unbiased), or features do not vary.

    Example:
        >>> features = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
        >>> round(linear_cka(features, 2 * features), 6)
        1.0

    Source: Kornblith et al., 2019; unbiased: Song et al., 2012, equation 5.
    """
    return LinearCKA().partial_fit(first, second).score(unbiased=unbiased)


@dataclass(eq=False)
class LinearCKA:
    """Linear CKA over any number of batches; exact, as it keeps sums over images.

    The sums have at most channels x channels numbers. Those of several processes are added with ``merge``.

    Attributes:
        count: Number of images so far.
    """

    count: int = 0
    _xx: _Pair = field(default_factory=lambda: _Pair(), repr=False)
    _yy: _Pair = field(default_factory=lambda: _Pair(), repr=False)
    _xy: _Pair = field(default_factory=lambda: _Pair(), repr=False)

    def partial_fit(self, first: Features, second: Features) -> LinearCKA:
        """Add a batch of images.

        Args:
            first: ``[images, channels]``, the features of one network.
            second: ``[images, channels]``, the other network's features of the same images in the same order.

        Returns:
            This object.

        Raises:
            UsageError: The numbers of images differ, or those of channels differ from earlier batches.
        """
        x, y = as_float64(first, "first features"), as_float64(second, "second features")
        if len(x) != len(y):
            raise UsageError(f"CKA compares features of the same images: {len(x)} and {len(y)} rows")
        self.count += len(x)
        for pair, (a, b) in ((self._xx, (x, x)), (self._yy, (y, y)), (self._xy, (x, y))):
            pair.add(a, b)
        return self

    def merge(self, other: LinearCKA) -> LinearCKA:
        """Add the sums of another process.

        Args:
            other: Sums over other images.

        Returns:
            This object.
        """
        self.count += other.count
        for pair, other_pair in ((self._xx, other._xx), (self._yy, other._yy), (self._xy, other._xy)):
            pair.merge(other_pair)
        return self

    def score(self, *, unbiased: bool = False) -> float:
        """Compute CKA of all images so far.

        Args:
            unbiased: As for ``linear_cka``.

        Returns:
            CKA, as from ``linear_cka``.

        Raises:
            UsageError: There are fewer than 2 images (4 if unbiased), or features do not vary.
        """
        if self.count < (4 if unbiased else 2):
            raise UsageError(f"CKA needs at least {4 if unbiased else 2} images, not {self.count}")
        xy, xx, yy = (pair.hsic(self.count, unbiased) for pair in (self._xy, self._xx, self._yy))
        if min(xx, yy) <= 0:
            raise UsageError("CKA has no value for features that do not vary over the images")
        return float(xy / np.sqrt(xx * yy))


@dataclass(eq=False)
class _Pair:
    """Sums over images x_i, y_i that HSIC of linear kernels is made of."""

    products: np.ndarray | float = 0.0  # sum of x_i y_i^T
    x: np.ndarray | float = 0.0
    y: np.ndarray | float = 0.0
    x_by_y: np.ndarray | float = 0.0  # sum of x_i |y_i|^2
    y_by_x: np.ndarray | float = 0.0
    x_norms: float = 0.0
    y_norms: float = 0.0
    norms: float = 0.0  # sum of |x_i|^2 |y_i|^2

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        a, b = (x**2).sum(1), (y**2).sum(1)
        self.merge(_Pair(x.T @ y, x.sum(0), y.sum(0), b @ x, a @ y, float(a.sum()), float(b.sum()), float(a @ b)))

    def merge(self, other: _Pair) -> None:
        for name, value in vars(other).items():
            current = getattr(self, name)
            if np.ndim(current) and np.ndim(value) and np.shape(current) != np.shape(value):
                raise UsageError(f"features of {np.shape(current)} and {np.shape(value)} channels in one comparison")
            setattr(self, name, current + value)

    def hsic(self, count: int, unbiased: bool) -> float:
        """tr(K H L H) of the kernels K = X X^T and L = Y Y^T, or the unbiased estimate of HSIC; scale is left out."""
        products, x, y = (np.asarray(value) for value in (self.products, self.x, self.y))
        if not unbiased:
            return float(((products - np.outer(x, y) / count) ** 2).sum())
        # the kernels without their diagonals, K~ and L~: each term of the formula as sums over images
        trace = float((products**2).sum()) - self.norms
        whole = (float(x @ x) - self.x_norms) * (float(y @ y) - self.y_norms)
        rows = float(x @ products @ y - x @ self.x_by_y - y @ self.y_by_x) + self.norms
        value = trace + whole / ((count - 1) * (count - 2)) - 2 * rows / (count - 2)
        return value / (count * (count - 3))
