"""CKA between all layers of two networks in one pass; its memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoscope.errors import UsageError
from encoscope.metrics._arrays import Features, as_float64

MINIBATCH = 128


@dataclass(eq=False)
class LayerCKA:
    """Minibatch CKA: unbiased HSIC of linear kernels, averaged over minibatches.

    A single minibatch gives the unbiased linear CKA of its images. Minibatches have ``MINIBATCH`` images, whatever the
    sizes of the batches that are added; the images left over at the end count if there are at least four.

    Attributes:
        first: Number of layers of the first network.
        second: Number of layers of the second network.

    Source: Nguyen, Raghu and Kornblith, 2021.
    """

    first: int
    second: int

    def __post_init__(self) -> None:
        self._waiting: list[list[np.ndarray]] = [[] for _ in range(self.first + self.second)]
        self._held = 0
        self._cross = np.zeros((self.first, self.second))
        self._own = np.zeros(self.first + self.second)
        self._batches = 0

    def partial_fit(self, first: Sequence[Features], second: Sequence[Features]) -> LayerCKA:
        """Add a batch of images.

        Args:
            first: For each layer of the first network ``[images, channels]``.
            second: For each layer of the second network ``[images, channels]``, of the same images in the same order.

        Returns:
            This object.

        Raises:
            UsageError: The numbers of layers or images do not agree.
        """
        layers = [as_float64(values, "a layer's features") for values in (*first, *second)]
        if len(layers) != len(self._waiting) or len({len(values) for values in layers}) > 1:
            raise UsageError("CKA needs every layer's features of the same images")
        for held, values in zip(self._waiting, layers, strict=True):
            held.append(values)
        self._held += len(layers[0])
        while self._held >= MINIBATCH:
            joined = [np.concatenate(held) for held in self._waiting]
            self._take([values[:MINIBATCH] for values in joined])
            self._waiting = [[values[MINIBATCH:]] for values in joined]
            self._held -= MINIBATCH
        return self

    def end_minibatch(self) -> LayerCKA:
        """Make a minibatch of the images that wait for more; fewer than four are left out.

        Returns:
            This object.
        """
        if self._held >= 4:
            self._take([np.concatenate(held) for held in self._waiting])
        self._waiting, self._held = [[] for _ in self._waiting], 0
        return self

    def merge(self, other: LayerCKA) -> LayerCKA:
        """Add the minibatches of other images; what waits on either side is first made a minibatch.

        Args:
            other: Theirs, of the same layers.

        Returns:
            This object.
        """
        self.end_minibatch()
        other.end_minibatch()
        self._cross += other._cross
        self._own += other._own
        self._batches += other._batches
        return self

    def finalize(self) -> Float[np.ndarray, "first second"]:
        """Compute the CKA of each pair of layers; NaN for a layer that does not vary.

        Raises:
            UsageError: There are fewer than four images.
        """
        self.end_minibatch()
        if not self._batches:
            raise UsageError("CKA needs at least 4 images")
        scale = np.multiply.outer(self._own[: self.first], self._own[self.first :])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(scale > 0, self._cross / np.sqrt(scale), np.nan)

    def _take(self, layers: Sequence[np.ndarray]) -> None:
        kernels = [_kernel(values) for values in layers]
        for a, kernel in enumerate(kernels):
            self._own[a] += _hsic(kernel, kernel)
        for a, b in np.ndindex(self.first, self.second):
            self._cross[a, b] += _hsic(kernels[a], kernels[self.first + b])
        self._batches += 1


def _kernel(features: np.ndarray) -> np.ndarray:
    """The linear kernel of centred features, without its diagonal."""
    centred = features - features.mean(0)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0)
    return kernel


def _hsic(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased HSIC of two kernels with zero diagonals (Song et al., 2012, eq. 5)."""
    n = len(first)
    traced = np.vdot(first, second)
    totals = first.sum() * second.sum() / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * (first.sum(0) @ second.sum(0))
    return float(traced + totals - rows) / (n * (n - 3))
