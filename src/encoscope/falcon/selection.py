"""Which images stand for a unit: T_i, the highly activating ones, and L_i, their counterfactuals (equation 2).

All on representations of unit length, h, as rows of one matrix [images, channels]: see ``Probe.normalize``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float, Int

from encoscope.falcon.settings import FalconSettings
from encoscope.falcon.spaces import Thresholds
from encoscope.units import Unit

_CHUNK = 64  # units that are compared with all images in one matrix product


class DescriptionOutcome(Enum):
    """What became of a unit.

    The first four say which images were selected; one of the two that have images is also the outcome of a unit whose
    concepts FALCON finds. The last two are outcomes of units for which it finds none.

    Attributes:
        method: What results call the method behind the description.
    """

    EXPLAINED = "explained", "falcon", ""
    """FALCON finds concepts, from images above alpha."""
    TOP_K = "top_k", "falcon, top-k", "{few} alpha ({alpha:.3g}): the {n_used} strongest are used instead"
    """FALCON finds concepts, from the strongest images, because too few are above alpha."""
    TOO_FEW_IMAGES = "too_few_images", "none", "{few} alpha ({alpha:.3g})"
    """Too few images are above alpha, and the strongest are not to be used."""
    NEVER_ACTIVATES = (
        "never_activates",
        "none",
        "it never activates: it has the same value on all {n_probed} images",
    )
    """The unit has the same value on all images."""
    NOTHING_LEFT = "nothing_left", "none", "the counterfactuals share every word of its captions"
    """The counterfactuals share every word."""
    DISSECTED = "dissected", "dissect", ""
    """FALCON finds no concept, and CLIP-Dissect's soft-WPMI gave the label."""

    method: str
    _template: str

    def __new__(cls, value: str, method: str, template: str) -> DescriptionOutcome:
        """Make a member whose value is the first of its three texts."""
        outcome = object.__new__(cls)
        outcome._value_, outcome.method, outcome._template = value, method, template
        return outcome

    def note(self, *, alpha: float, min_images: int, n_used: int, n_probed: int) -> str:
        """Say why a description is not plain FALCON.

        Args:
            alpha: The threshold that images have to pass.
            min_images: The images that have to pass it.
            n_used: The images that were used.
            n_probed: The images of the probe that descriptions are made from.

        Returns:
            One clause; empty for ``EXPLAINED`` and ``DISSECTED``, which need no reason of their own.

        Example:
            >>> DescriptionOutcome.TOO_FEW_IMAGES.note(alpha=0.25, min_images=1, n_used=0, n_probed=90)
            'no image passes alpha (0.25)'
        """
        few = "no image passes" if min_images == 1 else f"fewer than {min_images} images pass"
        return self._template.format(few=few, alpha=alpha, n_used=n_used, n_probed=n_probed)


@dataclass(frozen=True, eq=False)
class Selection:
    """The images of a unit, as rows of the matrix.

    Attributes:
        high: T_i, strongest first, ties by image id; the strongest images where too few pass alpha.
        low: L_i, most similar first, ties by image id.
        outcome: EXPLAINED where enough images pass alpha, TOP_K where the strongest are used instead; both are empty
            for TOO_FEW_IMAGES and NEVER_ACTIVATES.
    """

    high: Int[np.ndarray, " high"]
    low: Int[np.ndarray, " low"]
    outcome: DescriptionOutcome


def find_active(
    h: Float[np.ndarray, "images channels"], unit: Unit, alpha: float, mode: str
) -> Bool[np.ndarray, " images"]:
    """Find the images of T_i, without a minimum or maximum of images.

    Args:
        h: Rows of unit length.
        unit: The unit.
        alpha: The threshold.
        mode: "threshold": all members of the unit are above alpha. "exact": all members are at or above it, and no
            other channel is. A direction has no set of channels and is compared with alpha in both modes.

    Returns:
        Whether each image is one of them.
    """
    if unit.direction is not None:
        return unit.activation(h, normalized=True) > alpha
    members = h[:, list(unit.channels)]
    if mode == "threshold":
        return np.all(members > alpha, axis=1)
    return np.all(members >= alpha, axis=1) & (np.count_nonzero(h >= alpha, axis=1) == len(unit.channels))


