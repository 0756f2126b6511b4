"""K-means on composite features, without the matrix: Lloyd's iterations and a k-means++ start for a batch of images.

Several starts of several images run in one batch; each (image, start) stops on its own and is then left alone, so that
a result does not depend on what shares the batch. As in scikit-learn: greedy k-means++, ``tol`` relative to the mean
variance of the features, strict convergence first, an empty cluster takes the pixel farthest from its center.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from encoscope.defaults import RANDOM_STATE
from encoscope.nave.composite import Composite, Products
from encoscope.nave.condensed import condense


@dataclass(frozen=True)
class KMeansResult:
    """What k-means gives for a batch of images.

    Attributes:
        labels: ``[B, pixels]``, the cluster of each pixel, in 0..K-1.
        centroids: ``[B, K, dim]``, in composite space.
        inertia: ``[B]``, the sum of squared distances of the pixels to their centroids.
    """

    labels: Int[Tensor, "batch pixels"]
    centroids: Float[Tensor, "batch k dim"]
    inertia: Float[Tensor, " batch"]


def kmeans(
    features: Composite,
    n_clusters: int,
    *,
    n_init: int = 4,
    max_iter: int = 300,
    tol: float = 1e-4,
    relative: bool = True,
    random_state: int = RANDOM_STATE,
) -> KMeansResult:
    """Keep the best of several k-means++ starts for each image, by inertia (on a tie, the earlier start).

    Args:
        features: Composite features of a batch.
        n_clusters: K.
        n_init: Starts.
        max_iter: Iterations at most.
        tol: See `lloyd`.
        relative: See `lloyd`.
        random_state: The seed of the starts; the same for every image.

    Returns:
        Labels, centroids and inertia of each image.

    Source: NAVE, Algorithm 1, line 12.
    """
    start = kmeans_plusplus(features, n_clusters, n_init, random_state)
    return lloyd(features, start, max_iter=max_iter, tol=tol, relative=relative)


def kmeans_plusplus(
    features: Composite, n_clusters: int, n_init: int, random_state: int
) -> Float[Tensor, "batch n_init k dim"]:
    """Choose starts by greedy k-means++: each next center is the best of 2 + log K draws by squared distance.

    Every image draws from its own generator with the same seed, so its start does not depend on the batch.

    Args:
        features: Composite features of a batch.
        n_clusters: K.
        n_init: Starts.
        random_state: The seed.

    Returns:
        ``[B, n_init, K, dim]``, the centers.

    Source: Arthur and Vassilvitskii, 2007.
    """
    trials = 2 + int(math.log(n_clusters))
    draws = torch.as_tensor(
        np.random.default_rng(random_state).random((n_init, 1 + (n_clusters - 1) * trials)), device=features.device
    )
    norms = features.squared_norms
    pixels = features.pixels
    first = (draws[:, 0] * pixels).long().clamp_max(pixels - 1)
    chosen = first.expand(features.batch, n_init)  # [batch, n_init]
    closest = _squared_distances(features, norms, chosen)  # [batch, n_init, pixels]
    indices = [chosen]
    for k in range(1, n_clusters):
        targets = draws[:, 1 + (k - 1) * trials : 1 + k * trials]
        mass = closest.double().cumsum(2)
        candidates = torch.searchsorted(mass, (targets * mass[:, :, -1:]).contiguous()).clamp_max(pixels - 1)
        flat = candidates.flatten(1)
        distances = _squared_distances(features, norms, flat).unflatten(1, (n_init, trials))
        distances = torch.minimum(distances, closest.unsqueeze(2))
        best = distances.double().sum(3).argmin(2, keepdim=True)  # [batch, n_init, 1]
        closest = distances.gather(2, best.unsqueeze(3).expand(-1, -1, -1, pixels)).squeeze(2)
        indices.append(candidates.gather(2, best).squeeze(2))
    picked = torch.stack(indices, dim=2)  # [batch, n_init, k]
    return features.rows(picked.flatten(1)).unflatten(1, (n_init, n_clusters))


def _squared_distances(
    features: Composite, norms: Float[Tensor, "batch pixels"], index: Int[Tensor, "batch n"]
) -> Float[Tensor, "batch n pixels"]:
    """||u_p - u_index||^2 of every pixel to some chosen ones."""
    products = features.scores(features.rows(index))
    distances = norms.unsqueeze(1) - 2 * products + norms.gather(1, index).unsqueeze(2)
    return distances.clamp_min(0).scatter(2, index.unsqueeze(2), 0)


@dataclass
class _Runs:
    """Some starts of some images, in the middle of Lloyd's iterations.

    labels: of each pixel, by the nearest of the centers before the present ones. sums, counts: of the composite
    vectors of each label; sums are None where the present centers were made from something else.
    """

    centroids: Float[Tensor, "batch n k dim"]
    labels: Int[Tensor, "batch n pixels"]
    sums: Float[Tensor, "batch n k dim"] | None
    counts: Float[Tensor, "batch n k"]

    def select(self, images: Int[Tensor, "kept 1"], starts: Int[Tensor, "kept m"]) -> _Runs:
        sums = None if self.sums is None else self.sums[images, starts]
        return _Runs(self.centroids[images, starts], self.labels[images, starts], sums, self.counts[images, starts])


def lloyd(
    features: Composite,
    start: Float[Tensor, "batch n_init k dim"],
    *,
    max_iter: int = 300,
    tol: float = 1e-4,
    relative: bool = True,
) -> KMeansResult:
    """Run Lloyd's iterations from given centers, for every image and start; the start of lowest inertia is kept.

    Args:
        features: Composite features of a batch.
        start: ``[B, n_init, K, dim]``, the centers.
        max_iter: Iterations at most.
        tol: An (image, start) stops when its centers moved by less than ``tol`` times the features' mean variance
            (squared norm of the move); 0 waits until no pixel changes its cluster.
        relative: Whether ``tol`` is such a share; if not, it is the squared norm itself.

    Returns:
        Labels, centroids and inertia of each image.
    """
    with torch.inference_mode():
        best = _lloyd(features, start, max_iter, tol, relative)
    return KMeansResult(best.labels.clone(), best.centroids.clone(), best.inertia.clone())


def _lloyd(
    features: Composite, start: Float[Tensor, "batch n_init k dim"], max_iter: int, tol: float, relative: bool
) -> KMeansResult:
    batch, n_init = start.shape[:2]
    threshold = tol * (_total_variance(features) if relative else start.new_ones(batch)).unsqueeze(1)
    centroids = torch.empty_like(start)
    images = torch.arange(batch, device=features.device).unsqueeze(1)
    starts = torch.arange(n_init, device=features.device).expand(batch, -1)
    active = torch.ones(batch, n_init, dtype=torch.bool, device=features.device)
    part, runs = _first(features, start)
    for _ in range(max_iter - 1):
        old = runs.centroids
        changed = _step(part, runs)
        going = active & changed
        if tol > 0:
            going &= _squared_norms(part, runs.centroids - old).sum(2) > threshold
        if torch.equal(going, active):
            continue
        last = torch.where(changed[:, :, None, None], runs.centroids, old)
        image, run = (active & ~going).nonzero(as_tuple=True)
        centroids[images[image, 0], starts[image, run]] = _expanded(part, last)[image, run]
        active = going
        # Only what still runs is resumed: of each image as many starts as the busiest one has left.
        kept = active.any(1).nonzero()
        if len(kept) == 0:
            break
        order = active[kept[:, 0]].int().argsort(dim=1, descending=True, stable=True)[:, : int(active.sum(1).max())]
        part = part if len(kept) == part.batch else part.select(kept[:, 0])
        images, threshold = images[kept[:, 0]], threshold[kept[:, 0]]
        starts, active, runs = starts[kept, order], active[kept, order], runs.select(kept, order)
    image, run = active.nonzero(as_tuple=True)
    centroids[images[image, 0], starts[image, run]] = _expanded(part, runs.centroids)[image, run]
    labels, values = _assign(features, centroids)
    inertia = (features.squared_norms.unsqueeze(1) - 2 * values).double().sum(2).clamp_min(0)
    best = inertia.argmin(1)
    rows = torch.arange(batch, device=features.device)
    return KMeansResult(labels[rows, best], centroids[rows, best], inertia[rows, best])


def _total_variance(features: Composite) -> Float[Tensor, " batch"]:
    """scikit-learn's scale for ``tol``: the mean over dimensions of the variance over pixels."""
    norms = features.squared_norms
    mean = features.sums(norms.new_full((features.batch, 1, features.pixels), 1 / features.pixels)).squeeze(1)
    return (norms.mean(1) - mean.square().sum(1)).clamp_min(0) / features.dim


