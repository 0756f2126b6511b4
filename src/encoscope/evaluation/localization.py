"""NAVE's proxy task (section 4.2): does one of the parts an encoder treats alike hold an object?

The part is chosen with the true boxes at hand, an oracle, so every figure stands beside three others: how many parts
there were to choose from, as many random ones, and a choice made without the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from encoscope.discovery.methods import get_base_name
from encoscope.errors import UsageError
from encoscope.evaluation.baselines import ALONE, CONTROL, MATCHED, Baseline
from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import (
    AnnotatedImage,
    Examples,
    MeasuredExample,
    Task,
    difference,
    interval,
    run,
    short,
    unique,
)
from encoscope.images import BoxedImages, LoadedImage, SkippedImage
from encoscope.metrics import compute_hits, localize
from encoscope.progress import Progress

SELECT, SCORE = ("outer", "inner", "border"), ("outer", "inner")
NOTES = (
    "select: outer and inner choose among all candidates with the true boxes at hand, an oracle and no localisation; "
    "border chooses the candidate that touches the image's border least, without them.",
    "random is the control: as many Voronoi cells of random points as NAVE has candidates, image by image; slic, "
    "felzenszwalb and grid are asked for as many, too.",
    "corloc: share of images whose chosen box has IoU > 0.5 with a true box [95 % bootstrap interval over images]; "
    "difference: to NAVE with as many clusters and the same selection, on the same images.",
)


def look(contender: Baseline, photo: LoadedImage, truth: np.ndarray, parts: int | None) -> Mapping[str, Any]:
    """IoU of the chosen box for every way to choose and to score, NaN without true boxes; and how many candidates."""
    found = contender(photo, parts).candidates
    ious = {
        f"{select} {score}": localize(found, truth, select=select, score=score).iou
        for select, score in product(SELECT, SCORE)
    }
    return {"candidates": len(found), **ious}


TASK = Task("corloc", look)


def examples(found: BoxedImages, limit: int | None = None) -> list[AnnotatedImage]:
    """The photos with the boxes that count (LOST's rules); those without any are left out, as they are there."""
    kept = [(path, found.truth(index)) for index, path in enumerate(found.paths)]
    return [AnnotatedImage(path, truth) for path, truth in kept if len(truth)][:limit]


def corloc_of(measured: MeasuredExample, select: str, score: str) -> np.ndarray:
    """1 for every image whose chosen box finds an object ("larger than 50 %"), 0 for the others."""
    return compute_hits(measured.array(f"{select} {score}"))


def evaluate(
    contenders: Sequence[Baseline],
    datasets: Mapping[str, Sequence[AnnotatedImage]],
    *,
    select: str = "outer",
    score: str = "outer",
    parts: int | None = None,
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """A row for each dataset (named where there are several), contender and way to choose: as asked, and ``border``.

    contenders: those that are matched take the number of candidates of the NAVE contender with their ``clusters``
    among them, or of ``parts``; without either, UsageError.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[SkippedImage] = []
    for name, images in datasets.items():
        found = measure(contenders, images, parts=parts, fresh=fresh, progress=progress)
        left_out += [item for one in found for item in one.skipped]
        for way in dict.fromkeys((select, "border")):
            for index, (contender, measured) in enumerate(zip(contenders, found, strict=True)):
                values = corloc_of(measured, way, score)
                row = {
                    **({"dataset": name} if len(datasets) > 1 else {}),
                    "method": contender.name,
                    "clusters": contender.clusters,
                    "select": way,
                    "score": score,
                    "corloc": interval(values, seed),
                    "images": int((~np.isnan(values)).sum()),
                    "candidates": measured.mean("candidates"),
                    "difference": None,
                }
                other = beside(contenders, found, index)
                if other is not None:
                    row["difference"] = difference(measured, other, lambda one: corloc_of(one, way, score), seed)  # noqa: B023
                rows.append(row)
    title = "Does a part hold an object?" + (f" {short(next(iter(datasets)))}" if len(datasets) == 1 else "")
    return Report("corloc", title, rows, NOTES, seed=seed, skipped=unique(left_out))


def entry(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """A row of ``evaluate`` for a result document: ``corloc`` a number, ``interval`` the ends of its interval."""
    corloc, change = row["corloc"], row["difference"]
    return {
        "dataset": row.get("dataset", dataset),
        **{name: row[name] for name in ("method", "clusters", "select", "score")},
        "corloc": None if corloc is None else corloc.value,
        "interval": None if corloc is None else [corloc.low, corloc.high],
        "images": row["images"],
        "candidates": row["candidates"],
        "difference": None if change is None else {"value": change.value, "interval": [change.low, change.high]},
    }


def measure(
    contenders: Sequence[Baseline],
    images: Examples,
    task: Task = TASK,
    *,
    parts: int | None = None,
    fresh: bool = False,
    progress: Progress = None,
) -> list[MeasuredExample]:
    """Each contender on the same images, NAVE first so that matched contenders can follow it; in the order given."""
    found: dict[int, MeasuredExample] = {}
    order = sorted(range(len(contenders)), key=lambda index: contenders[index].matched)
    for index in order:
        contender = contenders[index]
        like: MeasuredExample | int | None = parts
        if contender.matched and parts is None:
            like = next(
                (
                    found[other]
                    for other in order
                    if contenders[other].method == "nave" and contenders[other].clusters == contender.clusters
                ),
                None,
            )
            if like is None:
                raise UsageError(f"{contender.method} needs a number of parts, or NAVE beside it to take it from")
        title = contender.name + (f" {contender.clusters}" if contender.clusters else "")
        found[index] = run(task, contender, images, like=like, fresh=fresh, label=title, progress=progress)
    return [found[index] for index in range(len(contenders))]


def beside(contenders: Sequence[Baseline], found: Sequence[MeasuredExample], index: int) -> MeasuredExample | None:
    """What a row's difference is to: NAVE with as many clusters, or the first row; None where that is the row."""
    same = [other for other, one in enumerate(contenders) if one.method == "nave" and one.encoder is not None]
    same = [other for other in same if contenders[index].clusters in (None, contenders[other].clusters)]
    first = same[0] if same else 0
    return None if first == index else found[first]


def lineup(
    nave: Baseline,
    methods: Sequence[str],
    clusters: Sequence[int],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Baseline]:
    """The contenders of a list of methods and numbers of clusters, NAVE first and the random control among them.

    nave: the encoder and the settings. options: further settings of other methods, by their names in
    ``discovery.METHODS``. Methods that know no number of clusters come once.
    """
    more = options or {}
    wanted = list(dict.fromkeys(["nave", *methods, CONTROL]))
    several = [name for name in wanted if name == "nave" or name in MATCHED]
    single = [name for name in wanted if name not in several]
    made = [
        replace(nave, clusters=k) if name == "nave" else of(nave, name, clusters=k, **more.get(name, {}))
        for name in several
        for k in clusters
    ]
    return made + [of(nave, name, **more.get(get_base_name(name), {})) for name in single]


def of(nave: Baseline, name: str, *, clusters: int | None = None, **options: Any) -> Baseline:
    """Another method with the same encoder (or device), size, seed and rules for candidates."""
    encoder = None if get_base_name(name) in ALONE else nave.encoder
    if get_base_name(name) == "sam" and nave.encoder is not None:
        options = {"device": str(nave.encoder.device), **options}
    return replace(nave, method=name, encoder=encoder, clusters=clusters, options=options)
