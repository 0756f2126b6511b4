"""Labels for units that FALCON finds no concept for: CLIP-Dissect's soft weighted pointwise mutual information.

A concept t suits a unit k when the images that activate the unit most show it: log p(t | B_k) - lambda log p(t). B_k is
a soft set: the image of rank r belongs to it with a probability that falls from .998 to .97, and
p(t | B_k) = prod over ranks of 1 + p(x_r in B_k) (p(t | x_r) - 1), p(t | x) = softmax over concepts of a cos(x, t).
(Oikarinen and Weng, ICLR 2023, arXiv 2204.10965, section 3.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.falcon.case import DescriptionCase, list_spaces
from encoscope.falcon.concept_scores import rank_terms
from encoscope.falcon.context import POOL, DescriptionContext
from encoscope.falcon.selection import DescriptionOutcome
from encoscope.falcon.spaces import Space
from encoscope.units import Unit

FIRST, LAST = 0.998, 0.97
"""The probability that the image of the first and of the last rank belongs to what the unit stands for."""

_EPSILON = 1e-7  # added to a probability before its logarithm


def compute_soft_wpmi(
    similarity: np.ndarray,
    activations: np.ndarray,
    top_k: int = 100,
    a: float = 10.0,
    *,
    strength: float = 1.0,
    background: Float[np.ndarray, " concepts"] | None = None,
) -> Float[np.ndarray, " concepts"] | Float[np.ndarray, "units concepts"]:
    """Compute how well each concept describes a unit, or each of several.

    Args:
        similarity: ``[images, concepts]``, cosines.
        activations: ``[images]`` of one unit, or ``[images, units]``.
        top_k: The strongest images that count, all if there are fewer; equal ones count in their order.
        a: The factor of the cosines in the softmax over concepts.
        strength: Lambda, how much a concept loses for suiting every unit.
        background: log p(t) of each concept. In the paper it is the mean of p(t | B_k) over the layer's units: give all
            of them at once, or what `compute_background` gives. None for a single unit takes images at random instead.

    Returns:
        ``[concepts]``, or ``[units, concepts]`` for several units. Higher is better; comparable within a unit.

    Raises:
        UsageError: For different numbers of images, or none.

    Source: CLIP-Dissect (Oikarinen and Weng, ICLR 2023), section 3.
    """
    values = activations[:, None] if activations.ndim == 1 else activations
    shown = _log_likelihood(similarity, values, top_k, a)
    if background is not None:
        common = torch.as_tensor(background, dtype=torch.float32)
    elif len(shown) > 1:
        common = _mean(shown)
    else:
        common = _by_chance(_concepts(similarity, a), min(top_k, len(similarity)))
    scores = (shown - strength * common).numpy()
    return scores[0] if activations.ndim == 1 else scores


def compute_background(
    similarity: Float[np.ndarray, "images concepts"],
    activations: Float[np.ndarray, "images units"],
    top_k: int = 100,
    a: float = 10.0,
) -> Float[np.ndarray, " concepts"]:
    """Compute log p(t) of each concept, from the mean over units of p(t | B_k).

    Args:
        similarity: Cosines.
        activations: Of all units of a layer.
        top_k: The strongest images that count.
        a: The factor of the cosines in the softmax over concepts.

    Returns:
        A logarithm for each concept.
    """
    return _mean(_log_likelihood(similarity, activations, top_k, a)).numpy()


def _log_likelihood(similarity: np.ndarray, activations: np.ndarray, top_k: int, a: float) -> Tensor:
    """log p(t | B_k), [units, concepts], one rank at a time: no array is larger than the result."""
    if len(similarity) != len(activations) or not len(similarity):
        raise UsageError(f"similarities of {len(similarity)} images do not fit activations of {len(activations)}")
    if top_k < 1:
        raise UsageError(f"the best {top_k} images describe nothing: take 1 or more")
    concepts = _concepts(similarity, a)
    ranks = torch.as_tensor(activations).sort(dim=0, descending=True, stable=True).indices[:top_k]
    total = torch.zeros(activations.shape[1], similarity.shape[1])
    for images, belongs in zip(ranks, _belonging(len(ranks)), strict=True):
        total += (concepts[images] - 1).mul_(belongs).add_(1 + _EPSILON).log_()
    return total


def _concepts(similarity: np.ndarray, a: float) -> Tensor:
    """p(t | x): the softmax over concepts."""
    return torch.softmax(a * torch.as_tensor(similarity, dtype=torch.float32), dim=1)


def _belonging(count: int) -> Tensor:
    """p(x in B_k) of each rank."""
    return FIRST - torch.arange(count) / count * (FIRST - LAST)


def _mean(shown: Tensor) -> Tensor:
    return torch.logsumexp(shown.double(), dim=0).sub(np.log(len(shown))).float()


def _by_chance(concepts: Tensor, count: int) -> Tensor:
    """log p(t | B) where every image is equally likely at every rank."""
    total = torch.zeros(concepts.shape[1])
    for belongs in _belonging(count):
        total += (concepts - 1).mul_(belongs).add_(1 + _EPSILON).log_().mean(dim=0)
    return total


_STRONGEST = 100  # images that soft-WPMI looks at


def label_unexplained(
    cases: Sequence[DescriptionCase], context: DescriptionContext, vocabulary: Sequence[str], pool: Sequence[str]
) -> None:
    """Label the cases that have no concept by soft-WPMI, and fill in their ``concepts`` and ``dissected``.

    Args:
        cases: The cases. A unit that never activates gets no label whatever the method.
        context: What the run shares.
        vocabulary: The words of all captions that are near to any of the crops.
        pool: The ids of images that stand for the whole probe.
    """
    unexplained = [
        case for case in cases if not case.concepts and case.selection.outcome is not DescriptionOutcome.NEVER_ACTIVATES
    ]
    if not unexplained or not vocabulary:
        return
    labels = label_by_dissection([case.unit for case in unexplained], list_spaces(cases), context, vocabulary, pool)
    for case in unexplained:
        case.concepts = labels.get(case.unit, {})
        case.dissected = bool(case.concepts)


def label_by_dissection(
    units: Sequence[Unit],
    spaces: Mapping[str, Space],
    context: DescriptionContext,
    vocabulary: Sequence[str],
    pool: Sequence[str] = (),
) -> dict[Unit, dict[str, float]]:
    """Find CLIP-Dissect's best concepts for each unit, by soft-WPMI over whole images of the probe.

    Args:
        units: The units.
        spaces: Their spaces by name.
        context: What the run shares.
        vocabulary: The words to choose from.
        pool: The ids of images that stand for the whole probe beside each unit's strongest hundred; by default the
            first thousand by id.

    Returns:
        The best ``n_concepts`` words of each unit with their scores, best first.

    Source: CLIP-Dissect (Oikarinen and Weng, ICLR 2023), section 3.
    """
    words = list(dict.fromkeys(vocabulary))
    texts = context.texts(words)
    labels: dict[Unit, dict[str, float]] = {}
    for name, space in spaces.items():
        images = space.fit
        index = {image: row for row, image in enumerate(images.ids)}
        common = np.array([index[image] for image in (pool or sorted(index)[:POOL]) if image in index], np.int64)
        values = {unit: unit.activation(images.h, normalized=True) for unit in units if unit.space == name}
        if not values:
            continue
        rows = {
            unit: np.union1d(common, np.argsort(-value, kind="stable")[:_STRONGEST]) for unit, value in values.items()
        }
        needed = np.unique(np.concatenate([common, *rows.values()]))
        ids = [images.ids[row] for row in needed]
        paths = dict(zip(images.ids, images.paths, strict=True))
        context.embedder.embed(images=ids, paths=paths, batch_size=context.batch_size)
        similarity = np.zeros((len(images.ids), len(words)), np.float32)
        similarity[needed] = context.embedder.get_image_vectors(ids) @ texts.T
        # of all the space's channels on the common images, so that a unit's label depends on no other described unit
        background = compute_background(similarity[common], images.h[common])
        for unit, value in values.items():
            chosen = rows[unit]
            scores = compute_soft_wpmi(similarity[chosen], value[chosen], background=background)
            scored = dict(zip(words, np.asarray(scores, dtype=np.float64).tolist(), strict=True))
            labels[unit] = rank_terms(scored, context.settings.n_concepts)
    return labels