def _first(features: Composite, start: Float[Tensor, "batch n k _dim"]) -> tuple[Products, _Runs]:
    """The iteration from given centers, which may lie anywhere; and the products for those after it."""
    labels = _nearest(features, start)
    members, filled = _members(features, labels, start)
    counts = members.sum(3)
    # A cluster that stays empty keeps its given center, which no pixels add up to.
    part = features if bool((counts == 0).any()) else condense(features)
    sums = _sums(part, members)
    centroids = _means(sums, counts, start if part is features else None)
    return part, _Runs(centroids, labels, None if filled else sums, counts)


def _step(features: Products, runs: _Runs) -> Bool[Tensor, "batch n"]:
    """One iteration: pixels to their nearest center, centers to their pixels' mean. True where a pixel changed."""
    labels = _nearest(features, runs.centroids)
    changed = labels != runs.labels
    sums, counts = (None, runs.counts) if runs.sums is None else _follow(features, runs, runs.sums, labels, changed)
    filled, otherwise = False, None
    if sums is None or bool((counts == 0).any()):
        members, filled = _members(features, labels, runs.centroids)
        sums, counts, otherwise = _sums(features, members), members.sum(3), runs.centroids
    runs.centroids = _means(sums, counts, otherwise)
    runs.labels, runs.sums, runs.counts = labels, None if filled else sums, counts
    return changed.any(2)


