"""The images at which each channel is strongest, over a stream."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from encoscope.errors import UsageError


class TopK:
    """The k largest values of each channel and whose they are: ``partial_fit``, ``merge``, ``finalize``.

    k: how many are kept; of fewer images all. Ties go to the smaller number of the image (its rank by id), so that
    order, batches and workers do not matter.
    """

    def __init__(self, k: int, channels: int) -> None:
        if k < 1:
            raise UsageError(f"k is a number from 1 on, not {k}")
        self.k = k
        self.channels = channels
        self._values = np.empty((0, channels), np.float32)
        self._images = np.empty((0, channels), np.int64)

    def partial_fit(self, values: Float[np.ndarray, "images channels"], images: Integer[np.ndarray, " images"]) -> TopK:
        """Add images by number; no image twice."""
        values = values.astype(np.float32, copy=False)
        if len(self._values) == self.k:  # most values are below the k-th already
            need = int((values >= self._values[-1]).sum(0).max(initial=0))
            if need == 0:
                return self
            if need < len(values):
                places = np.argpartition(-values, need - 1, axis=0)[:need]
                return self._keep(np.take_along_axis(values, places, 0), images[places])
        return self._keep(values, np.broadcast_to(images[:, None], values.shape))

    def merge(self, other: TopK) -> TopK:
        """Add another worker's images."""
        if (other.k, other.channels) != (self.k, self.channels):
            raise UsageError(f"the top {other.k} of {other.channels} channels do not fit {self.k} of {self.channels}")
        return self._keep(other._values, other._images)

    def finalize(self) -> tuple[Float[np.ndarray, "k channels"], Integer[np.ndarray, "k channels"]]:
        """(values, image numbers), the largest first."""
        return self._values, self._images

    def _keep(self, values: np.ndarray, images: np.ndarray) -> TopK:
        values = np.concatenate([self._values, values])
        images = np.concatenate([self._images, images])
        order = np.lexsort((images, -values), axis=0)[: self.k]
        self._values = np.take_along_axis(values, order, 0)
        self._images = np.take_along_axis(images, order, 0)
        return self
