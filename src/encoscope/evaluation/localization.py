"""NAVE's proxy task: does one of the segments that an encoder treats alike contain an object?

The segment is chosen with the true boxes at hand, an oracle, so every value stands beside three others: how many
candidates there were to choose from, as many random ones, and a choice made without the true boxes.

Source: NAVE, section 4.2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from torch import nn

from encoscope.defaults import RANDOM_STATE
from encoscope.discovery.methods import get_base_name
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.evaluation.baselines import ALONE, CONTROL, MATCHED, Baseline, BaselineSegments
from encoscope.evaluation.report import Report
from encoscope.evaluation.result import Evaluation
from encoscope.evaluation.runner import (
    AnnotatedImage,
    AnnotatedImages,
    Measurements,
    MeasuringTask,
    compute_difference,
    compute_interval,
    drop_duplicates,
    measure_images,
    shorten_dataset,
)
from encoscope.evaluation.settings import SCORES, SELECTS, CorlocSettings, EvaluationSettings
from encoscope.images import BoxedImages, LoadedImage, SkippedImage, open_boxed_dataset, sample_images
from encoscope.metrics import compute_hits, localize
from encoscope.nave.settings import Layers, Size
from encoscope.progress import Progress

NOTES = (
    "select: outer and inner choose among all candidates with the true boxes at hand, an oracle and no localization; "
    "border chooses the candidate that touches the image's border least, without them.",
    "random is the control: as many Voronoi cells of random points as NAVE has candidates, image by image; slic, "
    "felzenszwalb and grid are asked for as many, too.",
    "corloc: share of images whose chosen box has IoU > 0.5 with a true box [95 % bootstrap interval over images]; "
    "difference: to NAVE with as many clusters and the same selection, on the same images.",
)


@explain_calls
def corloc(
    encoder: Encoder | nn.Module | str,
    dataset: str | Sequence[str],
    *,
    preset: str | None = None,
    n_clusters: int | Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    select: str | None = None,
    score: str | None = None,
    limit: int | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    size: Size | None = None,
    min_area: int | None = None,
    border: int | None = None,
    n_segments: int | None = None,
    n_points: int | None = None,
    random_state: int = CorlocSettings.random_state,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Evaluation:
    """Measure whether a segment contains an object: CorLoc, as in the papers of NAVE and LOST.

    Choosing the segment with the true boxes at hand is an oracle. So the table always shows the number of candidates,
    as many random segments, and a choice without the true boxes (border) as well. An interrupted run resumes.
    `CorlocSettings` says what each setting means and what its default is.

    Args:
        encoder: An encoder, a network or a source string.
        dataset: Images with boxes, one or several: voc07:ROOT, voc12:ROOT, coco20k:ROOT, voc:ROOT, coco:IMAGES#JSON.
        preset: NAVE's preset: "default", "paper" or "authors".
        n_clusters: NAVE's K, one or several.
        methods: nave, slic, felzenszwalb, random, grid, pca, dino-seg, lost, tokencut, maskcut, sam:FOLDER. NAVE and
            random segments are always among them.
        select: The candidate with the best IoU of its "outer" or "inner" box (an oracle), or, without the true boxes,
            the one that touches the image's "border" least.
        score: The box of it that is scored, "outer" or "inner".
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels.
        layers: NAVE's layers; by default the model's.
        grouping: How NAVE groups features: "kmeans", "ward", "pca".
        size: Short side that the network sees: "native" (the paper's), "model", or pixels.
        min_area: Segments of at most so many pixels are no candidates; by default as in the paper.
        border: Pixels along the border that are taken away from segments; by default as in the paper.
        n_segments: Of slic, felzenszwalb, random and grid; by default as many as NAVE has candidates.
        n_points: Of sam: prompts on a side of its grid over the image.
        random_state: The seed.
        fresh: Start over instead of resuming an interrupted run.
        cache_dir: The folder for what was measured; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table, to print, save or plot.

    Raises:
        UsageError: a dataset without boxes, or settings that cannot be.
        MissingError: files that are absent.

    Example:
        ::

            print(encoscope.evaluation.corloc("zoo:resnet-caltech101", "voc07:/data/VOC", n_clusters=(3, 5), limit=100))

    Source: NAVE, section 4.2; Siméoni et al. 2021, Localizing Objects with Self-Supervised Transformers.
    """
    settings = CorlocSettings.from_preset(
        preset,
        n_clusters=n_clusters,
        methods=methods,
        select=select,
        score=score,
        limit=limit,
        layers=layers,
        grouping=grouping,
        size=size,
        min_area=min_area,
        border=border,
        n_segments=n_segments,
        n_points=n_points,
        random_state=random_state,
    )
    datasets = [dataset] if isinstance(dataset, str) else list(dataset)
    images = {text: list_boxed_images(open_boxed_dataset(text), limit, random_state) for text in datasets}
    nave = make_nave(encoder, settings, min_area=settings.min_area, border=settings.border)
    report = evaluate_corloc(
        list_baselines(nave, settings.methods, settings.numbers, {"sam": {"points": settings.n_points}}),
        images,
        select=settings.select,
        score=settings.score,
        n_segments=n_segments,
        fresh=fresh,
        cache_dir=cache_dir,
        random_state=random_state,
        progress=progress,
    )
    entries = [make_entry(row, datasets[0]) for row in report.rows]
    return Evaluation.of(report, entries, nave.network, record_settings(settings, nave))


def measure_localization(
    baseline: Baseline, image: LoadedImage, annotation: np.ndarray, n_segments: int | None
) -> Mapping[str, Any]:
    """Measure one image.

    Args:
        baseline: The method.
        image: The image.
        annotation: ``[boxes, 4]``, the true boxes.
        n_segments: For a matched method.

    Returns:
        The number of candidates, and the IoU of the chosen box for every "SELECT SCORE", NaN without true boxes.
    """
    return score_localization(baseline(image, n_segments), annotation)


def score_localization(segments: BaselineSegments, boxes: np.ndarray) -> dict[str, Any]:
    """Measure the segments of one image.

    Args:
        segments: The segments.
        boxes: ``[boxes, 4]``, the true boxes.

    Returns:
        The number of candidates, and the IoU of the chosen box for every "SELECT SCORE", NaN without true boxes.
    """
    candidates = segments.candidates
    ious = {
        f"{select} {score}": localize(candidates, boxes, select=select, score=score).iou
        for select, score in product(SELECTS, SCORES)
    }
    return {"candidates": len(candidates), **ious}


TASK = MeasuringTask("corloc", measure_localization)


def list_boxed_images(
    images: BoxedImages, limit: int | None = None, random_state: int = RANDOM_STATE
) -> list[AnnotatedImage]:
    """List the images with the boxes that count (LOST's rules); those without any are left out, as they are there.

    Args:
        images: A dataset with boxes.
        limit: At most so many, drawn with the seed.
        random_state: The seed.

    Returns:
        The images with their boxes.
    """
    boxed = [(path, images.ground_truth(index)) for index, path in enumerate(images.paths)]
    counted = [AnnotatedImage(path, boxes) for path, boxes in boxed if len(boxes)]
    return [counted[index] for index in sample_images([None] * len(counted), limit, random_state)]


def compute_corloc(measured: Measurements, select: str, score: str) -> np.ndarray:
    """Say of every image whether its chosen box contains an object ("larger than 50 %").

    Args:
        measured: Measurements of ``measure_localization``.
        select: How the box was chosen.
        score: Which box is scored.

    Returns:
        ``[images]``: 1 or 0; NaN without true boxes.
    """
    return compute_hits(measured.array(f"{select} {score}"))


def evaluate_corloc(
    baselines: Sequence[Baseline],
    datasets: Mapping[str, Sequence[AnnotatedImage]],
    *,
    select: str = CorlocSettings.select,
    score: str = CorlocSettings.score,
    n_segments: int | None = None,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    random_state: int = CorlocSettings.random_state,
    progress: Progress = None,
) -> Report:
    """Make the table of ``corloc`` from baselines: a row for each dataset, baseline and selection.

    Args:
        baselines: The methods. Matched ones take the number of candidates of the NAVE with as many clusters among them.
        datasets: Images with boxes by the dataset's name.
        select: The selection beside "border".
        score: Which box is scored.
        n_segments: A fixed number for matched baselines.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        random_state: Of the bootstrap.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table.

    Raises:
        UsageError: a matched baseline without a number to follow.
    """
    rows: list[dict[str, Any]] = []
    skipped: list[SkippedImage] = []
    for name, images in datasets.items():
        measurements = measure_baselines(
            baselines, images, n_segments=n_segments, fresh=fresh, cache_dir=cache_dir, progress=progress
        )
        skipped += [item for measured in measurements for item in measured.skipped]
        for selection in dict.fromkeys((select, "border")):
            for index, (baseline, measured) in enumerate(zip(baselines, measurements, strict=True)):
                values = compute_corloc(measured, selection, score)
                row = {
                    **({"dataset": name} if len(datasets) > 1 else {}),
                    "method": baseline.name,
                    "clusters": baseline.n_clusters,
                    "select": selection,
                    "score": score,
                    "corloc": compute_interval(values, random_state),
                    "images": int((~np.isnan(values)).sum()),
                    "candidates": measured.mean("candidates"),
                    "difference": None,
                }
                other = find_counterpart(baselines, measurements, index)
                if other is not None:
                    row["difference"] = compute_difference(
                        measured,
                        other,
                        lambda values: compute_corloc(values, selection, score),  # noqa: B023 - called at once
                        random_state,
                    )
                rows.append(row)
    title = "Does a segment contain an object?" + (
        f" {shorten_dataset(next(iter(datasets)))}" if len(datasets) == 1 else ""
    )
    return Report("corloc", title, rows, NOTES, seed=random_state, skipped=drop_duplicates(skipped))


def make_entry(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Turn a row of ``evaluate_corloc`` into an entry of a result document.

    Args:
        row: The row.
        dataset: The dataset of a row that names none.

    Returns:
        The entry: ``corloc`` is a number, ``interval`` the ends of its interval.
    """
    value, change = row["corloc"], row["difference"]
    return {
        "dataset": row.get("dataset", dataset),
        **{name: row[name] for name in ("method", "clusters", "select", "score")},
        "corloc": None if value is None else value.value,
        "interval": None if value is None else [value.low, value.high],
        "images": row["images"],
        "candidates": row["candidates"],
        "difference": None if change is None else {"value": change.value, "interval": [change.low, change.high]},
    }


def measure_baselines(
    baselines: Sequence[Baseline],
    images: AnnotatedImages,
    task: MeasuringTask = TASK,
    *,
    n_segments: int | None = None,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> list[Measurements]:
    """Measure each baseline on the same images, NAVE first so that matched baselines can follow it.

    Args:
        baselines: The methods.
        images: The images.
        task: What is measured.
        n_segments: A fixed number for matched baselines.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        Measurements, in the baselines' order.

    Raises:
        UsageError: a matched baseline without a number to follow.
    """
    measurements: dict[int, Measurements] = {}
    order = sorted(range(len(baselines)), key=lambda index: baselines[index].matched)
    for index in order:
        baseline = baselines[index]
        like: Measurements | int | None = n_segments
        if baseline.matched and n_segments is None:
            like = next(
                (
                    measurements[other]
                    for other in order
                    if baselines[other].method == "nave" and baselines[other].n_clusters == baseline.n_clusters
                ),
                None,
            )
            if like is None:
                raise UsageError(f"{baseline.method} needs a number of segments, or NAVE beside it to take it from")
        title = baseline.name + (f" {baseline.n_clusters}" if baseline.n_clusters else "")
        measurements[index] = measure_images(
            task, baseline, images, like=like, fresh=fresh, cache_dir=cache_dir, label=title, progress=progress
        )
    return [measurements[index] for index in range(len(baselines))]


def find_counterpart(
    baselines: Sequence[Baseline], measurements: Sequence[Measurements], index: int
) -> Measurements | None:
    """Find what a row's difference is to: NAVE with as many clusters, or the first row.

    Args:
        baselines: The methods.
        measurements: Theirs, in the same order.
        index: The row's.

    Returns:
        The other row's measurements; None where that is the row itself.
    """
    same = [other for other, baseline in enumerate(baselines) if baseline.method == "nave"]
    same = [other for other in same if baselines[index].n_clusters in (None, baselines[other].n_clusters)]
    first = same[0] if same else 0
    return None if first == index else measurements[first]


def list_baselines(
    nave: Baseline,
    methods: Sequence[str],
    n_clusters: Sequence[int],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Baseline]:
    """Make the baselines of a list of methods and numbers of clusters, NAVE first and the random control among them.

    Args:
        nave: NAVE with its encoder and settings, which the others share.
        methods: Their names. Methods that take no number of clusters come once.
        n_clusters: The numbers of clusters.
        options: Further settings of other methods, by their names in ``discovery.METHODS``.

    Returns:
        The baselines.
    """
    options = options or {}
    names = list(dict.fromkeys(["nave", *methods, CONTROL]))
    several = [name for name in names if name == "nave" or name in MATCHED]
    single = [name for name in names if name not in several]
    baselines = [
        replace(nave, n_clusters=k)
        if name == "nave"
        else derive_baseline(nave, name, n_clusters=k, **options.get(name, {}))
        for name in several
        for k in n_clusters
    ]
    return baselines + [derive_baseline(nave, name, **options.get(get_base_name(name), {})) for name in single]


def derive_baseline(nave: Baseline, name: str, *, n_clusters: int | None = None, **options: Any) -> Baseline:
    """Make another method with the same encoder (or device), size, seed and rules for candidates.

    Args:
        nave: NAVE with its encoder and settings.
        name: The other method.
        n_clusters: The number of clusters of the NAVE whose number of segments it takes.
        **options: Its further settings.

    Returns:
        The baseline.
    """
    encoder = None if get_base_name(name) in ALONE else nave.encoder
    if get_base_name(name) == "sam" and nave.encoder is not None:
        options = {"device": str(nave.encoder.device), **options}
    return replace(nave, method=name, encoder=encoder, n_clusters=n_clusters, options=options)


def make_nave(
    encoder: Encoder | nn.Module | str, settings: EvaluationSettings, *, min_area: int = 0, border: int = 0
) -> Baseline:
    """Make NAVE with an evaluation's settings.

    Args:
        encoder: An encoder, a network or a source string.
        settings: The settings; of several numbers of clusters it gets the first.
        min_area: Segments of at most so many pixels are no candidates.
        border: Pixels along the border that are taken away.

    Returns:
        The baseline.
    """
    options: dict[str, Any] = {"preset": settings.preset, "grouping": settings.grouping}
    options |= {"layers": list(settings.layers)} if settings.layers else {}
    network, k, seed = as_encoder(encoder), settings.numbers[0], settings.random_state
    return Baseline("nave", network, k, options, settings.size, min_area, border, seed)


def record_settings(settings: EvaluationSettings, nave: Baseline) -> dict[str, Any]:
    """Record all that shaped an evaluation's values, for its result document.

    Args:
        settings: The evaluation's settings.
        nave: NAVE, as `make_nave` gives it.

    Returns:
        The settings, with what they come to for NAVE and its encoder.
    """
    numbers = list(settings.numbers)
    return settings.as_dict() | nave.manifest() | {"n_clusters": numbers[0] if len(numbers) == 1 else numbers}
