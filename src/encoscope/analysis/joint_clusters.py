"""What the audits share: joint clusters of a few images, and what a network sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.images import LoadedImage, read_image
from encoscope.nave import Nave
from encoscope.progress import Progress, track_steps

_BATCH = 16


class LazySequence(Sequence[Any]):
    """Items that are made each time they are asked for, so that one is in memory at a time.

    Args:
        length: How many there are.
        make: Makes one, by its number.

    Example:
        >>> list(LazySequence(3, lambda number: number**2))
        [0, 1, 4]
    """

    def __init__(self, length: int, make: Callable[[int], Any]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        """Number of items."""
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """Make an item, or several as a list."""
        if isinstance(index, slice):
            return [self._make(number) for number in range(*index.indices(self._length))]
        return self._make(range(self._length)[index])


def fit_joint_clusters(
    encoder: Encoder, images: Sequence[Any], n_clusters: int, random_state: int, *, progress: Progress = None
) -> Nave:
    """Fit one set of clusters over images: joint NAVE over the last two stages or blocks, as in its Fig. 6.

    Args:
        encoder: The network.
        images: The images; each pass over them asks for one at a time.
        n_clusters: K.
        random_state: The seed.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The fit.
    """
    channels = encoder.preprocess.image_channels

    def read(index: int) -> LoadedImage:
        image = images[index]
        return image if isinstance(image, LoadedImage) else read_image(image, channels=channels)

    return Nave(
        encoder,
        preset="paper",
        n_clusters=n_clusters,
        layers=encoder.depths[-2:],
        feature_cache="none",
        random_state=random_state,
        progress=progress,
    ).fit(LazySequence(len(images), read))


def predict_labels(nave: Nave, image: Any) -> Int[np.ndarray, "height width"]:
    """Predict one image's joint clusters.

    Args:
        nave: The fit.
        image: The image.

    Returns:
        ``[height, width]``, of the image's own size.
    """
    (segmentation,) = nave.predict([image])  # which reads it with the network's channels
    return segmentation.labels.astype(np.int64)


def observe_images(
    encoder: Encoder, images: Iterable[Any], *, progress: Progress = None
) -> tuple[Float[Tensor, "images width"], Float[Tensor, "images classes"] | None]:
    """Compute pooled features and class probabilities.

    Args:
        encoder: The network.
        images: The images, in memory.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        (features, probabilities), on the CPU; None in place of the latter without a classification head.
    """
    items = list(images)
    features, probabilities = [], []
    with track_steps(len(items), "features", progress, shorter="--limit N") as count:
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            seen = encoder.observe(batch, features=True, logits=encoder.outputs is not None)
            if seen.features is not None:
                features.append(seen.features.cpu())
            if seen.logits is not None:
                probabilities.append(seen.logits.softmax(1).cpu())
            count(len(batch))
    return torch.cat(features), torch.cat(probabilities) if probabilities else None
