"""Centred kernel alignment of two representations of the same images (Kornblith et al., 2019), linear and streamed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64


def linear_cka(first: Features, second: Features, *, unbiased: bool = False) -> float:
    """Linear CKA of two sets of features of the same images, in [0, 1]: 1 for equal up to rotation and scale.

    unbiased: take the unbiased estimate of HSIC (Song et al., 2012, eq. 5), which does not grow with the number of
    channels over images and may be slightly negative. Raises UsageError for different images, or too few.
    """
    return LinearCKA().partial_fit(first, second).score(unbiased=unbiased)


@dataclass(eq=False)
class LinearCKA:
    """Linear CKA over any number of batches, exact: sums over images, of channels x channels numbers at most.

    Sums of several processes add up with ``merge``.
    """

    count: int = 0
    _xx: _Pair = field(default_factory=lambda: _Pair(), repr=False)
    _yy: _Pair = field(default_factory=lambda: _Pair(), repr=False)
    _xy: _Pair = field(default_factory=lambda: _Pair(), repr=False)

    def partial_fit(self, first: Features, second: Features) -> LinearCKA:
        """Take a batch: both networks' features of the same images, in the same order."""
        x, y = as_float64(first, "first features"), as_float64(second, "second features")
        if len(x) != len(y):
            raise UsageError(f"CKA compares features of the same images: {len(x)} and {len(y)} rows")
        self.count += len(x)
        for pair, (a, b) in ((self._xx, (x, x)), (self._yy, (y, y)), (self._xy, (x, y))):
            pair.add(a, b)
        return self

    def merge(self, other: LinearCKA) -> LinearCKA:
        """Add the sums of another process, over other images."""
        self.count += other.count
        for mine, theirs in ((self._xx, other._xx), (self._yy, other._yy), (self._xy, other._xy)):
            mine.merge(theirs)
        return self

    def score(self, *, unbiased: bool = False) -> float:
        """CKA of what was taken. UsageError for fewer than 2 images (4 if unbiased), or constant features."""
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
            mine = getattr(self, name)
            if np.ndim(mine) and np.ndim(value) and np.shape(mine) != np.shape(value):
                raise UsageError(f"features of {np.shape(mine)} and {np.shape(value)} channels in one comparison")
            setattr(self, name, mine + value)

    def hsic(self, count: int, unbiased: bool) -> float:
        """tr(K H L H) of the kernels K = X X^T and L = Y Y^T, or the unbiased estimate of HSIC; scale is left open."""
        products, x, y = (np.asarray(value) for value in (self.products, self.x, self.y))
        if not unbiased:
            return float(((products - np.outer(x, y) / count) ** 2).sum())
        # the kernels without their diagonals, K~ and L~: each term of the formula as sums over images
        trace = float((products**2).sum()) - self.norms
        whole = (float(x @ x) - self.x_norms) * (float(y @ y) - self.y_norms)
        rows = float(x @ products @ y - x @ self.x_by_y - y @ self.y_by_x) + self.norms
        value = trace + whole / ((count - 1) * (count - 2)) - 2 * rows / (count - 2)
        return value / (count * (count - 3))
