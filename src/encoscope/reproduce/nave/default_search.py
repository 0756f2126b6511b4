"""The search behind NAVE's default: one factor of the settings is chosen after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.evaluation.report import EvaluationRequest
from encoscope.metrics import bootstrap_difference
from encoscope.reproduce.nave.candidates import FACTORS, PAPER, PAPER_ONE_GRID, Candidate, list_options, vary
from encoscope.reproduce.nave.shared_maps import MaskedImage, measure_settings


@dataclass
class Search:
    """The search for the settings of one family.

    Attributes:
        family: Its name.
        encoders: Its networks.
        clusters: The numbers of clusters.
        images: The images to choose on.
        request: The experiment's request.
        caches: The caches of what was measured, by network.
    """

    family: str
    encoders: Mapping[str, Encoder]
    clusters: Sequence[int]
    images: Sequence[MaskedImage]
    request: EvaluationRequest
    caches: Mapping[str, MeasurementCache]

    def __post_init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    @property
    def paper(self) -> Candidate:
        """Algorithm 1 as written."""
        return PAPER if self.family == "stages" else PAPER_ONE_GRID

    def run(self, rounds: int) -> Candidate:
        """Choose one factor after another.

        Args:
            rounds: How often all factors are gone through, at most.

        Returns:
            The chosen settings.
        """
        best = self.paper
        for round_ in range(1, rounds + 1):
            before = best
            for factor in FACTORS:
                best = self.choose(best, factor, round_)
            if best == before:
                break
        return best

    def choose(self, best: Candidate, factor: str, round_: int) -> Candidate:
        """Choose the value of one factor.

        Args:
            best: What was chosen so far.
            factor: The factor.
            round_: The number of the round, for the table.

        Returns:
            Of the candidates that are not clearly worse than the best, the one with the smallest size, of these the one
            that differs from Algorithm 1 in the fewest settings, and of these the first. What counts is the mean over
            networks, numbers of clusters and images of the mIoU; clearly worse is a candidate whose paired difference
            to the best has a bootstrap interval above zero.
        """
        candidates = vary(best, factor)
        by_network = {name: self.measure(name, candidates, factor) for name in self.encoders}
        values = np.mean(list(by_network.values()), axis=0)  # [candidates, images]
        top = int(np.argmax(values.mean(1)))
        behind = [bootstrap_difference(values[top], row, random_state=self.request.seed) for row in values]
        equal = [index for index, interval in enumerate(behind) if interval.low <= 0]
        chosen = min(equal, key=lambda i: (candidates[i].size, count_differences(candidates[i], self.paper), i))
        for index, candidate in enumerate(candidates):
            row: dict[str, Any] = {"family": self.family, "round": round_, "factor": factor, "settings": str(candidate)}
            row |= {"mIoU": float(values[index].mean()), "best - this": behind[index], "chosen": index == chosen}
            self.steps.append(row | {name: float(by_network[name][index].mean()) for name in by_network})
        return candidates[chosen]

    def measure(self, name: str, candidates: Sequence[Candidate], label: str) -> Float[np.ndarray, "candidates images"]:
        """Measure candidates on one network, size by size.

        Args:
            name: The network.
            candidates: The candidates.
            label: For the progress line.

        Returns:
            ``[candidates, images]``, the mean mIoU over numbers of clusters; 0 for an image without masks.
        """
        encoder = self.encoders[name]
        keys = [list_options(encoder, candidate, self.clusters) for candidate in candidates]
        unique = {repr(options): options for several in keys for options in several}
        sizes = list(dict.fromkeys(options["size"] for options in unique.values()))
        by_options: dict[str, np.ndarray] = {}
        for size in sizes:
            group = [options for options in unique.values() if options["size"] == size]
            measured = measure_settings(
                encoder,
                group,
                self.images,
                self.caches[name],
                full=False,
                random_state=self.request.seed,
                label=f"{name}, {label}, {size} px",
                progress=self.request.progress,
            )
            by_options |= {repr(o): np.nan_to_num(m.array("miou")) for o, m in zip(group, measured, strict=True)}
        return np.stack([np.mean([by_options[repr(options)] for options in several], axis=0) for several in keys])


def count_differences(candidate: Candidate, other: Candidate) -> int:
    """Count the settings in which two candidates differ.

    Args:
        candidate: One.
        other: The other.

    Returns:
        The number.
    """
    return sum(getattr(candidate, field.name) != getattr(other, field.name) for field in fields(Candidate))
