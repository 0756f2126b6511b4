"""A uniform sample of pixels from a stream of images, the same whatever the order, the batches or the workers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.defaults import RANDOM_STATE
from encoscope.nave.composite import Composite, features_from_vectors
from encoscope.nave.settings import JointSettings

PIXELS = JointSettings.n_sample
BYTES = 2**27
"""The sample holds at most this much, or fewer pixels where the composite vectors are long."""

_BLOCK = 4096  # vectors made at a time: of a first, large image there may be more pixels than the sample holds


class PixelSample:
    """The pixels with the smallest random keys; every image draws its keys from (seed, image id).

    ``partial_fit`` adds images, ``merge`` another worker's sample, ``finalize`` gives the vectors in the order of their
    keys.

    Args:
        pixels: How many are kept; fewer when their vectors would take more than 128 MB.
        random_state: The seed.
    """

    def __init__(self, pixels: int = PIXELS, *, random_state: int = RANDOM_STATE) -> None:
        self.pixels, self.seed = pixels, random_state
        self._keys = np.empty(0)
        self._vectors = torch.empty(0, 0)  # room for as many rows as the sample may hold; the first len(_keys) are used

    def partial_fit(self, features: Composite, ids: list[str]) -> PixelSample:
        """Add the pixels of a batch of images.

        Args:
            features: Their composite features.
            ids: The id of each image (hexadecimal).

        Returns:
            Itself.
        """
        for image, name in enumerate(ids):
            selection = features.select(torch.tensor([image], device=features.device))
            keys = np.random.default_rng([self.seed, int(name[:16], 16)]).random(selection.pixels)
            order = np.argsort(keys)
            for start in range(0, len(order), _BLOCK):
                block = order[start : start + _BLOCK]
                block = block[keys[block] < self._largest(features.dim)]
                if len(block) == 0:
                    break
                index = torch.from_numpy(block)[None].to(features.device)
                self._add(keys[block], selection.rows(index)[0].float().cpu())
        return self

    def merge(self, other: PixelSample) -> PixelSample:
        """Add what another sample holds.

        Args:
            other: The sample of another worker.

        Returns:
            Itself.
        """
        if len(other._keys):
            self._add(other._keys, other._vectors[: len(other._keys)])
        return self

    def __len__(self) -> int:
        """How many pixels it holds."""
        return len(self._keys)

    def finalize(self, device: torch.device | str = "cpu") -> Composite:
        """Give the sampled composite vectors as features to cluster.

        Args:
            device: Where they are put.

        Returns:
            The features of one "image".

        Raises:
            ValueError: When nothing was added.
        """
        if not len(self):
            raise ValueError("an empty sample")
        order = np.argsort(self._keys, kind="stable")
        return features_from_vectors(self._vectors[torch.from_numpy(order)].to(device))

    def _capacity(self, dim: int) -> int:
        return max(1, min(self.pixels, BYTES // (4 * dim)))

    def _largest(self, dim: int) -> float:
        """Keys from here on cannot enter."""
        return float(self._keys.max()) if len(self._keys) == self._capacity(dim) else np.inf

    def _add(self, keys: Float[np.ndarray, " n"], vectors: Float[Tensor, "n dim"]) -> None:
        """Fill free rows, then let smaller keys take the rows of larger ones; no row moves."""
        dim = vectors.shape[1]
        capacity, used = self._capacity(dim), len(self._keys)
        if self._vectors.shape[1] != dim:
            self._vectors = torch.empty(capacity, dim)
        every = np.concatenate([self._keys, keys])
        stays = np.zeros(len(every), dtype=bool)
        stays[np.argpartition(every, capacity - 1)[:capacity] if len(every) > capacity else slice(None)] = True
        entering = np.flatnonzero(stays[used:])
        rows = np.concatenate([np.flatnonzero(~stays[:used]), np.arange(used, capacity)])[: len(entering)]
        self._vectors[torch.from_numpy(rows)] = vectors[torch.from_numpy(entering)]
        self._keys = np.concatenate([self._keys, np.empty(int((rows >= used).sum()))])
        self._keys[rows] = keys[entering]
