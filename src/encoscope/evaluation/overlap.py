"""Do parts follow the things in a photo? Agreement with COCO's panoptic masks, beside controls.

Parts have no names, so each is given the category it shares most pixels with, with the photo's own mask at hand: an
oracle, fair only as a comparison at the same number of parts. One clustering of all photos together (``jointly``) is
named once for all of them, which is the usual unsupervised score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from encoscope.encoder import Encoder, untrained_copy
from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import beside, measure
from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import AnnotatedImage, Examples, Task, difference, short, unique
from encoscope.images import LoadedImage, SkippedImage, read_images
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
    "miou: mean IoU with the photo's categories, each part named by its majority; hungarian: one part a category. Both "
    "name parts with the photo's own mask at hand (an oracle). ari, nmi: agreement of the two partitions; foreground "
    "ari: over countable things only; boundary f, recall: ends within 2 pixels; undersegmentation: lower is better.",
    "slic, felzenszwalb, random and grid have as many parts as NAVE has clusters. untrained: the same network without "
    "training. [95 % bootstrap interval over photos]; difference: of the mIoU to NAVE with as many clusters.",
)
UNTRAINED = "nave, untrained"


@dataclass(frozen=True)
class Masks:
    """Photos with panoptic masks, read again at every pass, one at a time.

    Each example's truth is ``[3, height, width]``: category, segment, and number of a countable thing (0 for the rest);
    -1 where nothing is annotated.
    """

    images: Path
    annotations: Path
    limit: int | None = None

    def __len__(self) -> int:
        count = len(json.loads(self.annotations.read_text(encoding="utf-8"))["annotations"])
        return count if self.limit is None else min(count, self.limit)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        readers = (read_panoptic(self.images, self.annotations, kind) for kind in ("category", "segment"))
        for whole, parts in islice(zip(*readers, strict=True), self.limit):
            things = np.where(np.isin(parts.labels, list(parts.things)), parts.labels + 1, 0)
            things[parts.labels == VOID] = VOID
            yield AnnotatedImage(whole.path, np.stack([whole.labels, parts.labels, things]))


def masks(text: str, limit: int | None = None) -> Masks:
    """The photos of ``coco:IMAGES#PANOPTIC.json``. UsageError for another string, MissingError for files not there."""
    name, _, rest = text.partition(":")
    images, mark, annotations = rest.rpartition("#")
    if name != "coco" or not mark or not images:
        raise UsageError(f"{text!r} has no masks: name photos with panoptic masks, coco:IMAGES#PANOPTIC.json")
    found = Masks(Path(images), Path(annotations), limit)
    if not found.images.is_dir():
        raise MissingError(f"no folder of COCO images at {images}; they are had at https://cocodataset.org")
    next(iter(found), None)  # what is wrong with the files is said now
    return found


def has_masks(text: str) -> bool:
    """Whether a dataset string names panoptic annotations."""
    file = Path(text.rpartition("#")[2])
    if not text.startswith("coco:") or not file.is_file():
        return False
    try:
        return any("segments_info" in entry for entry in json.loads(file.read_text(encoding="utf-8"))["annotations"])
    except (ValueError, KeyError, TypeError):
        return False


def look(contender: Baseline, photo: LoadedImage, truth: np.ndarray, parts: int | None) -> Mapping[str, Any]:
    """All measures of one photo; NaN where one has no meaning. ImageError for a mask of another size."""
    found = contender(photo, parts)
    category, segment, thing = (plane.astype(np.int64) for plane in truth)
    if found.labels.shape != category.shape:
        raise ImageError(f"{photo.path}: the mask has {category.shape} pixels, the photo {found.labels.shape}")
    ends = boundary_score(found.labels, segment, void=VOID)
    return {
        "parts": found.count,
        "miou": image_miou(found.labels, category, "many-to-one", void=VOID),
        "hungarian": image_miou(found.labels, category, "hungarian", void=VOID),
        "ari": ari(found.labels, category, void=VOID),
        "nmi": nmi(found.labels, category, void=VOID),
        "foreground ari": foreground_ari(found.labels, thing, void=VOID),
        "boundary f": ends.f,
        "boundary recall": ends.recall,
        "undersegmentation": undersegmentation_error(found.labels, segment, void=VOID),
    }


TASK = Task("overlap", look, parts="parts")