def find_inactive(h: Float[np.ndarray, "images channels"], unit: Unit, epsilon: float) -> Bool[np.ndarray, " images"]:
    """Find the images that could be counterfactuals.

    Args:
        h: Rows of unit length.
        unit: The unit.
        epsilon: All members (or the direction) are below it.

    Returns:
        Whether each image is one of them.
    """
    if unit.direction is not None:
        return unit.activation(h, normalized=True) < epsilon
    return np.all(h[:, list(unit.channels)] < epsilon, axis=1)


def select_images(
    h: Float[np.ndarray, "images channels"],
    units: Sequence[Unit],
    settings: FalconSettings,
    thresholds: Thresholds,
    ids: Sequence[str],
) -> list[Selection]:
    """Select T_i and L_i of each unit.

    V, the other features of equation 2, is all channels but the unit's own; for a direction, the space across it.

    Args:
        h: Rows of unit length.
        units: Units of this space.
        settings: With the mode, the numbers of images and beta.
        thresholds: Alpha and epsilon.
        ids: The id of each image. Ties are broken by them, so that the order of the images does not matter.

    Returns:
        A selection for each unit, in their order.

    Source: FALCON, sections 3.1 and 3.3, equation 2.
    """
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(np.array(ids), kind="stable")] = np.arange(len(ids))
    # in mode "exact", how many channels of each image are at alpha; counted once for all units
    counts = np.count_nonzero(h >= thresholds.alpha, axis=1) if settings.mode == "exact" else None
    selections: list[Selection] = []
    for start in range(0, len(units), _CHUNK):
        chunk = units[start : start + _CHUNK]
        highs = [_select_high(h, unit, settings, thresholds.alpha, rank, counts) for unit in chunk]
        means = np.stack([h[high].mean(0) if len(high) else np.zeros(h.shape[1], h.dtype) for high, _ in highs])
        similarity = h @ means.T
        for column, (unit, (high, outcome)) in enumerate(zip(chunk, highs, strict=True)):
            low = np.zeros(0, dtype=np.int64)
            if len(high) and settings.n_counterfactuals:
                rest = similarity[:, column] - _multiply_own(h, unit, means[column])
                candidates = np.flatnonzero(find_inactive(h, unit, thresholds.epsilon) & (rest >= settings.beta))
                low = _take_strongest(candidates, rest, rank, settings.n_counterfactuals)
            selections.append(Selection(high, low, outcome))
    return selections


def _select_high(
    h: np.ndarray, unit: Unit, settings: FalconSettings, alpha: float, rank: np.ndarray, counts: np.ndarray | None
) -> tuple[np.ndarray, DescriptionOutcome]:
    value = unit.activation(h, normalized=True)
    none = np.zeros(0, dtype=np.int64)
    if value.max() == value.min():
        return none, DescriptionOutcome.NEVER_ACTIVATES
    if counts is None or unit.direction is not None:
        above = find_active(h, unit, alpha, "threshold")
    else:
        above = (h[:, list(unit.channels)] >= alpha).all(1) & (counts == len(unit.channels))
    candidates = np.flatnonzero(above)
    if len(candidates) >= settings.min_images:
        return _take_strongest(candidates, value, rank, settings.max_images), DescriptionOutcome.EXPLAINED
    if not settings.top_k_if_empty:
        return none, DescriptionOutcome.TOO_FEW_IMAGES
    # images on which the unit has its lowest value are no examples of it: for most units that is zero, on most images
    positive = np.flatnonzero(value > value.min())
    return _take_strongest(positive, value, rank, settings.top_k_if_empty), DescriptionOutcome.TOP_K


def _multiply_own(h: np.ndarray, unit: Unit, mean: np.ndarray) -> np.ndarray:
    """The part of h . mean that comes from the unit's own channels (or direction)."""
    if unit.direction is not None:
        return unit.activation(h, normalized=True) * float(mean @ unit.unit_vector)
    members = list(unit.channels)
    return h[:, members] @ mean[members]


def _take_strongest(candidates: np.ndarray, value: np.ndarray, rank: np.ndarray, count: int | None) -> np.ndarray:
    """The candidates of the largest values, largest first, ties by rank."""
    order = np.lexsort((rank[candidates], -value[candidates]))
    return candidates[order[:count]]
