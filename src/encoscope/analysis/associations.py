"""Which joint clusters and which features go with labels or other metadata more than shuffled labels do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from encoscope.analysis.audit_store import AuditStore
from encoscope.analysis.joint_clusters import fit_joint_clusters, observe_images, predict_labels
from encoscope.analysis.settings import AuditSettings
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage
from encoscope.nave import Nave
from encoscope.plots import draw_contact_sheet, to_rgb
from encoscope.progress import Progress


@dataclass(frozen=True)
class Association:
    """How a cluster or a feature goes with labels.

    Attributes:
        kind: "cluster" or "feature".
        index: Its number.
        eta_squared: The share of its variance that lies between labels, 0 to 1.
        p: Share of permutations of the labels in which the strongest of all clusters (or features) is as strong as this
            one, so that one may look at as many as there are.
        highest: The label for which it is highest.
    """

    kind: str
    index: int
    eta_squared: float
    p: float
    highest: str


class Ranking(NamedTuple):
    """What goes with labels.

    Attributes:
        associations: The strongest first.
        nave: The fitted clusters.
        shares: ``[images, clusters]``, the share of each image that each cluster covers.
    """

    associations: list[Association]
    nave: Nave
    shares: Float[np.ndarray, "images clusters"]


def rank_associations(
    encoder: Encoder,
    images: Sequence[LoadedImage],
    labels: Sequence[str],
    *,
    n_clusters: int = AuditSettings.n_clusters,
    random_state: int = AuditSettings.random_state,
    permutations: int = AuditSettings.permutations,
    progress: Progress = None,
    kept: AuditStore | None = None,
) -> Ranking:
    """Rank joint clusters (by the share of each image that they cover) and pooled features by how they go with labels.

    Args:
        encoder: The network.
        images: The images.
        labels: Of the images, in their order; at least two different ones.
        n_clusters: Joint clusters.
        random_state: The seed of clusters and permutations.
        permutations: Of the labels, for p-values.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        kept: Where values are kept while it runs, so that it can be resumed; by default a temporary folder.

    Returns:
        The associations, with the clusters and what they cover.

    Raises:
        UsageError: fewer than two different labels.
    """
    if len(set(labels)) < 2:
        raise UsageError(f"association needs at least two different labels, not {len(set(labels))}")
    nave = fit_joint_clusters(encoder, images, n_clusters, random_state, progress=progress)
    with ExitStack() as stack:
        kept = kept if kept is not None else stack.enter_context(AuditStore())
        step = {"n_clusters": n_clusters, "seed": random_state}
        seen = kept.measure(
            step, images, partial(_observe_block, encoder, nave, images, n_clusters), "images", progress
        )
    shares = seen["counts"] / seen["counts"].sum(1, keepdims=True)
    features = seen["features"].astype(np.float64)
    names = sorted(set(labels))
    codes = np.array([names.index(label) for label in labels])
    associations = []
    for kind, values in (("cluster", shares), ("feature", features)):
        eta, p = compute_eta_squared(values, codes, permutations, random_state)
        means = np.stack([values[codes == code].mean(0) for code in range(len(names))])
        associations += [
            Association(kind, index, float(eta[index]), float(p[index]), names[int(means[:, index].argmax())])
            for index in range(values.shape[1])
        ]
    ranked = sorted(associations, key=lambda item: (item.p, -item.eta_squared, item.kind, item.index))
    return Ranking(ranked, nave, shares)


def _observe_block(
    encoder: Encoder, nave: Nave, images: Sequence[LoadedImage], n_clusters: int, block: range
) -> dict[str, np.ndarray]:
    """Of each image the pixels of each cluster, and the pooled features."""
    group = [images[index] for index in block]
    counts = [np.bincount(predict_labels(nave, image).ravel(), minlength=n_clusters) for image in group]
    features, _ = observe_images(encoder, group, progress=False)
    return {"counts": np.stack(counts), "features": features.numpy()}


def compute_eta_squared(
    values: Float[np.ndarray, "images columns"], codes: Int[np.ndarray, " images"], permutations: int, random_state: int
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Compute eta squared of each column, and its p-value against the largest of all columns under permuted labels.

    The p-value is (1 + how often) / (1 + permutations). It bounds the chance of any false alarm, however many columns
    there are and however they depend on each other.

    Args:
        values: ``[images, columns]``
        codes: ``[images]``, the number of each image's label, from 0 without gaps.
        permutations: How many.
        random_state: The seed.

    Returns:
        (eta squared, p), ``[columns]`` each.

    Source: Westfall and Young 1993, Resampling-Based Multiple Testing (single-step maxT).
    """
    one_hot = np.eye(codes.max() + 1)[codes]
    counts = one_hot.sum(0)
    centered = values - values.mean(0)
    total = np.square(centered).sum(0)
    varies = total > 1e-12 * max(float(total.max(initial=0)), 1e-300)

    def eta(rows: np.ndarray) -> np.ndarray:
        between = (np.square(one_hot[rows].T @ centered) / counts[:, None]).sum(0)
        return np.where(varies, between / np.where(varies, total, 1), 0)

    rng = np.random.default_rng(random_state)
    observed = eta(np.arange(len(codes)))
    strongest = np.array([eta(rng.permutation(len(codes))).max() for _ in range(permutations)])
    above = (strongest[:, None] >= observed[None]).sum(0)
    return observed, (1 + above) / (1 + permutations)


def draw_association_sheet(
    ranking: Ranking, images: Sequence[LoadedImage], labels: Sequence[str], *, columns: int = 5
) -> Image.Image:
    """Draw the three clusters that go with the labels most, each on the images that it covers most; the rest is dimmed.

    Args:
        ranking: What ``rank_associations`` gave.
        images: The images.
        labels: Theirs.
        columns: Images for each cluster.

    Returns:
        The sheet.
    """
    cells, captions = [], []
    for item in [item for item in ranking.associations if item.kind == "cluster"][:3]:
        for index in np.argsort(ranking.shares[:, item.index], kind="stable")[::-1][:columns].tolist():
            image = images[index]
            pixels, inside = to_rgb(image), (predict_labels(ranking.nave, image) == item.index)[:, :, None]
            cells.append(np.where(inside, pixels, pixels // 4))
            captions.append(f"cluster {item.index}, p = {item.p:.3f}: {labels[index]}")
    return Image.fromarray(draw_contact_sheet(cells, captions, columns=columns))
