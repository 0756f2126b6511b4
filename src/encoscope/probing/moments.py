"""Mean and standard deviation of channels over a stream, exact whatever its order and batches."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError

# Twice the precision of float64: a number as the unevaluated sum of a large and a small one (Dekker 1971).
Double: TypeAlias = tuple[np.ndarray, np.ndarray]


class Moments:
    """Count, mean and standard deviation of each channel: ``partial_fit``, ``merge``, ``finalize``.

    Sums and sums of squares have 106 bits, enough for a float32 and its square without rounding. So the result does not
    depend on order, batches and number of workers, except perhaps for the last bit of float64.

    Args:
        channels: Number of channels.

    Example:
        >>> mean, std = Moments(1).partial_fit(np.array([[1.0], [3.0]])).finalize()
        >>> (mean.tolist(), std.tolist())
        ([2.0], [1.0])
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.count = 0
        self._sum: Double = (np.zeros(channels), np.zeros(channels))
        self._squares: Double = (np.zeros(channels), np.zeros(channels))

    def partial_fit(self, values: Float[np.ndarray, "images channels"]) -> Moments:
        """Add images.

        Args:
            values: The value of each channel on each image.

        Returns:
            This object.

        Raises:
            UsageError: The number of channels is another.
        """
        if values.shape[1] != self.channels:
            raise UsageError(f"values of {values.shape[1]} channels for moments of {self.channels}")
        if len(values):
            exact = values.astype(np.float64)
            high = exact * exact
            low = np.zeros_like(high) if values.dtype.itemsize <= 4 else _square_error(exact, high)
            self.count += len(values)
            self._sum = _add(self._sum, _total((exact, np.zeros_like(exact))))
            self._squares = _add(self._squares, _total((high, low)))
        return self

    def merge(self, other: Moments) -> Moments:
        """Add the images of another worker.

        Args:
            other: Moments of other images.

        Returns:
            This object.

        Raises:
            UsageError: The number of channels is another.
        """
        if other.channels != self.channels:
            raise UsageError(f"moments of {other.channels} channels do not fit those of {self.channels}")
        self.count += other.count
        self._sum = _add(self._sum, other._sum)
        self._squares = _add(self._squares, other._squares)
        return self

    def finalize(self) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
        """Compute (mean, standard deviation), the latter over all images, without Bessel's correction; float64."""
        if not self.count:
            raise UsageError("no images: there is no mean")
        number = np.full(self.channels, float(self.count)), np.zeros(self.channels)
        # count^2 * variance = count * sum of squares - sum^2, free of cancellation at this precision
        product = _multiply(self._sum, self._sum)
        spread = _add(_multiply(number, self._squares), (-product[0], -product[1]))
        variance = np.maximum(spread[0] + spread[1], 0) / float(self.count) ** 2
        return (self._sum[0] + self._sum[1]) / self.count, np.sqrt(variance)


def _total(values: Double) -> Double:
    """The sum along the first axis, in pairs."""
    high, low = values
    while len(high) > 1:
        if len(high) % 2:
            high, low = (np.concatenate([part, np.zeros_like(part[:1])]) for part in (high, low))
        high, low = _add((high[::2], low[::2]), (high[1::2], low[1::2]))
    return high[0], low[0]


def _two_sum(a: np.ndarray, b: np.ndarray) -> Double:
    """a + b, and its rounding error (Knuth)."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


def _add(a: Double, b: Double) -> Double:
    high, error = _two_sum(a[0], b[0])
    low, less = _two_sum(a[1], b[1])
    high, error = _two_sum(high, error + low)
    return _two_sum(high, error + less)


def _split(a: np.ndarray) -> Double:
    """A float64 as the sum of two of 26 bits (Veltkamp)."""
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def _product_error(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> np.ndarray:
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _square_error(a: np.ndarray, square: np.ndarray) -> np.ndarray:
    return _product_error(a, a, square)


def _multiply(a: Double, b: Double) -> Double:
    high = a[0] * b[0]
    return _two_sum(high, _product_error(a[0], b[0], high) + a[0] * b[1] + a[1] * b[0])
