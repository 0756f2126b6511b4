"""Would a segmentation come out again? Agreement over k-means starts, the mirrored image and crops, over a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import explain_calls
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import make_nave, measure_baselines, record_settings
from encoscope.evaluation.mask_overlap import add_untrained, make_entry, open_images
from encoscope.evaluation.report import Report
from encoscope.evaluation.result import Evaluation
from encoscope.evaluation.runner import AnnotatedImages, MeasuringTask, drop_duplicates, shorten_dataset
from encoscope.evaluation.settings import StabilitySettings
from encoscope.images import LoadedImage
from encoscope.nave.settings import Layers, Size
from encoscope.nave.stability import measure_stability
from encoscope.progress import Progress

MEASURES = ("starts", "least", "flip", "crops")
NOTES = (
    "Adjusted Rand index, 1 the same, 0 chance. starts: mean over pairs of k-means starts; least: over the pairs of an "
    "image; flip: with the mirrored image, mirrored back; crops: with four corner crops of 0.8 of the side. untrained: "
    "the same network without training. What agrees may still be wrong. [95 % bootstrap interval over images]",
)


@explain_calls
def stability(
    encoder: Encoder | nn.Module | str,
    dataset: str,
    *,
    preset: str | None = None,
    n_clusters: int | Sequence[int] | None = None,
    runs: int | None = None,
    limit: int | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    size: Size | None = None,
    random_state: int = StabilitySettings.random_state,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Evaluation:
    """Measure whether a segmentation would come out again: from other starts, of the mirrored image, of crops.

    Agreement is the adjusted Rand index. The untrained network stands beside it. An interrupted run resumes.
    `StabilitySettings` says what each setting means and what its default is.

    Args:
        encoder: An encoder, a network or a source string.
        dataset: A folder of images, or a dataset such as caltech101:ROOT#test.
        preset: NAVE's preset: "default", "paper" or "authors".
        n_clusters: NAVE's K, one or several.
        runs: k-means starts that are compared, at least 2.
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels.
        layers: NAVE's layers; by default the model's.
        grouping: How NAVE groups features: "kmeans", "ward", "pca".
        size: Short side that the network sees: "auto" (see ``segment``), "native", "model", or pixels.
        random_state: The seed.
        fresh: Start over instead of resuming an interrupted run.
        cache_dir: The folder for what was measured; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table, to print, save or plot.

    Raises:
        UsageError: settings that cannot be.
        MissingError: files that are absent.
    """
    settings = StabilitySettings.from_preset(
        preset,
        n_clusters=n_clusters,
        runs=runs,
        limit=limit,
        layers=layers,
        grouping=grouping,
        size=size,
        random_state=random_state,
    )
    images = open_images(dataset, limit, random_state)
    nave = make_nave(encoder, settings)
    baselines = [replace(nave, n_clusters=k) for k in settings.numbers]
    report = evaluate_stability(
        baselines,
        images,
        dataset,
        runs=settings.runs,
        fresh=fresh,
        cache_dir=cache_dir,
        random_state=random_state,
        progress=progress,
    )
    entries = [make_entry(row, dataset) for row in report.rows]
    return Evaluation.of(report, entries, nave.network, record_settings(settings, nave))


def evaluate_stability(
    baselines: Sequence[Baseline],
    images: AnnotatedImages,
    dataset: str,
    *,
    runs: int = StabilitySettings.runs,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
) -> Report:
    """Make the table of ``stability``: a row for each NAVE among the baselines, and for its untrained copy.

    Args:
        baselines: The methods.
        images: The images.
        dataset: Their name, for the title.
        runs: k-means starts that are compared, at least 2.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        random_state: Of the bootstrap and the untrained copies.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table.
    """
    everyone, names, notes = add_untrained(
        [baseline for baseline in baselines if baseline.method == "nave"], random_state
    )

    def measure(
        baseline: Baseline, image: LoadedImage, annotation: np.ndarray, n_segments: int | None
    ) -> Mapping[str, Any]:
        measured = measure_stability(baseline.network, image, runs=runs, **baseline.segment_options())
        starts, crops = float(measured.starts.mean()), float(measured.crops.mean())
        return {"starts": starts, "least": float(measured.starts.min()), "flip": measured.flip, "crops": crops}

    task = MeasuringTask("stability", measure, settings={"runs": runs})
    measurements = measure_baselines(everyone, images, task, fresh=fresh, cache_dir=cache_dir, progress=progress)
    rows = [
        {"method": name, "clusters": baseline.n_clusters}
        | {value: measured.interval(value, random_state) for value in MEASURES}
        | {"images": len(measured)}
        for baseline, name, measured in zip(everyone, names, measurements, strict=True)
    ]
    skipped = drop_duplicates(item for measured in measurements for item in measured.skipped)
    title = f"Would a segmentation come out again? {shorten_dataset(dataset)}"
    return Report("stability", title, rows, [*NOTES, *notes], {}, {"runs": runs}, random_state, skipped)
