"""K-means on composite features, without the matrix: Lloyd's iterations and a k-means++ start for a batch of images.

Several starts of several images run in one batch; each (image, start) stops on its own and is then left alone, so that
a result does not depend on what shares the batch. As in scikit-learn: greedy k-means++, ``tol`` relative to the mean
variance of the features, strict convergence first, an empty cluster takes the pixel farthest from its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope.nave.composite import Composite


@dataclass(frozen=True)
class KMeansResult:
    """labels: of each pixel, in 0..K-1. centroids: in composite space. inertia: sum of squared distances to them."""

    labels: Int[Tensor, "batch pixels"]
    centroids: Float[Tensor, "batch k dim"]
    inertia: Float[Tensor, " batch"]


def kmeans(
    features: Composite, n_clusters: int, *, n_init: int = 4, max_iter: int = 300, tol: float = 1e-4, seed: int = 0
) -> KMeansResult:
    """The best of ``n_init`` k-means++ starts for each image, by inertia (ties: the earlier start)."""
    start = plus_plus(features, n_clusters, n_init, seed)
    return lloyd(features, start, max_iter=max_iter, tol=tol)


def plus_plus(features: Composite, n_clusters: int, n_init: int, seed: int) -> Float[Tensor, "batch n_init k dim"]:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): each next centre is the best of 2 + log K draws by D^2.

    Every image draws from its own generator with the same seed, so its start does not depend on the batch.
    """
    trials = 2 + int(math.log(n_clusters))
    draws = torch.as_tensor(
        np.random.default_rng(seed).random((n_init, 1 + (n_clusters - 1) * trials)), device=features.device
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


def lloyd(
    features: Composite, start: Float[Tensor, "batch n_init k dim"], *, max_iter: int = 300, tol: float = 1e-4
) -> KMeansResult:
    """Lloyd's iterations from given centres, for every image and start; the start of lowest inertia is kept.

    tol: an (image, start) stops when its centres moved by less than ``tol`` times the features' mean variance
    (squared norm of the move); 0 waits until no pixel changes its cluster.
    """
    batch, n_init = start.shape[:2]
    norms = features.squared_norms
    threshold = tol * _total_variance(features, norms)
    centroids = start.clone()
    labels = torch.full((batch, n_init, features.pixels), -1, device=features.device)
    active = torch.ones(batch, n_init, dtype=torch.bool, device=features.device)
    for _ in range(max_iter):
        images = active.any(1).nonzero()  # [images, 1]
        if len(images) == 0:
            break
        # Only what still runs is computed: of each image as many starts as the busiest one has left.
        starts = active[images[:, 0]].int().argsort(dim=1, descending=True, stable=True)
        starts = starts[:, : int(active.sum(1).max())]
        part = features if len(images) == batch else features.select(images[:, 0])
        old, was = centroids[images, starts], labels[images, starts]
        new_labels, values = _assign(part, old)
        running = active[images, starts] & (new_labels != was).any(2)
        new = _update(part, new_labels, values, norms[images[:, 0]], old)
        moved = (new - old).square().sum((2, 3))
        labels[images, starts] = torch.where(running.unsqueeze(2), new_labels, was)
        centroids[images, starts] = torch.where(running[:, :, None, None], new, old)
        active[images, starts] = running & (moved > threshold[images])
    labels, values = _assign(features, centroids)
    inertia = (norms.unsqueeze(1) - 2 * values).double().sum(2).clamp_min(0)
    best = inertia.argmin(1)
    rows = torch.arange(batch, device=features.device)
    return KMeansResult(labels[rows, best], centroids[rows, best], inertia[rows, best])


def _total_variance(features: Composite, norms: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
    """scikit-learn's scale for ``tol``: the mean over dimensions of the variance over pixels."""
    even = torch.full((features.batch, 1, features.pixels), 1 / features.pixels, dtype=norms.dtype, device=norms.device)
    mean = features.sums(even).squeeze(1)
    return (norms.mean(1) - mean.square().sum(1)).clamp_min(0) / features.dim


def _assign(
    features: Composite, centroids: Float[Tensor, "batch n k dim"]
) -> tuple[Int[Tensor, "batch n pixels"], Float[Tensor, "batch n pixels"]]:
    """The nearest centre of every pixel, and u . mu - ||mu||^2 / 2 there: the larger, the nearer."""
    n, k = centroids.shape[1:3]
    values = features.scores(centroids.flatten(1, 2)).unflatten(1, (n, k))
    values -= centroids.square().sum(3, keepdim=True) / 2
    best = values.max(dim=2)
    return best.indices, best.values


def _update(
    features: Composite,
    labels: Int[Tensor, "batch n pixels"],
    values: Float[Tensor, "batch n pixels"],
    norms: Float[Tensor, "batch pixels"],
    old: Float[Tensor, "batch n k dim"],
) -> Float[Tensor, "batch n k dim"]:
    """The mean composite vector of each cluster; an empty one takes a far pixel (see ``_fill_empty``)."""
    n, k = old.shape[1:3]
    members = torch.zeros(*labels.shape[:2], k, labels.shape[2], dtype=features.dtype, device=features.device)
    members.scatter_(2, labels.unsqueeze(2), 1)
    counts = members.sum(3)
    if bool((counts == 0).any()):
        _fill_empty(members, counts, norms.unsqueeze(1) - 2 * values)
        counts = members.sum(3)
    sums = features.sums(members.flatten(1, 2)).unflatten(1, (n, k))
    return torch.where(counts.unsqueeze(3) > 0, sums / counts.clamp_min(1).unsqueeze(3), old)


def _fill_empty(
    members: Float[Tensor, "batch n k pixels"],
    counts: Float[Tensor, "batch n k"],
    distances: Float[Tensor, "batch n pixels"],
) -> None:
    """Move the farthest pixels, one each, into empty clusters; those that lie on their centre stay."""
    for image, start in (counts == 0).any(2).nonzero().tolist():
        empty = (counts[image, start] == 0).nonzero().squeeze(1)
        far = distances[image, start].topk(min(len(empty), distances.shape[2]))
        for cluster, pixel, distance in zip(empty, far.indices, far.values, strict=False):
            if distance > 0:
                members[image, start, :, pixel] = 0
                members[image, start, cluster, pixel] = 1
