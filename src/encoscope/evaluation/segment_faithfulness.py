"""Do segments say something true about the network? Deletion and insertion, variance explained, a linear probe.

Deletion and insertion with segments in place of pixels: segments are taken away, or put back, one after the other, and
the network's answer is followed over the share of pixels gone. The order is by occlusion: how much the answer drops
when that segment alone is taken away. The answer is the probability of the class that the whole image gets; without a
classification head, the cosine between the pooled features and the whole image's. What stands in for a segment is the
image's mean color in deletion and a blurred copy in insertion, as in the paper ("standard"), or one of them in both.

Source: Petsiuk et al. 2018, RISE, section 4 (deletion, insertion); Zeiler and Fergus 2014 (occlusion).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import RidgeClassifierCV
from torch import Tensor, nn
from torch.nn import functional

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, identify_encoder
from encoscope.errors import UsageError, explain_calls
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import (
    find_counterpart,
    list_baselines,
    make_nave,
    measure_baselines,
    record_settings,
)
from encoscope.evaluation.mask_overlap import add_untrained, make_entry, open_images
from encoscope.evaluation.report import Report
from encoscope.evaluation.result import Evaluation
from encoscope.evaluation.runner import (
    AnnotatedImages,
    Measurements,
    MeasuringTask,
    compute_difference,
    compute_interval,
    drop_duplicates,
    shorten_dataset,
)
from encoscope.evaluation.settings import FILLS, FaithfulnessSettings
from encoscope.images import Geometry, LoadedImage
from encoscope.images.panoptic import VOID
from encoscope.metrics import curve_auc, explained_variance
from encoscope.nave.layers import choose_layers
from encoscope.nave.settings import Layers, Size
from encoscope.progress import Progress

MEASURES = ("deletion", "insertion", "variance", "probe")
BLUR = 1 / 20
"""Standard deviation of the blur over the short side of the network's input."""

FOLDS = 5
NOTES = (
    "deletion (lower is better), insertion (higher): area under the network's answer while segments are taken away or "
    "put back, in the order of what each one's removal alone does. The answer is the probability of the class of the "
    "whole image (without a head, the cosine of features with the whole image's). variance: share of the last layer's "
    "variance that lies between segments. probe: share of pixels that a linear classifier names rightly from a "
    "segment's mean features alone, on images it was not fitted to.",
    "slic, felzenszwalb, random and grid have as many segments as NAVE has clusters; untrained: segments of the same "
    "network without training, judged by the trained one. difference: of the deletion to NAVE with as many clusters.",
)

AnswerScore: TypeAlias = Callable[[Float[Tensor, "batch channels height width"]], Float[np.ndarray, " batch"]]


