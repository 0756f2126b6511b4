"""How much of a segmentation would come out again: over k-means starts, a mirrored image and crops of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from sklearn.metrics import adjusted_rand_score
from torch import nn

from encoscope import plots
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.images import LoadedImage, read_image
from encoscope.nave.segmentation import Segmentation
from encoscope.nave.single_image import segment_stream

CROP = 0.8
"""Side of a crop over the side of the image; four are taken, one from each corner."""


@dataclass(frozen=True, eq=False)
class Stability:
    """Agreement of segmentations that ought to be the same, as adjusted Rand indices: 1 the same, 0 chance.

    Attributes:
        runs: Segmentations from different seeds.
        starts: Of every pair of runs.
        flip: Of the mirrored image, mirrored back.
        crops: Of each corner's crop, with the same place of the whole image's segmentation.
        mean_color: ``[height, width, 3]``, every pixel the mean color of its cluster, averaged over the runs (Fig. 4).
    """

    runs: int
    starts: Float[np.ndarray, " pairs"]
    flip: float
    crops: Float[np.ndarray, " crops"]
    mean_color: UInt8[np.ndarray, "height width 3"]

    def as_dict(self) -> dict[str, Any]:
        """The figures for a result document: mean and least agreement."""
        return {
            "runs": self.runs,
            "starts": {"mean": float(self.starts.mean()), "min": float(self.starts.min())},
            "flip": self.flip,
            "crops": {"mean": float(self.crops.mean()), "min": float(self.crops.min())},
        }


@explain_calls
def measure_stability(
    encoder: Encoder | nn.Module | str, image: Any, *, runs: int = 20, random_state: int = RANDOM_STATE, **settings: Any
) -> Stability:
    """Segment one image with several seeds, mirrored, and in four crops, and compare.

    Args:
        encoder: An encoder, a module, or a source string.
        image: The image: a path, a PIL image, an array or a tensor.
        runs: Seeds, from ``random_state`` on; at least 2.
        random_state: The first seed.
        **settings: As for ``segment``, with one number of clusters.

    Returns:
        The agreement, measured on the original image's pixels.

    Raises:
        UsageError: For fewer than two runs, and for several numbers of clusters.
    """
    if runs < 2:
        raise UsageError(f"agreement needs at least two runs, not {runs}")
    if not isinstance(settings.get("n_clusters") or 1, int):
        raise UsageError(f"agreement is measured for one number of clusters, not {settings['n_clusters']!r}")
    encoder = as_encoder(encoder)
    image = image if isinstance(image, LoadedImage) else read_image(image, channels=encoder.preprocess.image_channels)
    segmentations = [_segment(encoder, [image], random_state=random_state + run, **settings)[0] for run in range(runs)]
    whole = segmentations[0].labels
    mirrored, *crops = _segment(
        encoder, [_part(image, np.s_[:, ::-1]), *_crops(image)], random_state=random_state, **settings
    )
    return Stability(
        runs=runs,
        starts=np.array([compute_agreement(a.grid_labels, b.grid_labels) for a, b in combinations(segmentations, 2)]),
        flip=compute_agreement(whole, mirrored.labels[:, ::-1]),
        crops=np.array(
            [compute_agreement(whole[part], c.labels) for part, c in zip(_corners(image), crops, strict=True)]
        ),
        mean_color=mean_color(image, [segmentation.labels for segmentation in segmentations]),
    )


def compute_agreement(first: Integer[np.ndarray, ...], second: Integer[np.ndarray, ...]) -> float:
    """Compute the adjusted Rand index of two labellings of the same pixels.

    Args:
        first: Labels of any shape.
        second: Labels of the same shape.

    Returns:
        1 where they are the same up to names, about 0 by chance.
    """
    return float(adjusted_rand_score(first.ravel(), second.ravel()))


def mean_color(
    image: LoadedImage, segmentations: Sequence[Integer[np.ndarray, "height width"]]
) -> UInt8[np.ndarray, "height width 3"]:
    """Give every pixel the mean color of its cluster, averaged over several segmentations of one image.

    Args:
        image: The image.
        segmentations: ``[height, width]`` each.

    Returns:
        ``[height, width, 3]``.

    Source: NAVE, Fig. 4.
    """
    pixels = plots.to_rgb(image.pixels).reshape(-1, 3).astype(np.float64)
    total = np.zeros_like(pixels)
    for labels in segmentations:
        flat = labels.ravel()
        counts = np.maximum(np.bincount(flat), 1)
        colors = np.stack([np.bincount(flat, weights=channel) / counts for channel in pixels.T], axis=1)
        total += colors[flat]
    return (total / len(segmentations)).round().astype(np.uint8).reshape(image.height, image.width, 3)


def _segment(encoder: Encoder, images: Sequence[LoadedImage], **settings: Any) -> list[Segmentation]:
    return [result[1] for result in segment_stream(encoder, images, **settings) if isinstance(result, tuple)]


def _corners(image: LoadedImage) -> Iterator[tuple[slice, slice]]:
    height, width = max(1, round(CROP * image.height)), max(1, round(CROP * image.width))
    for top in (0, image.height - height):
        for left in (0, image.width - width):
            yield np.s_[top : top + height, left : left + width]


def _crops(image: LoadedImage) -> list[LoadedImage]:
    return [_part(image, corner) for corner in _corners(image)]


def _part(image: LoadedImage, part: Any) -> LoadedImage:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[part]))
