"""What the images of one shard add to a comparison of two encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, SkippedImage
from encoscope.metrics import ari
from encoscope.metrics.layer_cka import MINIBATCH, LayerCKA
from encoscope.metrics.matching import Correlation, match_units
from encoscope.nave import Segmentation, segment_stream
from encoscope.plots import draw_contact_sheet, draw_overlay

BATCH = 8
"""Images that are held and observed at a time."""

SHOWN = 8


@dataclass(frozen=True)
class ComparedNetworks:
    """Two encoders, and what is read of them.

    Attributes:
        first: The first encoder.
        second: The second encoder.
        untrained: The first one's untrained copy; None where there is none to compare with.
        layers: The layers of each that CKA compares.
        n_clusters: The granularities of the segmentations, in ascending order.
        random_state: The seed.
    """

    first: Encoder
    second: Encoder
    untrained: Encoder | None
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    n_clusters: tuple[int, ...]
    random_state: int = RANDOM_STATE


class ComparedImage(NamedTuple):
    """How alike two encoders segment one image: adjusted Rand indices, one for each number of clusters.

    Attributes:
        position: The image's number in the whole dataset, in the order of the comparison.
        path: Its file, if it has one.
        agreement: Of the two encoders.
        mirrored: Of the first encoder with itself on the mirrored image, mirrored back.
        untrained: Of the first encoder with its untrained copy; None without one.
    """

    position: int
    path: str | None
    agreement: list[float]
    mirrored: list[float]
    untrained: list[float] | None

    @property
    def score(self) -> float:
        """The mean agreement."""
        return float(np.mean(self.agreement))


class _Difference(NamedTuple):
    """An image that is shown, with how both networks segment it."""

    score: float
    position: int
    path: str | None
    pixels: Any
    first: np.ndarray
    second: np.ndarray


class ComparedSums(NamedTuple):
    """What the images of a comparison add up to.

    Attributes:
        cka: ``[first, second]``, of the layers.
        correlations: ``[first, second]``, of the pooled features.
        permuted: ``[first, second]``, the same with each image of the second network replaced by another one.
    """

    cka: Float[np.ndarray, "first second"]
    correlations: Float[np.ndarray, "first second"]
    permuted: Float[np.ndarray, "first second"]


class ComparisonPartial:
    """The sums of a comparison; a few images are held and observed at a time.

    Args:
        networks: The encoders, and what is read of them.
    """

    def __init__(self, networks: ComparedNetworks) -> None:
        self.networks = networks
        self.images: list[ComparedImage] = []
        self.skipped: list[tuple[int, SkippedImage]] = []
        self._cka = LayerCKA(*map(len, networks.layers))
        self._paired, self._permuted = Correlation(), Correlation()
        self._shown: list[_Difference] = []
        self._minibatch = -1
        self._features: list[tuple[Tensor, Tensor]] = []  # of this minibatch

    def partial_fit(self, start: int, items: Sequence[LoadedImage | SkippedImage]) -> ComparisonPartial:
        """Add the images of a batch.

        Args:
            start: The first one's number in the whole dataset, which says to which minibatch they belong.
            items: The images, and what could not be read.

        Returns:
            Itself.
        """
        if start // MINIBATCH != self._minibatch:
            self._end_minibatch()
            self._minibatch = start // MINIBATCH
        self.skipped += [(start + i, item) for i, item in enumerate(items) if isinstance(item, SkippedImage)]
        loaded = [(start + i, item) for i, item in enumerate(items) if isinstance(item, LoadedImage)]
        if loaded:
            self._compare_segmentations(loaded)
            images = [image for _, image in loaded]
            networks = self.networks
            x = _observe_means(networks.first, images, networks.layers[0])
            y = _observe_means(networks.second, images, networks.layers[1])
            self._cka.partial_fit(x[:-1], y[:-1])
            self._features.append((x[-1], y[-1]))
        return self

    def merge(self, other: ComparisonPartial) -> ComparisonPartial:
        """Add another shard's images.

        Args:
            other: Its sums, of the same networks.

        Returns:
            Itself.
        """
        self._end_minibatch()
        other._end_minibatch()
        self._cka.merge(other._cka)
        self._paired.merge(other._paired)
        self._permuted.merge(other._permuted)
        self.images = sorted([*self.images, *other.images], key=lambda image: image.position)
        self.skipped = sorted([*self.skipped, *other.skipped], key=lambda item: item[0])
        self._shown = sorted([*self._shown, *other._shown], key=lambda item: item[:2])[:SHOWN]
        return self

    def finalize(self) -> ComparedSums:
        """Give CKA and the correlations of features."""
        self._end_minibatch()
        return ComparedSums(self._cka.finalize(), self._paired.finalize(), self._permuted.finalize())

    def _end_minibatch(self) -> None:
        """Close a minibatch: its images, and no others, are each other's partners by chance."""
        self._cka.end_minibatch()
        if not self._features:
            return
        x, y = (torch.cat(side) for side in zip(*self._features, strict=True))
        self._features = []
        self._paired.partial_fit(x, y)
        if len(x) > 1:
            partners = _draw_partners(len(x), (self.networks.random_state, self._minibatch))
            self._permuted.partial_fit(x, y[partners])

    def draw_sheet(self) -> Image.Image:
        """Draw the images that differ most, with their middle granularity as both networks see it."""
        networks, images, captions = self.networks, [], []
        middle = networks.n_clusters[len(networks.n_clusters) // 2]
        for item in self._shown:
            images += [item.pixels, item.first, item.second]
            captions += [
                f"{Path(item.path).name if item.path else 'image'}: agreement {item.score:.2f}",
                f"{networks.first.source}, K = {middle}",
                networks.second.source,
            ]
        return Image.fromarray(draw_contact_sheet(images, captions, columns=6))

    def _compare_segmentations(self, part: Sequence[tuple[int, LoadedImage]]) -> None:
        networks = self.networks
        images = [image for _, image in part]
        ours, theirs = (self._segment(encoder, images) for encoder in (networks.first, networks.second))
        mirrored = self._segment(networks.first, [_mirror(image) for image in images])
        bare = None if networks.untrained is None else self._segment(networks.untrained, images)
        for index, (position, image) in enumerate(part):
            compared = ComparedImage(
                position,
                image.path,
                _compute_aris(ours[index], theirs[index]),
                _compute_aris(ours[index], mirrored[index], mirrored=True),
                None if bare is None else _compute_aris(ours[index], bare[index]),
            )
            self.images.append(compared)
            self._keep_if_low(compared, image, ours[index], theirs[index])

    def _segment(self, encoder: Encoder, images: Sequence[LoadedImage]) -> list[list[Segmentation]]:
        """Each image's segmentations, one for each number of clusters."""
        numbers, seed = self.networks.n_clusters, self.networks.random_state
        segmentations: list[Segmentation] = []
        for result in segment_stream(encoder, images, n_clusters=numbers, random_state=seed, batch_size=len(images)):
            if isinstance(result, SkippedImage):
                raise UsageError(f"{result.path} cannot be segmented: {result.reason}")
            segmentations.append(result[1])
        return [segmentations[start : start + len(numbers)] for start in range(0, len(segmentations), len(numbers))]

    def _keep_if_low(
        self, compared: ComparedImage, image: LoadedImage, first: Sequence[Segmentation], second: Sequence[Segmentation]
    ) -> None:
        """Keep the images with the lowest scores so far; the second network's segments take the first's colors."""
        if len(self._shown) == SHOWN and (compared.score, compared.position) >= self._shown[-1][:2]:
            return
        middle = len(first) // 2
        ours, theirs = (side[middle].labels.astype(np.int64) for side in (first, second))
        overlays = (draw_overlay(image, ours), draw_overlay(image, match_labels(ours, theirs)))
        shown = _Difference(compared.score, compared.position, image.path, image.pixels, *overlays)
        self._shown = sorted([*self._shown, shown], key=lambda item: item[:2])[:SHOWN]


def match_labels(
    first: Integer[np.ndarray, "height width"], second: Integer[np.ndarray, "height width"]
) -> Integer[np.ndarray, "height width"]:
    """Rename the labels of one segmentation so that as many pixels as possible have the other's label.

    Args:
        first: Labels from 0 on.
        second: Labels from 0 on, of the same image.

    Returns:
        The second labels, renamed one to one.

    Example:
        >>> match_labels(np.array([[0, 0, 1]]), np.array([[1, 1, 0]])).tolist()
        [[0, 0, 1]]
    """
    count = int(max(first.max(), second.max())) + 1
    common = np.bincount((first * count + second).ravel(), minlength=count * count).reshape(count, count)
    names = np.empty(count, np.int64)
    for ours, theirs in match_units(common.astype(np.float64)):
        names[theirs] = ours
    return names[second]


def _draw_partners(count: int, seed: tuple[int, ...]) -> np.ndarray:
    """For each image another one at random: its neighbor in a circle of random order."""
    order = np.random.default_rng(seed).permutation(count)
    partners = np.empty(count, np.int64)
    partners[order] = np.roll(order, -1)
    return partners


def _mirror(image: LoadedImage) -> LoadedImage:
    return replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def _compute_aris(
    first: Sequence[Segmentation], second: Sequence[Segmentation], *, mirrored: bool = False
) -> list[float]:
    """Agreement at each granularity; mirrored: the second ones are of the mirrored image."""
    turn = slice(None, None, -1 if mirrored else 1)
    return [
        ari(a.labels.astype(np.int64), b.labels[:, turn].astype(np.int64)) for a, b in zip(first, second, strict=True)
    ]


def _observe_means(
    encoder: Encoder, images: Sequence[LoadedImage], layers: Sequence[str]
) -> list[Float[Tensor, "images channels"]]:
    seen = encoder.observe(list(images), layers, features=True)
    means = [seen.activations[name].maps.mean((2, 3)).cpu() for name in layers]
    assert seen.features is not None  # they were asked for
    return [*means, seen.features.cpu()]
