"""Do segments follow the things in an image? Agreement with COCO's panoptic masks, beside controls.

Segments have no names, so each is given the category that it shares most pixels with, with the image's own mask at
hand: an oracle, fair only as a comparison at the same number of segments. One clustering of all images together
(``evaluate_joint_overlap``) is named once for all of them, which is the usual unsupervised score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import nn

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import ImageError, MissingError, UsageError, explain_calls
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import (
    find_counterpart,
    list_baselines,
    make_nave,
    measure_baselines,
    record_settings,
)
from encoscope.evaluation.report import Report
from encoscope.evaluation.result import Evaluation
from encoscope.evaluation.runner import (
    AnnotatedImage,
    AnnotatedImages,
    MeasuringTask,
    compute_difference,
    drop_duplicates,
    shorten_dataset,
)
from encoscope.evaluation.settings import OverlapSettings
from encoscope.images import LoadedImage, SkippedImage, list_images, read_images, sample_images
from encoscope.images.panoptic import VOID, read_panoptic
from encoscope.metrics import (
    Interval,
    ari,
    assign_hungarian,
    assign_many_to_one,
    bootstrap,
    boundary_score,
    compute_ious,
    count_overlap,
    foreground_ari,
    image_miou,
    nmi,
    undersegmentation_error,
)
from encoscope.nave import Nave
from encoscope.nave.settings import Layers, Size
from encoscope.progress import Progress

MEASURES = (
    "miou",
    "hungarian",
    "ari",
    "nmi",
    "foreground ari",
    "boundary f",
    "boundary recall",
    "undersegmentation",
)
NOTES = (
    "miou: mean IoU with the image's categories, each segment named by its majority; hungarian: one segment a "
    "category. Both name segments with the image's own mask at hand (an oracle). ari, nmi: agreement of the two "
    "partitions; foreground ari: over countable things only; boundary f, recall: ends within 2 pixels; "
    "undersegmentation: lower is better.",
    "slic, felzenszwalb, random and grid have as many segments as NAVE has clusters. untrained: the same network "
    "without training. [95 % bootstrap interval over images]; difference: of the mIoU to NAVE with as many clusters.",
)
UNTRAINED = "nave, untrained"


@explain_calls
def overlap(
    encoder: Encoder | nn.Module | str,
    dataset: str,
    *,
    preset: str | None = None,
    n_clusters: int | Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    joint: bool | None = None,
    limit: int | None = None,
    layers: Layers | None = None,
    grouping: str | None = None,
    size: Size | None = None,
    n_points: int | None = None,
    random_state: int = OverlapSettings.random_state,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Evaluation:
    """Measure whether segments follow the things in images: mIoU, ARI, NMI and boundaries against panoptic masks.

    Segments are named with each image's own mask at hand (an oracle), so random segments and the untrained network
    stand beside them. An interrupted run resumes. `OverlapSettings` says what each setting means and what its default
    is.

    Args:
        encoder: An encoder, a network or a source string.
        dataset: Images with panoptic masks: coco:IMAGES#PANOPTIC.json.
        preset: NAVE's preset: "default", "paper" or "authors".
        n_clusters: NAVE's K, one or several.
        methods: As for ``corloc``.
        joint: One clustering of all images, whose clusters are named once for all of them; with NAVE alone, by k-means
            or Ward.
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
        UsageError: a dataset without masks, or settings that cannot be.
        MissingError: files that are absent.
    """
    settings = OverlapSettings.from_preset(
        preset,
        n_clusters=n_clusters,
        methods=methods,
        joint=joint,
        limit=limit,
        layers=layers,
        grouping=grouping,
        size=size,
        n_points=n_points,
        random_state=random_state,
    )
    images = open_panoptic(dataset, limit, random_state)
    nave = make_nave(encoder, settings)
    if settings.joint:
        options = {k: v for k, v in nave.segment_options().items() if k not in ("n_clusters", "random_state")}
        report = evaluate_joint_overlap(
            nave.network,
            images,
            settings.numbers,
            options=options,
            fresh=fresh,
            cache_dir=cache_dir,
            random_state=random_state,
            progress=progress,
        )
    else:
        baselines = list_baselines(nave, settings.methods, settings.numbers, {"sam": {"points": settings.n_points}})
        report = evaluate_overlap(
            baselines, images, dataset, fresh=fresh, cache_dir=cache_dir, random_state=random_state, progress=progress
        )
    entries = [make_entry(row, dataset) for row in report.rows]
    return Evaluation.of(report, entries, nave.network, record_settings(settings, nave))


@dataclass(frozen=True)
class PanopticImages:
    """Images with panoptic masks, read again at every pass, one at a time.

    Each image's annotation is ``[3, height, width]``: category, segment, and number of a countable thing (0 for the
    rest); -1 where nothing is annotated.

    Attributes:
        images: The folder of images.
        annotations: The JSON file.
        limit: At most so many images, drawn with the seed.
        random_state: The seed.
    """

    images: Path
    annotations: Path
    limit: int | None = None
    random_state: int = RANDOM_STATE

    def __len__(self) -> int:
        return len(self._draw())

    def _draw(self) -> list[int]:
        count = len(json.loads(self.annotations.read_text(encoding="utf-8"))["annotations"])
        return sample_images([None] * count, self.limit, self.random_state)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        readers = (read_panoptic(self.images, self.annotations, kind) for kind in ("category", "segment"))
        drawn = set(self._draw())
        last = max(drawn, default=-1) + 1  # what comes later need not be read
        for index, (categories, segments) in enumerate(islice(zip(*readers, strict=True), last)):
            if index not in drawn:
                continue
            things = np.where(np.isin(segments.labels, list(segments.things)), segments.labels + 1, 0)
            things[segments.labels == VOID] = VOID
            yield AnnotatedImage(categories.path, np.stack([categories.labels, segments.labels, things]))


def open_panoptic(text: str, limit: int | None = None, random_state: int = RANDOM_STATE) -> PanopticImages:
    """Open the images of ``coco:IMAGES#PANOPTIC.json``.

    Args:
        text: The dataset string.
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels.
        random_state: The seed of the draw.

    Returns:
        The images with their masks.

    Raises:
        UsageError: another string.
        MissingError: files that are absent.
    """
    name, _, rest = text.partition(":")
    folder, separator, annotations = rest.rpartition("#")
    if name != "coco" or not separator or not folder:
        raise UsageError(f"{text!r} has no masks: name images with panoptic masks, coco:IMAGES#PANOPTIC.json")
    images = PanopticImages(Path(folder), Path(annotations), limit, random_state)
    if not images.images.is_dir():
        raise MissingError(f"no folder of COCO images at {folder}; they are had at https://cocodataset.org")
    next(iter(images), None)  # what is wrong with the files is said now
    return images


def is_panoptic(text: str) -> bool:
    """Say whether a dataset string names panoptic annotations.

    Args:
        text: The dataset string.

    Returns:
        Whether it is coco:IMAGES#JSON, and the file holds panoptic masks.
    """
    file = Path(text.rpartition("#")[2])
    if not text.startswith("coco:") or not file.is_file():
        return False
    try:
        return any("segments_info" in entry for entry in json.loads(file.read_text(encoding="utf-8"))["annotations"])
    except (ValueError, KeyError, TypeError):
        return False


def open_images(text: str, limit: int | None = None, random_state: int = RANDOM_STATE) -> AnnotatedImages:
    """Open the images of a dataset or a folder, with masks where it has them.

    Args:
        text: The dataset string or folder.
        limit: At most so many images, drawn with the seed, from every class in proportion where there are labels.
        random_state: The seed of the draw.

    Returns:
        The images.

    Raises:
        MissingError: files that are absent.
    """
    if is_panoptic(text):
        return open_panoptic(text, limit, random_state)
    return [AnnotatedImage(path) for path in list_images(text).sample(limit, random_state).paths]


def measure_overlap(
    baseline: Baseline, image: LoadedImage, annotation: np.ndarray, n_segments: int | None
) -> Mapping[str, Any]:
    """Measure one image.

    Args:
        baseline: The method.
        image: The image.
        annotation: As ``PanopticImages`` gives it.
        n_segments: For a matched method.

    Returns:
        All measures, NaN where one has no meaning, and the number of segments.

    Raises:
        ImageError: a mask of another size.
    """
    segments = baseline(image, n_segments)
    category, segment, thing = (plane.astype(np.int64) for plane in annotation)
    if segments.labels.shape != category.shape:
        raise ImageError(f"{image.path}: the mask has {category.shape} pixels, the image {segments.labels.shape}")
    ends = boundary_score(segments.labels, segment, void=VOID)
    return {
        "segments": segments.count,
        "miou": image_miou(segments.labels, category, "many-to-one", void=VOID),
        "hungarian": image_miou(segments.labels, category, "hungarian", void=VOID),
        "ari": ari(segments.labels, category, void=VOID),
        "nmi": nmi(segments.labels, category, void=VOID),
        "foreground ari": foreground_ari(segments.labels, thing, void=VOID),
        "boundary f": ends.f,
        "boundary recall": ends.recall,
        "undersegmentation": undersegmentation_error(segments.labels, segment, void=VOID),
    }


TASK = MeasuringTask("overlap", measure_overlap, count="segments")


def evaluate_overlap(
    baselines: Sequence[Baseline],
    images: AnnotatedImages,
    dataset: str,
    *,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
) -> Report:
    """Make the table of ``overlap``: a row for each baseline, and for NAVE on the untrained network where there is one.

    Args:
        baselines: The methods.
        images: Images with panoptic masks.
        dataset: Their name, for the title.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        random_state: Of the bootstrap and the untrained copy.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table.
    """
    everyone, names, notes = add_untrained(baselines, random_state)
    measurements = measure_baselines(everyone, images, TASK, fresh=fresh, cache_dir=cache_dir, progress=progress)
    rows = []
    for index, (baseline, name, measured) in enumerate(zip(everyone, names, measurements, strict=True)):
        row: dict[str, Any] = {"method": name, "clusters": baseline.n_clusters}
        row |= {measure: measured.interval(measure, random_state) for measure in MEASURES}
        row["difference"] = None
        other = find_counterpart(everyone, measurements, index)
        if other is not None:
            row["difference"] = compute_difference(measured, other, lambda values: values.array("miou"), random_state)
        rows.append(row | {"segments": measured.mean("segments"), "images": len(measured)})
    skipped = drop_duplicates(item for measured in measurements for item in measured.skipped)
    title = f"Do segments follow the things in an image? {shorten_dataset(dataset)}"
    return Report("overlap", title, rows, [*NOTES, *notes], seed=random_state, skipped=skipped)


def add_untrained(baselines: Sequence[Baseline], random_state: int) -> tuple[list[Baseline], list[str], list[str]]:
    """Add NAVE on the untrained network to baselines.

    Args:
        baselines: The methods.
        random_state: Of the random weights.

    Returns:
        The baselines with those on the untrained network after them, all their names, and a note where the network has
        no untrained copy.
    """
    everyone, names = list(baselines), [baseline.name for baseline in baselines]
    ours = [baseline for baseline in baselines if baseline.method == "nave"]
    if not ours or ours[0].network.source.endswith("@untrained"):
        return everyone, names, []
    try:
        copy = untrained_copy(ours[0].network, random_state=random_state)
    except UsageError as error:
        return everyone, names, [str(error)]
    everyone += [replace(baseline, encoder=copy) for baseline in ours]
    return everyone, names + [UNTRAINED] * len(ours), []


def evaluate_joint_overlap(
    encoder: Encoder,
    images: PanopticImages,
    n_clusters: Sequence[int],
    *,
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    random_state: int = RANDOM_STATE,
    progress: Progress = None,
) -> Report:
    """Cluster all images together and name the clusters once: mIoU over all categories, beside the untrained network.

    Args:
        encoder: The network.
        images: Images with panoptic masks.
        n_clusters: The numbers of clusters.
        options: Further settings of ``Nave``.
        fresh: Start over.
        cache_dir: The folder for what was measured; None is the user's cache.
        random_state: Of clusters, bootstrap and the untrained copy.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The table. Its intervals are over images, with clusters named again in each resample.
    """
    everyone, names, notes = add_untrained([Baseline("nave", encoder)], random_state)
    paths, present = [], set()
    for example in images:
        paths.append(str(example.path))
        present |= set(np.unique(example.annotation[0]).tolist())
    categories = np.array(sorted(present - {VOID}))
    rows, skipped = [], []
    for baseline, name in zip(everyone, names, strict=True):
        for k in n_clusters:
            nave = Nave(
                baseline.network,
                n_clusters=k,
                random_state=random_state,
                cache_dir=cache_dir,
                progress=progress,
                **(options or {}),
            )
            nave.fit(paths, fresh=fresh)
            stream = nave.predict_stream(read_images(paths, channels=baseline.network.preprocess.image_channels))
            tables = []
            for example, result in zip(images, stream, strict=True):
                if isinstance(result, SkippedImage):
                    skipped.append(result)
                    continue
                tables.append(_count(result[1].labels, example.annotation[0], categories, k))
            counted = np.stack(tables)
            row: dict[str, Any] = {"method": f"{name}, joint", "clusters": k}
            row |= {
                "miou": _bootstrap_miou(counted, assign_many_to_one, random_state),
                "hungarian": _bootstrap_miou(counted, assign_hungarian, random_state),
                "images": len(tables),
            }
            rows.append(row)
    notes = [
        "One clustering of all images, each cluster named once, by majority (miou) or one to one (hungarian): mean IoU "
        f"over {len(categories)} categories. untrained: the same network without training.",
        *notes,
    ]
    title = "Do clusters of all images together follow categories?"
    return Report("overlap", title, rows, notes, seed=random_state, skipped=drop_duplicates(skipped))


def _count(
    labels: np.ndarray, annotation: np.ndarray, categories: np.ndarray, k: int
) -> Int64[np.ndarray, "k categories"]:
    dense = np.where(annotation == VOID, VOID, np.searchsorted(categories, annotation))
    return count_overlap(labels.astype(np.int64), dense, sizes=(k, len(categories)), void=VOID)


def _bootstrap_miou(tables: np.ndarray, assign: Callable[[np.ndarray], np.ndarray], random_state: int) -> Interval:
    def miou(drawn: np.ndarray) -> float:
        table = tables[drawn.astype(np.int64)].sum(0)
        return float(np.nanmean(compute_ious(table, assign(table))))

    return bootstrap(np.arange(len(tables), dtype=np.float64), miou, resamples=200, random_state=random_state)


def make_entry(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Turn a row into an entry of a result document.

    Args:
        row: The row.
        dataset: The dataset.

    Returns:
        The entry: measures are numbers, with their intervals beside them.
    """
    intervals = {name: value for name, value in row.items() if isinstance(value, Interval) and name != "difference"}
    change = row.get("difference")
    return {
        "dataset": dataset,
        **{name: value for name, value in row.items() if name not in intervals and name != "difference"},
        "measures": {name: value.value for name, value in intervals.items()},
        "intervals": {name: [value.low, value.high] for name, value in intervals.items()},
        "difference": None if change is None else {"value": change.value, "interval": [change.low, change.high]},
    }
