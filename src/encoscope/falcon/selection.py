"""Which images speak for a unit: T_i, the highly activating ones, and L_i, their counterfactuals (equation 2).

All on representations of unit length, h, as rows of one matrix [images, channels]: see ``Probe.normalised``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from encoscope.errors import UsageError
from encoscope.falcon.settings import FalconSettings
from encoscope.units import Unit

_CHUNK = 64  # units looked for together: one matrix product for all of them
_ROWS = 4096


@dataclass(frozen=True)
class Thresholds:
    """alpha and epsilon on normalised representations, and the moments they come from."""

    mean: float
    std: float
    alpha: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class Selection:
    """The images of a unit, as rows of the matrix.

    high: T_i, strongest first. low: L_i, most similar first; ties go by image id. adaptive: T_i had fewer images than
    it needs, and the strongest stand in. fires: False for a unit of one value on all images: then both are empty.
    """

    high: Int[np.ndarray, " highs"]
    low: Int[np.ndarray, " lows"]
    adaptive: bool
    fires: bool


def compute_thresholds(h: Float[np.ndarray, "images channels"], settings: FalconSettings) -> Thresholds:
    """alpha = mean + 5 standard deviations and epsilon = mean over all entries, where the settings do not say them."""
    if not h.size:
        raise UsageError("no images to choose from: give a probe with at least one readable image")
    total = squares = 0.0
    for start in range(0, len(h), _ROWS):
        rows = np.asarray(h[start : start + _ROWS], dtype=np.float64)
        total += float(rows.sum())
        squares += float(np.square(rows).sum())
    mean = total / h.size
    # the sample's deviation, as torch.std has it
    std = float(np.sqrt(max(squares - h.size * mean**2, 0.0) / max(h.size - 1, 1)))
    return Thresholds(
        mean=mean,
        std=std,
        alpha=mean + settings.deviations * std if settings.alpha is None else settings.alpha,
        epsilon=mean if settings.epsilon is None else settings.epsilon,
    )


def find_active(
    h: Float[np.ndarray, "images channels"], unit: Unit, alpha: float, mode: str
) -> Bool[np.ndarray, " images"]:
    """The images of T_i: all members above alpha; in mode "exact" no other channel at or above it.

    The authors' sets hold features at alpha too (>=), the paper's T_i does not (>). A direction has no set: it is
    compared with alpha in both modes.
    """
    if unit.direction is not None:
        return unit.activation(h, normalized=True) > alpha
    members = h[:, list(unit.channels)]
    if mode == "threshold":
        return np.all(members > alpha, axis=1)
    return np.all(members >= alpha, axis=1) & (np.count_nonzero(h >= alpha, axis=1) == len(unit.channels))


def find_inactive(h: Float[np.ndarray, "images channels"], unit: Unit, epsilon: float) -> Bool[np.ndarray, " images"]:
    """The images that could be counterfactuals: all members (or the direction) below epsilon."""
    if unit.direction is not None:
        return unit.activation(h, normalized=True) < epsilon
    return np.all(h[:, list(unit.channels)] < epsilon, axis=1)


def select_images(
    h: Float[np.ndarray, "images channels"],
    units: Sequence[Unit],
    settings: FalconSettings,
    limits: Thresholds,
    ids: Sequence[str],
) -> list[Selection]:
    """T_i and L_i of each unit.

    V, the other features of equation 2, is all channels but the unit's own; for a direction, the space across it.

    h: unit rows. ids: one an image; ties are broken by them, so the images' order does not matter.
    """
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(np.array(ids), kind="stable")] = np.arange(len(ids))
    # in mode "exact", how many channels each image has at alpha; counted once for all units
    counts = np.count_nonzero(h >= limits.alpha, axis=1) if settings.mode == "exact" else None
    found: list[Selection] = []
    for start in range(0, len(units), _CHUNK):
        chunk = units[start : start + _CHUNK]
        highs = [_high(h, unit, settings, limits, rank, counts) for unit in chunk]
        means = np.stack([h[high].mean(0) if len(high) else np.zeros(h.shape[1], h.dtype) for high, _, _ in highs])
        similarity = h @ means.T
        for column, (unit, (high, adaptive, fires)) in enumerate(zip(chunk, highs, strict=True)):
            low = np.zeros(0, dtype=np.int64)
            if len(high) and settings.lows:
                rest = similarity[:, column] - _own(h, unit, means[column])
                candidates = np.flatnonzero(find_inactive(h, unit, limits.epsilon) & (rest >= settings.beta))
                low = _strongest(candidates, rest, rank, settings.lows)
            found.append(Selection(high, low, adaptive, fires))
    return found


def _high(
    h: np.ndarray, unit: Unit, settings: FalconSettings, limits: Thresholds, rank: np.ndarray, counts: np.ndarray | None
) -> tuple[np.ndarray, bool, bool]:
    value = unit.activation(h, normalized=True)
    none = np.zeros(0, dtype=np.int64)
    if value.max() == value.min():
        return none, False, False
    if counts is None or unit.direction is not None:
        above = find_active(h, unit, limits.alpha, "threshold")
    else:
        above = (h[:, list(unit.channels)] >= limits.alpha).all(1) & (counts == len(unit.channels))
    candidates = np.flatnonzero(above)
    if len(candidates) >= settings.least:
        return _strongest(candidates, value, rank, settings.most), False, True
    if not settings.adaptive:
        return none, False, True
    # where a unit is off on most images, those are no examples of it
    return _strongest(np.flatnonzero(value > value.min()), value, rank, settings.adaptive), True, True


def _own(h: np.ndarray, unit: Unit, mean: np.ndarray) -> np.ndarray:
    """The part of h . mean that the unit's own channels (or direction) make."""
    if unit.direction is not None:
        return unit.activation(h, normalized=True) * float(mean @ unit.unit_vector)
    members = list(unit.channels)
    return h[:, members] @ mean[members]


def _strongest(candidates: np.ndarray, value: np.ndarray, rank: np.ndarray, count: int | None) -> np.ndarray:
    """The candidates of the largest values, largest first, ties by rank."""
    order = np.lexsort((rank[candidates], -value[candidates]))
    return candidates[order[:count]]