def _nearest(features: Products, centroids: Float[Tensor, "batch n k dim"]) -> Int[Tensor, "batch n pixels"]:
    """The nearest center of every pixel: by how much each is nearer than the first, which takes one product less."""
    first, others = centroids.split([1, centroids.shape[2] - 1], dim=2)
    if others.shape[2] == 0:
        return torch.zeros(*centroids.shape[:2], features.pixels, dtype=torch.long, device=features.device)
    norms = _squared_norms(features, centroids)
    nearer = features.scores((others - first).flatten(1, 2)).unflatten(1, others.shape[1:3])
    nearer -= (norms[:, :, 1:] - norms[:, :, :1]).unsqueeze(3) / 2
    best = nearer.max(dim=2)
    return torch.where(best.values > 0, best.indices + 1, 0)


def _assign(
    features: Products, centroids: Float[Tensor, "batch n k dim"]
) -> tuple[Int[Tensor, "batch n pixels"], Float[Tensor, "batch n pixels"]]:
    """The nearest center of every pixel, and u . mu - ||mu||^2 / 2 there: the larger, the nearer."""
    values = features.scores(centroids.flatten(1, 2)).unflatten(1, centroids.shape[1:3])
    values -= _squared_norms(features, centroids).unsqueeze(3) / 2
    best = values.max(dim=2)
    return best.indices, best.values


def _squared_norms(features: Products, vectors: Float[Tensor, "batch n k dim"]) -> Float[Tensor, "batch n k"]:
    return features.norms(vectors.flatten(1, 2)).unflatten(1, vectors.shape[1:3])