@explain_calls
def faithfulness(
    encoder: Encoder | nn.Module | str,
    dataset: str,
    *,
    preset: str | None = None,
    n_clusters: int | Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    fill: str | None = None,
    limit: int | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    size: Size | None = None,
    n_points: int | None = None,
    random_state: int = FaithfulnessSettings.random_state,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Evaluation:
    """Measure whether segments say something true about the network: deletion, insertion, variance, a linear probe.

    Segments are taken away, or put back, in the order of what each one's removal alone does to the network's answer.
    Random segments of the same number and the untrained network's stand beside them. An interrupted run resumes.
    `FaithfulnessSettings` says what each setting means and what its default is.

    Args:
        encoder: An encoder, a network or a source string.
        dataset: A folder, a dataset, or coco:IMAGES#PANOPTIC.json, whose masks the probe needs.
        preset: NAVE's preset: "default", "paper" or "authors".
        n_clusters: NAVE's K, one or several.
        methods: As for ``corloc``.
        fill: What stands in for a segment: "standard" (mean color in deletion, blur in insertion), "mean", "blur".
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels.
        layers: NAVE's layers; by default the model's.
        grouping: How NAVE groups features: "kmeans", "ward", "pca".
        size: Short side that the network sees: "auto" (see ``segment``), "native", "model", or pixels.
        n_points: Of sam: prompts on a side of its grid over the image.
        random_state: The seed.
        fresh: Start over instead of resuming an interrupted run.
        cache_dir: The folder for what was measured; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table, to print, save or plot.

    Raises:
        UsageError: settings that cannot be.
        MissingError: files that are absent.

    Source: Petsiuk et al. 2018, RISE, section 4.
    """
    settings = FaithfulnessSettings.from_preset(
        preset,
        n_clusters=n_clusters,
        methods=methods,
        fill=fill,
        limit=limit,
        layers=layers,
        grouping=grouping,
        size=size,
        n_points=n_points,
        random_state=random_state,
    )
    images = open_images(dataset, limit, random_state)
    nave = make_nave(encoder, settings)
    baselines = list_baselines(nave, settings.methods, settings.numbers, {"sam": {"points": settings.n_points}})
    report = evaluate_faithfulness(
        baselines,
        images,
        dataset,
        nave.network,
        fill=settings.fill,
        fresh=fresh,
        cache_dir=cache_dir,
        random_state=random_state,
        progress=progress,
    )
    entries = [make_entry(row, dataset) for row in report.rows]
    return Evaluation.of(report, entries, nave.network, record_settings(settings, nave))


def evaluate_faithfulness(
    baselines: Sequence[Baseline],
    images: AnnotatedImages,
    dataset: str,
    encoder: Encoder,
    *,
    fill: str = FaithfulnessSettings.fill,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
) -> Report:
    """Make the table of ``faithfulness``: a row for each baseline, and for NAVE on the untrained network.

    Args:
        baselines: The methods.
        images: The images; the probe is measured where they come with masks of categories.
        dataset: Their name, for the title.
        encoder: The network that judges.
        fill: What stands in for a segment.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        random_state: Of the bootstrap, the probe's folds and the untrained copy.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table.

    Raises:
        UsageError: an unknown fill.
    """
    if fill not in FILLS:
        raise UsageError(f"fill is {', '.join(FILLS)}, not {fill!r}")
    layer = choose_layers(encoder)[-1]

    def measure(
        baseline: Baseline, image: LoadedImage, annotation: np.ndarray, n_segments: int | None
    ) -> Mapping[str, Any]:
        labels = baseline(image, n_segments).labels
        deletion, insertion = compute_curves(encoder, image, labels, fill)
        values, cells = read_cells(encoder, image, labels, layer)
        measures = {"deletion": deletion, "insertion": insertion, "variance": explained_variance(values, cells)}
        named = _name_segments(values, cells, labels, annotation) if annotation.size else {}
        return measures | {"segments": len(np.unique(labels))} | named

    settings = {"judge": identify_encoder(encoder), "fill": fill, "layer": layer, "blur": BLUR}
    task = MeasuringTask("faithfulness", measure, "segments", settings, encoder)
    everyone, names, notes = add_untrained(baselines, random_state)
    measurements = measure_baselines(everyone, images, task, fresh=fresh, cache_dir=cache_dir, progress=progress)
    rows = []
    for index, (baseline, name, measured) in enumerate(zip(everyone, names, measurements, strict=True)):
        row: dict[str, Any] = {"method": name, "clusters": baseline.n_clusters}
        row |= {value: measured.interval(value, random_state) for value in MEASURES[:3]}
        if "means" in measured.rows[0]:
            row["probe"] = compute_interval(probe_segments(measured, random_state), random_state)
        row["difference"] = None
        other = find_counterpart(everyone, measurements, index)
        if other is not None:
            row["difference"] = compute_difference(
                measured, other, lambda values: values.array("deletion"), random_state
            )
        rows.append(row | {"segments": measured.mean("segments"), "images": len(measured)})
    skipped = drop_duplicates(item for measured in measurements for item in measured.skipped)
    title = f"Do segments say something true about the network? {shorten_dataset(dataset)}"
    return Report(
        "faithfulness", title, rows, [*NOTES, *notes], {}, {"fill": fill, "layer": layer}, random_state, skipped
    )


def compute_curves(
    encoder: Encoder,
    image: LoadedImage,
    labels: Int64[np.ndarray, "height width"],
    fill: str = FaithfulnessSettings.fill,
) -> tuple[float, float]:
    """Compute the areas under the deletion and the insertion curve of one image's segments.

    Args:
        encoder: The network that judges.
        image: The image.
        labels: ``[height, width]``, the segment of each of its pixels.
        fill: What stands in for a segment.

    Returns:
        (deletion, insertion)

    Source: Petsiuk et al. 2018, RISE, section 4.
    """
    batch = encoder.prepare(image, geometry="model")
    whole = batch.pixels
    segments = torch.from_numpy(_map_to_canvas(labels, batch.geometries[0]))
    present, sizes = torch.unique(segments, return_counts=True)
    masks = (segments == present[:, None, None]).unsqueeze(1)  # [segments, 1, height, width]
    gone, start = (
        _fill_image(whole, "mean" if fill == "standard" else fill),
        _fill_image(whole, "blur" if fill == "standard" else fill),
    )
    score = _make_score(encoder, whole)
    full = float(score(whole)[0])
    drops = full - score(torch.where(masks, gone, whole))
    order = np.argsort(-drops, kind="stable")
    taken = torch.cumsum(masks[order].int(), 0) > 0
    fractions = np.concatenate([[0.0], np.cumsum(sizes.numpy()[order]) / segments.numel()])
    deleted = np.concatenate([[full], score(torch.where(taken, gone, whole))])
    inserted = np.concatenate([score(start), score(torch.where(taken, whole, start))])
    return curve_auc(deleted, fractions), curve_auc(inserted, fractions)


def read_cells(
    encoder: Encoder, image: LoadedImage, labels: Int64[np.ndarray, "height width"], layer: str
) -> tuple[Float[np.ndarray, "cells channels"], Int64[np.ndarray, " cells"]]:
    """Read a layer's vectors at the cells that show image.

    Args:
        encoder: The network.
        image: The image.
        labels: ``[height, width]``, the segment of each of its pixels.
        layer: The layer's name.

    Returns:
        ``[cells, channels]``, and ``[cells]``, the segment at the middle of each cell.
    """
    batch = encoder.prepare(image, geometry="whole")
    maps = encoder.activations(batch, layer)[layer].maps[0].double().cpu().numpy()
    grid, geometry = (maps.shape[1], maps.shape[2]), batch.geometries[0]
    rows, columns = geometry.valid_cells(grid)
    segments = _map_to_canvas(labels, geometry, grid)[:rows, :columns]
    return maps[:, :rows, :columns].reshape(len(maps), -1).T, segments.ravel()


def probe_segments(measured: Measurements, random_state: int = RANDOM_STATE) -> Float[np.ndarray, " images"]:
    """Compute the share of each image's annotated pixels that a linear classifier names rightly from its segments.

    The classifier sees the mean features of a segment alone: ridge regression onto one output a category, its strength
    by generalized cross-validation, segments weighted by their pixels; fitted on the images of the other folds.

    Args:
        measured: Measurements of ``evaluate_faithfulness``.
        random_state: Of the folds.

    Returns:
        ``[images]``, NaN for an image without annotated pixels.
    """
    rng = np.random.default_rng(random_state)
    folds = rng.permutation(len(measured)) % min(FOLDS, len(measured))
    means = [np.array(row["means"], dtype=np.float64) for row in measured.rows]
    counts = [_count_pixels(row["named"], len(rows)) for row, rows in zip(measured.rows, means, strict=True)]
    accuracy = np.full(len(measured), np.nan)
    for fold in range(max(1, folds.max() + 1)):
        train = [i for i in range(len(measured)) if folds[i] != fold and counts[i]]
        if not train:
            continue
        x = np.concatenate([means[i] for i in train])
        majority = [max(count, key=lambda name: count[name]) if count else VOID for i in train for count in counts[i]]
        weight = np.array([sum(count.values()) for i in train for count in counts[i]], dtype=np.float64)
        kept = weight > 0
        x, y, weight = x[kept], np.array(majority)[kept], weight[kept]
        center, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
        if len(np.unique(y)) > 1:
            model = RidgeClassifierCV(alphas=np.logspace(0, 5, 6)).fit((x - center) / scale, y, weight / weight.mean())
        else:
            model = None
        for i in np.flatnonzero(folds == fold):
            total = sum(sum(count.values()) for count in counts[i])
            if total:
                predicted = [y[0]] * len(means[i]) if model is None else model.predict((means[i] - center) / scale)
                right = sum(count.get(int(name), 0) for count, name in zip(counts[i], predicted, strict=True))
                accuracy[i] = right / total
    return accuracy


def _name_segments(values: np.ndarray, cells: np.ndarray, labels: np.ndarray, annotation: np.ndarray) -> dict[str, Any]:
    """Mean features of each segment that has a cell, and how many pixels of which category it holds."""
    category = annotation[0]
    present = np.unique(cells)
    means = [values[cells == segment].mean(0).round(5).tolist() for segment in present]
    named = []
    for index, segment in enumerate(present):
        inside = category[(labels == segment) & (category != VOID)]
        names, counts = np.unique(inside, return_counts=True)
        named += [[index, int(name), int(count)] for name, count in zip(names, counts, strict=True)]
    return {"means": means, "named": named}


def _count_pixels(named: Sequence[Sequence[int]], n_segments: int) -> list[dict[int, int]]:
    counts: list[dict[int, int]] = [{} for _ in range(n_segments)]
    for index, name, count in named:
        counts[index][name] = count
    return counts


def _make_score(encoder: Encoder, whole: Tensor) -> AnswerScore:
    """How much a batch is still answered as the whole image is."""
    if encoder.outputs is not None:
        answer = int(encoder.logits(whole).argmax())

        def probability(pixels: Tensor) -> np.ndarray:
            return encoder.logits(pixels).double().softmax(1)[:, answer].cpu().numpy()

        return probability
    reference = encoder.features(whole).double()

    def cosine(pixels: Tensor) -> np.ndarray:
        return functional.cosine_similarity(encoder.features(pixels).double(), reference).cpu().numpy()

    return cosine


def _fill_image(whole: Tensor, fill: str) -> Tensor:
    """The image's mean color everywhere, or the image blurred."""
    if fill == "mean":
        return whole.mean((2, 3), keepdim=True).expand_as(whole)
    sigma = BLUR * min(whole.shape[2:])
    return torch.from_numpy(gaussian_filter(whole.numpy(), (0, 0, sigma, sigma), mode="nearest"))


def _map_to_canvas(
    labels: Int64[np.ndarray, "height width"], geometry: Geometry, grid: tuple[int, int] | None = None
) -> Int64[np.ndarray, "rows columns"]:
    """The label of the original image at the middle of every cell of the network's canvas; at its edge for padding."""
    axes = []
    for axis, cells in enumerate(grid or geometry.canvas):
        middle = (np.arange(cells) + 0.5) * geometry.canvas[axis] / cells + geometry.offset[axis]
        index = np.floor(middle * geometry.original[axis] / geometry.resized[axis]).astype(np.int64)
        axes.append(np.clip(index, 0, geometry.original[axis] - 1))
    return labels[np.ix_(*axes)]