def evaluate(
    contenders: Sequence[Baseline],
    images: Examples,
    dataset: str,
    *,
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """A row for each contender, and for NAVE on the untrained network where one can be made."""
    everyone, names, notes = with_untrained(contenders, seed)
    found = measure(everyone, images, TASK, fresh=fresh, progress=progress)
    rows = []
    for index, (contender, name, measured) in enumerate(zip(everyone, names, found, strict=True)):
        row: dict[str, Any] = {"method": name, "clusters": contender.clusters}
        row |= {measure: measured.interval(measure, seed) for measure in MEASURES}
        row["difference"] = None
        other = beside(everyone, found, index)
        if other is not None:
            row["difference"] = difference(measured, other, lambda one: one.array("miou"), seed)
        rows.append(row | {"parts": measured.mean("parts"), "images": len(measured)})
    skipped = unique(item for one in found for item in one.skipped)
    title = f"Do parts follow the things in a photo? {short(dataset)}"
    return Report("overlap", title, rows, [*NOTES, *notes], seed=seed, skipped=skipped)


def with_untrained(contenders: Sequence[Baseline], seed: int) -> tuple[list[Baseline], list[str], list[str]]:
    """The contenders with NAVE's untrained twins after them, their names, and a note where there can be no twin."""
    everyone, names = list(contenders), [one.name for one in contenders]
    ours = [one for one in contenders if one.method == "nave" and one.encoder is not None]
    if not ours or ours[0].encoder is None or ours[0].encoder.source.endswith("@untrained"):
        return everyone, names, []
    try:
        twin = untrained_copy(ours[0].encoder, random_state=seed)
    except UsageError as error:
        return everyone, names, [str(error)]
    everyone += [replace(one, encoder=twin) for one in ours]
    return everyone, names + [UNTRAINED] * len(ours), []


def jointly(
    encoder: Encoder,
    images: Masks,
    clusters: Sequence[int],
    *,
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """One clustering of all photos, its clusters named once: mIoU over all categories, beside the untrained twin.

    Intervals are over photos, names given anew in each resample.
    """
    everyone, names, notes = with_untrained([Baseline("nave", encoder)], seed)
    paths, present = [], set()
    for example in images:
        paths.append(str(example.path))
        present |= set(np.unique(example.truth[0]).tolist())
    categories = np.array(sorted(present - {VOID}))
    rows, skipped = [], []
    for contender, name in zip(everyone, names, strict=True):
        assert contender.encoder is not None
        for k in clusters:
            nave = Nave(contender.encoder, n_clusters=k, random_state=seed, progress=progress, **(options or {}))
            nave.fit(paths, fresh=fresh)
            stream = nave.predict_stream(read_images(paths, channels=contender.encoder.preprocess.channels))
            tables = []
            for example, result in zip(images, stream, strict=True):
                if isinstance(result, SkippedImage):
                    skipped.append(result)
                    continue
                tables.append(_table(result[1].labels, example.truth[0], categories, k))
            counted = np.stack(tables)
            row: dict[str, Any] = {"method": f"{name}, joint", "clusters": k}
            row |= {
                "miou": _over_dataset(counted, assign_many_to_one, seed),
                "hungarian": _over_dataset(counted, assign_hungarian, seed),
                "images": len(tables),
            }
            rows.append(row)
    notes = [
        "One clustering of all photos, each cluster named once, by majority (miou) or one to one (hungarian): mean IoU "
        f"over {len(categories)} categories. untrained: the same network without training.",
        *notes,
    ]
    title = "Do clusters of all photos together follow categories?"
    return Report("overlap", title, rows, notes, seed=seed, skipped=unique(skipped))


def _table(labels: np.ndarray, truth: np.ndarray, categories: np.ndarray, k: int) -> Int64[np.ndarray, "k categories"]:
    dense = np.where(truth == VOID, VOID, np.searchsorted(categories, truth))
    return count_overlap(labels.astype(np.int64), dense, sizes=(k, len(categories)), void=VOID)


def _over_dataset(tables: np.ndarray, assign: Any, seed: int) -> Interval:
    def miou(drawn: np.ndarray) -> float:
        table = tables[drawn.astype(np.int64)].sum(0)
        return float(np.nanmean(compute_ious(table, assign(table))))

    return bootstrap(np.arange(len(tables), dtype=np.float64), miou, resamples=200, seed=seed)


def entry(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """A row for a result document: measures as numbers, with their intervals beside them."""
    intervals = {name: value for name, value in row.items() if isinstance(value, Interval) and name != "difference"}
    change = row.get("difference")
    return {
        "dataset": dataset,
        **{name: value for name, value in row.items() if name not in intervals and name != "difference"},
        "measures": {name: value.value for name, value in intervals.items()},
        "intervals": {name: [value.low, value.high] for name, value in intervals.items()},
        "difference": None if change is None else {"value": change.value, "interval": [change.low, change.high]},
    }
