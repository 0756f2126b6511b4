"""How much every cell of an image is like some places, by cosines of composite features, beside random places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.nave.composite import EPS, Composite

_NUMBERS = 2**24  # that are held at a time for random places


@dataclass(frozen=True, eq=False)
class TargetFeatures:
    """The features of places, and of random ones: the same arrangement of cells at random positions of some images.

    Attributes:
        positives: ``[1 + random, places, dim]``, of length 1 (or zero); the first row is what was asked for.
        negatives: ``[1 + random, places, dim]``, likewise; there may be none.
        origins: The id of the image of each row.
    """

    positives: Float[Tensor, "sets _positive dim"]
    negatives: Float[Tensor, "sets _negative dim"]
    origins: tuple[str, ...]

    def joined(self, other: TargetFeatures) -> TargetFeatures:
        """Put the rows of another query behind these.

        Args:
            other: The other query.

        Returns:
            A query with all rows.
        """
        positives = torch.cat([self.positives, other.positives])
        negatives = torch.cat([self.negatives, other.negatives])
        return TargetFeatures(positives, negatives, self.origins + other.origins)

    def elsewhere(self, image: str) -> Bool[np.ndarray, " sets"]:
        """Tell the random places of other images than this one: in its own image a place finds itself.

        Args:
            image: The id of the image.

        Returns:
            True for these rows; the first row is none of them.
        """
        return np.array([False, *(origin != image for origin in self.origins[1:])])

    def score(self, features: Composite) -> Float[Tensor, "sets pixels"]:
        """Score every cell of an image, for the places and for each of the random ones.

        Args:
            features: The composite features of one image.

        Returns:
            The largest cosine with a positive place, minus the largest with a negative one where there are any.
        """
        norms = features.squared_norms.sqrt().clamp_min(EPS)[0]
        sets = len(self.positives)
        targets = self.positives.shape[1] + self.negatives.shape[1]
        scores = torch.empty(sets, features.pixels, dtype=features.dtype, device=features.device)
        for part in torch.arange(sets).split(max(1, _NUMBERS // (targets * features.pixels))):
            first, last = int(part[0]), int(part[-1]) + 1
            best = _best_cosines(features, self.positives[first:last], norms)
            if self.negatives.shape[1]:
                best = best - _best_cosines(features, self.negatives[first:last], norms)
            scores[first:last] = best
        return scores


Weights: TypeAlias = Sequence[Float[np.ndarray, "rows columns"]]
"""The weights of the cells of each of some places."""


def take_targets(features: Composite, image: str, positives: Weights, negatives: Weights) -> TargetFeatures:
    """Take the features of places in an image.

    A place's vector is the mean of the unit vectors of its cells.

    Args:
        features: The composite features of the image.
        image: Its id.
        positives: The places that are asked for.
        negatives: The places that are not.

    Returns:
        A query of one row.

    Raises:
        UsageError: For a place where all features are zero.
    """
    vectors = [_take_vectors(features, targets, [(0, 0)]) for targets in (positives, negatives)]
    if any(part.shape[1] and float(part.norm(dim=2).min()) == 0 for part in vectors):
        raise UsageError("the features of a place are all zero: point elsewhere, or take other layers")
    return TargetFeatures(vectors[0], vectors[1], (image,))


def take_random_targets(
    features: Composite, image: str, positives: Weights, negatives: Weights, count: int, generator: np.random.Generator
) -> TargetFeatures:
    """Take the features of random places in an image: the same cells, all moved together, around the grid's edges.

    Args:
        features: The composite features of the image, which need not be the one that the places are in.
        image: Its id.
        positives: The places that are asked for, on the grid that they are in.
        negatives: The places that are not.
        count: Random places; no two moves are the same, so there are at most as many as cells.
        generator: Draws the moves.

    Returns:
        A query of as many rows.
    """
    rows, columns = features.grid
    moves = generator.permutation(rows * columns)[:count]
    shifts = [(int(move) // columns, int(move) % columns) for move in moves]
    vectors = [
        _take_vectors(features, [_wrap(weights, features.grid) for weights in targets], shifts)
        for targets in (positives, negatives)
    ]
    return TargetFeatures(vectors[0], vectors[1], (image,) * len(shifts))


def grow_region(
    scores: Float[np.ndarray, "rows columns"], threshold: float, seeds: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Grow a region from cells: all cells above a threshold that are connected to one of them (4-connectivity).

    Args:
        scores: The score of each cell.
        threshold: What a cell of the region exceeds.
        seeds: Where it may begin; those that do not exceed the threshold begin nothing.

    Returns:
        The region.
    """
    components = np.zeros(scores.shape, dtype=np.int32)
    ndimage.label(scores > threshold, output=components)
    kept = np.unique(components[seeds])
    return np.isin(components, kept[kept > 0])


def _wrap(weights: Float[np.ndarray, "rows columns"], grid: tuple[int, int]) -> Float[np.ndarray, "_rows _columns"]:
    """The weights on another grid, around its edges."""
    wrapped = np.zeros(grid)
    row, column = np.nonzero(weights)
    np.add.at(wrapped, (row % grid[0], column % grid[1]), weights[row, column])
    return wrapped


def _take_vectors(
    features: Composite, targets: Sequence[Float[np.ndarray, "rows columns"]], shifts: Sequence[tuple[int, int]]
) -> Float[Tensor, "sets places dim"]:
    """The mean unit vector of each place after each shift."""
    inverse = 1 / features.squared_norms.sqrt().clamp_min(EPS)  # [1, pixels]
    vectors = torch.zeros(len(shifts), len(targets), features.dim, dtype=features.dtype, device=features.device)
    step = max(1, _NUMBERS // features.pixels)
    for number, weights in enumerate(targets):
        for start in range(0, len(shifts), step):
            part = shifts[start : start + step]
            moved = np.stack([np.roll(weights, shift, (0, 1)).ravel() for shift in part]) / weights.sum()
            tensor = torch.from_numpy(moved).to(features.device, features.dtype)
            vectors[start : start + step, number] = features.sums((tensor * inverse)[None])[0]
    lengths = vectors.norm(dim=2, keepdim=True)
    return torch.where(lengths > EPS, vectors / lengths.clamp_min(EPS), 0)


def _best_cosines(
    features: Composite, vectors: Float[Tensor, "sets places dim"], norms: Float[Tensor, " pixels"]
) -> Float[Tensor, "sets pixels"]:
    sets, targets = vectors.shape[:2]
    cosines = features.scores(vectors.flatten(0, 1)[None])[0].view(sets, targets, -1) / norms
    return cosines.amax(1).clamp(-1, 1)
