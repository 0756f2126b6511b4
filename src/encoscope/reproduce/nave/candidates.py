"""What a default of NAVE could be: layers, size and further settings, each by what the network is, not by names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from encoscope.encoder import Encoder
from encoscope.nave.layers import choose_blocks_of_two_grids, list_blocks

FACTORS = ("layers and size", "resolution", "weighting", "grouping", "normalization", "smallest region")
"""The order in which the search goes through them."""
SIZES = (1.0, 2.0, 3.0)
"""Short sides that are tried, as multiples of the network's own."""
RESOLUTIONS: tuple[int | str, ...] = ("first-layer", 56, 112)
WEIGHTINGS = ("paper", "equal", "variance")
GROUPINGS = ("kmeans", "ward", "pca")
NORMALIZATIONS = ("unit", "centered", "none")
MIN_REGIONS = (0.0, 0.005, 0.01, 0.02)


def _last_blocks(count: int, skipped: int = 0) -> Callable[[Encoder], tuple[str, ...]]:
    def choose(encoder: Encoder) -> tuple[str, ...]:
        names = [info.name for info in list_blocks(encoder)]
        names = names[: max(1, len(names) - skipped)]
        return tuple(names[-count:])

    return choose


def _last_depths(count: int, skipped: int = 0) -> Callable[[Encoder], tuple[str, ...]]:
    def choose(encoder: Encoder) -> tuple[str, ...]:
        names = encoder.depths[: max(1, len(encoder.depths) - skipped)]
        return tuple(names[-count:])

    return choose


def _block_at(share: float) -> Callable[[Encoder], tuple[str, ...]]:
    def choose(encoder: Encoder) -> tuple[str, ...]:
        blocks = list_blocks(encoder)
        return (blocks[max(0, round(share * len(blocks)) - 1)].name,)

    return choose


LAYERS: Mapping[str, Callable[[Encoder], tuple[str, ...]]] = {
    "last three depths": _last_depths(3),
    "last two depths": _last_depths(2),
    "last depth": _last_depths(1),
    "last depth but one": _last_depths(1, 1),
    "last block": _last_blocks(1),
    "last block but one": _last_blocks(1, 1),
    "last two blocks": _last_blocks(2),
    "last block but one, and the last on a finer grid": choose_blocks_of_two_grids,
    "block at three quarters": _block_at(0.75),
}
"""What layers could be chosen by. Depths are the stages of a network that has any, or its blocks (``Encoder.depths``).
A network's classifying layers after its blocks, such as a last convolution before the pooling, belong to no block."""

SEVERAL = (
    "last three depths",
    "last two depths",
    "last two blocks",
    "last block but one, and the last on a finer grid",
)
"""Those of several layers, for which the weighting matters."""


@dataclass(frozen=True)
class Candidate:
    """Settings for any network.

    Attributes:
        layers: A key of `LAYERS`.
        size: The short side, as a multiple of the network's own.
        resolution: As of ``NaveSettings``.
        weighting: As of ``NaveSettings``.
        grouping: As of ``NaveSettings``.
        normalization: As of ``NaveSettings``.
        min_region: As of ``NaveSettings``.
    """

    layers: str
    size: float = 1.0
    resolution: int | str = "first-layer"
    weighting: str = "paper"
    grouping: str = "kmeans"
    normalization: str = "unit"
    min_region: float = 0.0

    def options(self, encoder: Encoder) -> dict[str, Any]:
        """Write the candidate as settings for one network.

        Args:
            encoder: The encoder.

        Returns:
            Keyword arguments of ``segment``. A network of one fixed size gets that.
        """
        names = [info.name for info in encoder.layers if info.name in LAYERS[self.layers](encoder)]
        return {
            "preset": "paper",
            "layers": names,
            "size": compute_side(encoder, self.size),
            "resolution": self.resolution,
            "weighting": self.weighting,
            "grouping": self.grouping,
            "normalization": self.normalization,
            **({"min_region": self.min_region} if self.min_region else {}),
        }

    def __str__(self) -> str:
        words = [self.layers, f"{self.size:g} x own size", f"grid {self.resolution}", self.weighting, self.grouping]
        words += [self.normalization, *([f"regions from {self.min_region:g}"] if self.min_region else [])]
        return ", ".join(words)


PAPER = Candidate("last three depths")
"""Algorithm 1 as written, with the paper's layers of a network with stages."""
PAPER_ONE_GRID = Candidate("last depth")
"""The same, with the paper's layer of a network that keeps one grid."""


def compute_side(encoder: Encoder, factor: float) -> int | str:
    """Compute the short side of images for a network.

    Args:
        encoder: The encoder.
        factor: A multiple of the network's own.

    Returns:
        Pixels; "model" for a network of one fixed size.
    """
    return round(factor * min(encoder.preprocess.size)) if encoder.resizable else "model"


def vary(candidate: Candidate, factor: str) -> list[Candidate]:
    """List what a step of the search compares.

    Args:
        candidate: What was chosen so far.
        factor: One of `FACTORS`.

    Returns:
        The candidates that differ in this factor alone, the one chosen so far first. Layers and size are tried with the
        paper's weights and with equal ones, as layers that are weighted badly would not show what they are worth.
    """
    values: dict[str, list[dict[str, Any]]] = {
        "layers and size": [
            {"layers": layers, "size": size, "weighting": weighting}
            for layers, size, weighting in product(LAYERS, SIZES, ("paper", "equal"))
            if layers in SEVERAL or weighting == "paper"
        ],
        "resolution": [{"resolution": value} for value in RESOLUTIONS],
        "weighting": [{"weighting": value} for value in WEIGHTINGS if candidate.layers in SEVERAL],
        "grouping": [{"grouping": value} for value in GROUPINGS],
        "normalization": [{"normalization": value} for value in NORMALIZATIONS],
        "smallest region": [{"min_region": value} for value in MIN_REGIONS],
    }
    return list(dict.fromkeys([candidate, *(replace(candidate, **changes) for changes in values[factor])]))


def list_options(encoder: Encoder, candidate: Candidate, clusters: Sequence[int]) -> list[dict[str, Any]]:
    """Write a candidate as settings for one network, at several numbers of clusters.

    Args:
        encoder: The encoder.
        candidate: The candidate.
        clusters: The numbers of clusters.

    Returns:
        Keyword arguments of ``segment`` for each number.
    """
    return [{"n_clusters": k, **candidate.options(encoder)} for k in clusters]