def _expanded(features: Products, vectors: Float[Tensor, "batch n k dim"]) -> Float[Tensor, "batch n k _dim"]:
    return features.expand(vectors.flatten(1, 2)).unflatten(1, vectors.shape[1:3])


def _sums(features: Products, members: Float[Tensor, "batch n k pixels"]) -> Float[Tensor, "batch n k dim"]:
    return features.sums(members.flatten(1, 2)).unflatten(1, members.shape[1:3]).double()


def _means(
    sums: Float[Tensor, "batch n k dim"],
    counts: Float[Tensor, "batch n k"],
    otherwise: Float[Tensor, "batch n k dim"] | None,
) -> Float[Tensor, "batch n k dim"]:
    """Sums over counts; where there are none, another center."""
    means = (sums / counts.clamp_min(1).unsqueeze(3)).to(counts.dtype)
    return means if otherwise is None else torch.where(counts.unsqueeze(3) > 0, means, otherwise)


def _members(
    features: Products, labels: Int[Tensor, "batch n pixels"], centroids: Float[Tensor, "batch n k dim"]
) -> tuple[Float[Tensor, "batch n k pixels"], bool]:
    """1 where a pixel is in a cluster, 0 elsewhere; and whether far pixels had to be moved into empty clusters."""
    members = _one_hot(labels, centroids.shape[2], features.dtype)
    counts = members.sum(3)
    empty = bool((counts == 0).any())
    if empty:
        _, values = _assign(features, centroids)
        _fill_empty(members, counts, features.squared_norms.unsqueeze(1) - 2 * values)
    return members, empty


def _one_hot(labels: Int[Tensor, "batch n pixels"], k: int, dtype: torch.dtype) -> Float[Tensor, "batch n k pixels"]:
    return (labels.unsqueeze(2) == torch.arange(k, device=labels.device).unsqueeze(1)).to(dtype)


def _follow(
    features: Products,
    runs: _Runs,
    sums: Float[Tensor, "batch n k dim"],
    labels: Int[Tensor, "batch n pixels"],
    changed: Bool[Tensor, "batch n pixels"],
) -> tuple[Float[Tensor, "batch n k dim"] | None, Float[Tensor, "batch n k"]]:
    """Sums and counts from those before, by the pixels that changed their cluster; no sums if those are many.

    After a few iterations it is one pixel in a hundred. Sums are kept in float64, so that adding and taking away again
    leaves nothing behind.
    """
    touched = changed.any(1)
    if features.batch == 1:
        index = touched.nonzero()[:, 1].unsqueeze(0)
    else:  # pixels that did not change fill up the rows of images where fewer did, and add nothing
        index = touched.byte().topk(int(touched.sum(1).max()), dim=1).indices
    if index.shape[1] == 0:
        return sums, runs.counts
    if 4 * index.shape[1] > features.pixels:
        return None, runs.counts
    each = index.unsqueeze(1).expand(-1, sums.shape[1], -1)
    identity = torch.eye(sums.shape[2], dtype=features.dtype, device=features.device)
    change = (identity[labels.gather(2, each)] - identity[runs.labels.gather(2, each)]).mT
    added = features.sums(change.flatten(1, 2), index).unflatten(1, sums.shape[1:3])
    return sums + added, runs.counts + change.sum(3)


def _fill_empty(
    members: Float[Tensor, "batch n k pixels"],
    counts: Float[Tensor, "batch n k"],
    distances: Float[Tensor, "batch n pixels"],
) -> None:
    """Move the farthest pixels, one each, into empty clusters; those that lie on their center stay."""
    for image, start in (counts == 0).any(2).nonzero().tolist():
        empty = (counts[image, start] == 0).nonzero().squeeze(1)
        far = distances[image, start].topk(min(len(empty), distances.shape[2]))
        for cluster, pixel, distance in zip(empty, far.indices, far.values, strict=False):
            if distance > 0:
                members[image, start, :, pixel] = 0
                members[image, start, cluster, pixel] = 1
