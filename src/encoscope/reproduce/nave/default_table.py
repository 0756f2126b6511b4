"""The table behind NAVE's default: a network with the chosen settings and without, untrained, and without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from encoscope.encoder import Encoder, untrained_copy
from encoscope.evaluation.baselines import CONTROL, Baseline
from encoscope.evaluation.localization import compute_corloc
from encoscope.evaluation.measurement_cache import MeasurementCache
from encoscope.evaluation.report import EvaluationRequest
from encoscope.evaluation.runner import (
    Measurements,
    MeasuringTask,
    compute_difference,
    compute_interval,
    measure_images,
)
from encoscope.images import LoadedImage, SkippedImage
from encoscope.reproduce.nave.candidates import PAPER, PAPER_ONE_GRID, Candidate, list_options
from encoscope.reproduce.nave.shared_maps import MaskedImage, measure_segments, measure_settings, open_network_cache

JOINED = 0.01
"""Regions below this share of the image are joined, in a further table."""
OTHERS = ("felzenszwalb", "slic", CONTROL)
MEASURES: Mapping[str, Callable[[Measurements], np.ndarray]] = {
    "mIoU": lambda measured: measured.array("miou"),
    "region mIoU": lambda measured: measured.array("region miou"),
    "boundary F": lambda measured: measured.array("boundary f"),
    "CorLoc": lambda measured: compute_corloc(measured, "outer", "outer"),
    "CorLoc, border": lambda measured: compute_corloc(measured, "border", "outer"),
    "foreground ARI": lambda measured: measured.array("foreground ari"),
}


class NetworkTable:
    """The rows of one network: what was chosen, Algorithm 1 as written, both untrained, and methods without a network.

    Args:
        name: The network's name.
        encoder: The network.
        clusters: The numbers of clusters.
        images: The images of the reporting half.
        request: The experiment's request.
        cache: The cache of what was measured with the network.
    """

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        clusters: Sequence[int],
        images: Sequence[MaskedImage],
        request: EvaluationRequest,
        cache: MeasurementCache,
    ) -> None:
        self.name, self.encoder, self.clusters = name, encoder, clusters
        self.images, self.request, self.cache = images, request, cache
        self.skipped: list[SkippedImage] = []

    def make_rows(self, family: str, chosen: Candidate) -> list[dict[str, Any]]:
        """Measure everything.

        Args:
            family: The network's family.
            chosen: Its settings.

        Returns:
            The rows, for each number of clusters.
        """
        paper = PAPER if family == "stages" else PAPER_ONE_GRID
        seed, fresh = self.request.seed, self.request.fresh
        networks = {"": (self.encoder, self.cache)}
        if not self.name.endswith("@untrained"):
            untrained = untrained_copy(self.encoder, random_state=seed)
            cache = open_network_cache(untrained, fresh=fresh, random_state=seed)
            networks |= {", untrained": (untrained, cache)}
        measured: dict[tuple[str, int], Measurements] = {}
        for words, candidate in (("chosen", chosen), ("as written", paper)):
            for suffix, (encoder, cache) in networks.items():
                group = list_options(encoder, candidate, self.clusters)
                several = measure_settings(
                    encoder,
                    group,
                    self.images,
                    cache,
                    full=True,
                    random_state=seed,
                    label=f"{self.name}{suffix}, {words}",
                    progress=self.request.progress,
                )
                for k, values in zip(self.clusters, several, strict=True):
                    measured[f"{words}{suffix}", k] = values
        for k in self.clusters:
            for method in OTHERS:
                for count in ("segments", "regions"):
                    measured[f"{method}, as many {count}", k] = self.measure_other(method, count, measured["chosen", k])
        self.skipped = [item for values in measured.values() for item in values.skipped]
        return [self.make_row(what, k, measured) for k in self.clusters for what, other in measured if other == k]

    def make_joined_rows(self, chosen: Candidate) -> list[dict[str, Any]]:
        """Measure the chosen settings with small regions joined, beside other methods at as many regions as remain.

        Args:
            chosen: The chosen settings.

        Returns:
            The rows, for each number of clusters.
        """
        joined = replace(chosen, min_region=JOINED)
        options = list_options(self.encoder, joined, self.clusters)
        settings: dict[str, Any] = {"random_state": self.request.seed, "progress": self.request.progress}
        label = f"{self.name}, regions from {JOINED:g}"
        several = measure_settings(self.encoder, options, self.images, self.cache, full=True, label=label, **settings)
        rows = []
        for k, values in zip(self.clusters, several, strict=True):
            measured = {("joined", k): values}
            for method in OTHERS:
                measured[f"{method}, as many regions", k] = self.measure_other(method, "regions", values)
            rows += [self.make_row(what, k, measured, "joined") for what, _ in measured]
            self.skipped += [item for each in measured.values() for item in each.skipped]
        return rows

    def measure_other(self, method: str, count: str, like: Measurements) -> Measurements:
        """Measure a method that knows no network, at as many segments as the chosen settings give.

        Args:
            method: Its name.
            count: "segments": as many as clusters; "regions": as many as connected regions.
            like: What was measured with the chosen settings.

        Returns:
            The values.
        """
        by_path = {masked.example.path: masked for masked in self.images}

        def measure(
            baseline: Baseline, image: LoadedImage, annotation: np.ndarray, n_segments: int | None
        ) -> dict[str, Any]:
            assert image.path is not None
            masked = next(masked for path, masked in by_path.items() if str(path) == str(image.path))
            return measure_segments(baseline(image, n_segments), image, masked)

        boxes = [masked.boxes.tolist() for masked in self.images]
        task = MeasuringTask("nave-defaults, without a network", measure, count, {"boxes": boxes})
        return measure_images(
            task,
            Baseline(method, None, None, {}, "native", 0, 0, self.request.seed),
            [masked.example for masked in self.images],
            like=like,
            fresh=self.request.fresh,
            label=f"{method}, {count}",
            progress=self.request.progress,
        )

    def make_row(
        self, what: str, k: int, measured: Mapping[tuple[str, int], Measurements], first: str = "chosen"
    ) -> dict[str, Any]:
        """Make a row: every measure with its interval, and the paired difference of the first row to it.

        Args:
            what: The row's name.
            k: The number of clusters.
            measured: All values.
            first: The row that is compared with all others.

        Returns:
            The row.
        """
        values, seed = measured[what, k], self.request.seed
        row: dict[str, Any] = {"network": self.name, "what": what, "K": k}
        row |= {name: compute_interval(of(values), seed) for name, of in MEASURES.items()}
        row["regions"] = values.mean("regions")
        for name in ("mIoU", "region mIoU"):
            of = MEASURES[name]
            difference = None if what == first else compute_difference(measured[first, k], values, of, seed)
            row[f"{name}: {first} - this"] = difference
        return row
