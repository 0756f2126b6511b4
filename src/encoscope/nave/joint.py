"""K-means over the pixels of many images (NAVE, section 3, "a set of images"): streamed, exact, constant memory.

An iteration needs of each image only what it adds to K sums of composite vectors, K counts and the inertia. Sums of
several workers add up to what one would have found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.nave.composite import Composite
from encoscope.store.passes import Shard, run_pass

FeatureSource: TypeAlias = Callable[[Shard], Iterable[tuple[Composite, list[str]]]]
"""One pass over a shard of the images: their composite features in batches, with the images' ids."""


class LloydSums:
    """One of Lloyd's iterations over a stream: ``partial_fit`` each batch, ``merge`` other workers, ``finalize``.

    Args:
        centroids: ``[K, dim]``, those that pixels are assigned to in this iteration.
    """

    def __init__(self, centroids: Float[Tensor, "k dim"]) -> None:
        self.centroids = centroids.double().cpu()
        self.sums = torch.zeros_like(self.centroids)
        self.counts = torch.zeros(len(centroids), dtype=torch.float64)
        self.inertia = 0.0
        self.squared_norms = 0.0

    def partial_fit(self, features: Composite, ids: Sequence[str] = ()) -> LloydSums:
        """Add the pixels of a batch of images.

        Args:
            features: Their composite features.
            ids: Not used: sums do not depend on the images' names.

        Returns:
            Itself.
        """
        centroids = self.centroids.to(features.device, features.dtype)
        values = features.scores(centroids.expand(features.batch, -1, -1))
        values -= centroids.square().sum(1)[:, None] / 2
        best = values.max(dim=1)
        members = torch.zeros_like(values).scatter_(1, best.indices.unsqueeze(1), 1)
        self.sums += features.sums(members).double().sum(0).cpu()
        self.counts += members.double().sum((0, 2)).cpu()
        norms = features.squared_norms.double()
        self.squared_norms += norms.sum().item()
        self.inertia += (norms - 2 * best.values.double()).clamp_min(0).sum().item()
        return self

    def merge(self, other: LloydSums) -> LloydSums:
        """Add another worker's sums over other images.

        Args:
            other: Sums for the same centroids.

        Returns:
            Itself.

        Raises:
            ValueError: For sums of other centroids.
        """
        if not torch.equal(self.centroids, other.centroids):
            raise ValueError("these sums belong to other centroids")
        self.sums += other.sums
        self.counts += other.counts
        self.inertia += other.inertia
        self.squared_norms += other.squared_norms
        return self

    def finalize(self) -> Float[Tensor, "k dim"]:
        """Give the mean composite vector of each cluster; a cluster without pixels keeps its center."""
        means = self.sums / self.counts.clamp_min(1).unsqueeze(1)
        return torch.where(self.counts.unsqueeze(1) > 0, means, self.centroids)

    @property
    def variance(self) -> float:
        """The mean over dimensions of the variance over pixels, scikit-learn's scale for ``tol``."""
        pixels = self.counts.sum().clamp_min(1)
        mean = self.sums.sum(0) / pixels
        return max(0.0, float(self.squared_norms / pixels - mean.square().sum())) / self.sums.shape[1]


@dataclass(frozen=True)
class JointState:
    """The state of a joint fit.

    Attributes:
        centroids: ``[K, dim]``, what pixels are assigned to next.
        counts: ``[K]``, the pixels of each cluster in the last pass.
        inertia: The sum of squared distances in the last pass.
        iteration: Passes so far.
        converged: Whether the centers have stopped moving.
    """

    centroids: Float[Tensor, "k dim"]
    counts: Float[Tensor, " k"]
    inertia: float
    iteration: int
    converged: bool

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays, to keep in a store."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def initial(cls, centroids: Float[Tensor, "k dim"]) -> JointState:
        """Make the state before the first pass.

        Args:
            centroids: ``[K, dim]``, what pixels are assigned to in the first pass.

        Returns:
            The state.
        """
        return cls(centroids.double(), torch.zeros(len(centroids), dtype=torch.float64), float("inf"), 0, False)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> JointState:
        """Read what ``arrays`` gave.

        Args:
            arrays: The state as arrays.

        Returns:
            The state.
        """
        centroids, counts = (torch.from_numpy(arrays[name]) for name in ("centroids", "counts"))
        return cls(centroids, counts, float(arrays["inertia"]), int(arrays["iteration"]), bool(arrays["converged"]))


def lloyd_passes(source: FeatureSource, state: JointState, *, max_iter: int, tol: float) -> Iterator[JointState]:
    """Run Lloyd's iterations, each of them one pass over the images.

    Args:
        source: Gives the composite features of a shard of the images.
        state: Where to begin: ``JointState.initial``, or the state at which a fit was interrupted.
        max_iter: Passes at most.
        tol: Stop when the centers move by no more than this share of the features' mean variance (squared norm of the
            move).

    Yields:
        The state after every pass. The last one holds the centroids that its counts and inertia were measured with.
    """
    while not state.converged and state.iteration < max_iter:
        sums = run_pass(source, LloydSums(state.centroids))
        moved = sums.finalize()
        iteration = state.iteration + 1
        still = float((moved - state.centroids).square().sum()) <= tol * sums.variance
        last = still or iteration == max_iter
        state = JointState(state.centroids if last else moved, sums.counts, sums.inertia, iteration, still)
        yield state
