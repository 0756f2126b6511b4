"""The images on which each channel is strongest, over a stream."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from encoscope.errors import UsageError


class TopK:
    """The k largest values of each channel, and their images: ``partial_fit``, ``merge``, ``finalize``.

    Ties go to the image of smaller number (its rank by id), so the result does not depend on order, batches and
    workers.

    Args:
        k: How many values are kept, at least 1; all if there are fewer images.
        channels: Number of channels.

    Example:
        >>> values, images = TopK(1, 2).partial_fit(np.array([[1.0, 5.0], [2.0, 4.0]]), np.arange(2)).finalize()
        >>> images.tolist()
        [[1, 0]]
    """

    def __init__(self, k: int, channels: int) -> None:
        if k < 1:
            raise UsageError(f"k is a number from 1 on, not {k}")
        self.k = k
        self.channels = channels
        self._values = np.empty((0, channels), np.float32)
        self._images = np.empty((0, channels), np.int64)

    def partial_fit(
        self,
        values: Float[np.ndarray, "images channels"],
        images: Integer[np.ndarray, " images"] | Integer[np.ndarray, "images channels"],
    ) -> TopK:
        """Add images.

        Args:
            values: The value of each channel on each image.
            images: The images' numbers, or a number for each value; none may be added twice.

        Returns:
            This object.
        """
        values = values.astype(np.float32, copy=False)
        numbers = np.broadcast_to(images[:, None] if images.ndim == 1 else images, values.shape)
        if len(self._values) == self.k:  # most values are below the k-th already
            need = int((values >= self._values[-1]).sum(0).max(initial=0))
            if need == 0:
                return self
            if need < len(values):
                indices = np.argpartition(-values, need - 1, axis=0)[:need]
                return self._keep(np.take_along_axis(values, indices, 0), np.take_along_axis(numbers, indices, 0))
        return self._keep(values, numbers)

    def merge(self, other: TopK) -> TopK:
        """Add the images of another worker.

        Args:
            other: The top of other images, with the same k and channels.

        Returns:
            This object.

        Raises:
            UsageError: k or the number of channels is another.
        """
        if (other.k, other.channels) != (self.k, self.channels):
            raise UsageError(f"the top {other.k} of {other.channels} channels do not fit {self.k} of {self.channels}")
        return self._keep(other._values, other._images)

    def finalize(self) -> tuple[Float[np.ndarray, "k channels"], Integer[np.ndarray, "k channels"]]:
        """Return (values, image numbers) for each channel, the largest value first."""
        return self._values, self._images

    def restore(self, values: Float[np.ndarray, "k channels"], images: Integer[np.ndarray, "k channels"]) -> TopK:
        """Add what ``finalize`` gave before.

        Args:
            values: The largest values of other images.
            images: These images' numbers.

        Returns:
            This object.
        """
        return self._keep(values, images)

    def _keep(self, values: np.ndarray, images: np.ndarray) -> TopK:
        values = np.concatenate([self._values, values])
        images = np.concatenate([self._images, images])
        order = np.lexsort((images, -values), axis=0)[: self.k]
        self._values = np.take_along_axis(values, order, 0)
        self._images = np.take_along_axis(images, order, 0)
        return self
