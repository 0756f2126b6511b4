"""Labels for features that FALCON finds nothing for: CLIP-Dissect's soft weighted pointwise mutual information.

A concept t suits a unit k when the images that drive the unit show it: log p(t | B_k) - lambda log p(t). B_k is a soft
set: the image of rank r belongs to it with a probability that falls from .998 to .97, and
p(t | B_k) = prod over ranks of 1 + p(x_r in B_k) (p(t | x_r) - 1), p(t | x) = softmax over concepts of a cos(x, t).
(Oikarinen and Weng, ICLR 2023, arXiv 2204.10965, section 3.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.falcon.concept_scores import rank_terms
from encoscope.falcon.context import POOL, DescriptionContext, to_concepts
from encoscope.falcon.description import Concept, Description
from encoscope.falcon.spaces import Space
from encoscope.units import Unit

FIRST, LAST = 0.998, 0.97
"""The probability that the image of the first and of the last rank belongs to what the unit stands for."""

_LEAST = 1e-7  # added to a probability before its logarithm


def compute_soft_wpmi(
    similarity: np.ndarray,
    activations: np.ndarray,
    top_k: int = 100,
    a: float = 10.0,
    *,
    strength: float = 1.0,
    background: Float[np.ndarray, " concepts"] | None = None,
) -> Float[np.ndarray, " concepts"] | Float[np.ndarray, "units concepts"]:
    """How well each concept describes a unit, or each of several; higher is better, comparable within a unit.

    similarity: cosines, [images, concepts]. activations: [images] of one unit, or [images, units].
    top_k: images that count, all if there are fewer; images of equal activation come in their order. a: the softmax's.
    strength: lambda, how much a concept pays for suiting everything.
    background: log p(t) of each concept. Published is the mean of p(t | B_k) over the layer's units: give all of them
        at once, or what `background` makes of them. A unit on its own has images drawn at random instead.

    Raises:
        UsageError: numbers of images that differ, or none.
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
    """log p(t) of each concept: of the mean over units of p(t | B_k)."""
    return _mean(_log_likelihood(similarity, activations, top_k, a)).numpy()


def _log_likelihood(similarity: np.ndarray, activations: np.ndarray, top_k: int, a: float) -> Tensor:
    """log p(t | B_k), [units, concepts]: a rank at a time, so that no more than the result is held."""
    if len(similarity) != len(activations) or not len(similarity):
        raise UsageError(f"similarities of {len(similarity)} images do not fit activations of {len(activations)}")
    if top_k < 1:
        raise UsageError(f"the best {top_k} images describe nothing: take 1 or more")
    concepts = _concepts(similarity, a)
    ranks = torch.as_tensor(activations).sort(dim=0, descending=True, stable=True).indices[:top_k]
    total = torch.zeros(activations.shape[1], similarity.shape[1])
    for images, belongs in zip(ranks, _belonging(len(ranks)), strict=True):
        total += (concepts[images] - 1).mul_(belongs).add_(1 + _LEAST).log_()
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
        total += (concepts - 1).mul_(belongs).add_(1 + _LEAST).log_().mean(dim=0)
    return total


NOTHING = "every word of its captions is shared with the counterfactuals"
_STRONGEST = 100  # images that soft-WPMI looks at


def label_unexplained(
    units: Sequence[Unit],
    found: Sequence[Description],
    spaces: Mapping[str, Space],
    tools: DescriptionContext,
    vocabulary: Sequence[str],
    pool: Sequence[str],
) -> list[Description]:
    """Soft-WPMI for the units that have no concept; one that never fires has none whatever the method."""
    empty = [place for place, item in enumerate(found) if not item.concepts]
    todo = [place for place in empty if "never fires" not in found[place].note]
    labels = (
        label_by_dissection([units[place] for place in todo], spaces, tools, vocabulary, pool)
        if todo and vocabulary
        else {}
    )
    result = list(found)
    for place in empty:
        concepts = labels.get(units[place], ())
        note = found[place].note or NOTHING
        result[place] = replace(found[place], concepts=concepts, method="dissect" if concepts else "none", note=note)
    return result


def label_by_dissection(
    units: Sequence[Unit],
    spaces: Mapping[str, Space],
    tools: DescriptionContext,
    vocabulary: Sequence[str],
    pool: Sequence[str] = (),
) -> dict[Unit, tuple[Concept, ...]]:
    """CLIP-Dissect's best concepts for each unit, of a vocabulary, by soft-WPMI over whole images of the probe.

    pool: images that stand for the probe beside each unit's strongest hundred; the first thousand by id by default.
    """
    words = list(dict.fromkeys(vocabulary))
    texts = tools.texts(words)
    found: dict[Unit, tuple[Concept, ...]] = {}
    for name, space in spaces.items():
        made = space.fit
        place = {image: row for row, image in enumerate(made.ids)}
        common = np.array([place[image] for image in (pool or sorted(place)[:POOL]) if image in place], np.int64)
        mine = {unit: unit.activation(made.h, normalized=True) for unit in units if unit.space == name}
        if not mine:
            continue
        rows = {
            unit: np.union1d(common, np.argsort(-value, kind="stable")[:_STRONGEST]) for unit, value in mine.items()
        }
        every = np.unique(np.concatenate([common, *rows.values()]))
        paths = dict(zip(made.ids, made.paths, strict=True))
        tools.embedder.embed(images=[made.ids[row] for row in every], paths=paths)
        vectors = tools.embedder.get_image_vectors([made.ids[row] for row in every])
        similarity = np.zeros((len(made.ids), len(words)), np.float32)
        similarity[every] = vectors @ texts.T
        # of all the space's channels on the common images, so that a unit's label depends on no other unit asked for
        usual = compute_background(similarity[common], made.h[common])
        for unit, value in mine.items():
            chosen = rows[unit]
            scores = np.asarray(
                compute_soft_wpmi(similarity[chosen], value[chosen], background=usual), dtype=np.float64
            )
            best = dict(zip(words, scores.tolist(), strict=True))
            found[unit] = to_concepts(rank_terms(best, tools.settings.top))
    return found
