"""What training adds, step by step: NAVE's Fig. 4 and Table 2 on one network untrained, on the way, and trained.

The paper compares a trained network with an untrained one. Here stand the states between beside them: weights that a
recipe of the zoo kept after some of its epochs (``--keep-at``), or any checkpoints in the order of their training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoscope.encoder import Encoder, load
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation import localization
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation.baselines import BORDER, CONTROL, MIN_AREA, Baseline
from encoscope.evaluation.localization import compute_corloc
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import (
    AnnotatedImages,
    Measurements,
    MeasuringTask,
    compute_difference,
    compute_interval,
    drop_duplicates,
    shorten_dataset,
)
from encoscope.images import LoadedImage, SkippedImage, open_boxed_dataset, read_images
from encoscope.plots import draw_contact_sheet
from encoscope.recipes.training import find_kept_weights
from encoscope.reproduce.nave.figures import RUNS, mean_colours
from encoscope.reproduce.nave.tables import ZOO_SIZE

NAME = "nave-training"
ZOO = "zoo:resnet-caltech101"
RECIPE = "encoscope.recipes.resnet_caltech101"
OPTIONS: Mapping[str, Any] = {
    "checkpoints": "",
    "clusters": "3,5,10",
    "runs": RUNS,
    "photos": 2,
    "size": "model",
    "box_size": ZOO_SIZE,
    "min_area": MIN_AREA,
    "border": BORDER,
}
"""What can be set. checkpoints: folder of a recipe's kept weights. photos, runs: pictured ones, and how many
explanations of each. size: short side of photos in the figure and for the overlap; box_size, min_area, border: for
CorLoc, as in Table 2."""


def run(request: EvaluationRequest) -> Report:
    """A row for each network and number of clusters, with paired differences to the last network and to chance."""
    asked = request.settings(OPTIONS)
    clusters = _numbers(str(asked["clusters"]))
    masked, with_boxes = _data(request)
    models = stages(request, str(asked["checkpoints"]))
    encoders = {name: load(model, **{**request.load, "random_state": request.seed}) for name, model in models.items()}
    boxes = {"size": asked["box_size"], "min_area": asked["min_area"], "border": asked["border"]}
    whole = {"size": asked["size"], "min_area": 0, "border": 0}
    regions = _measured(encoders, clusters, masked, overlap.TASK, whole, request)
    objects = _measured(encoders, clusters, with_boxes, localization.TASK, boxes, request)
    rows = []
    for name in models:
        for k in clusters:
            row: dict[str, Any] = {"network": name, "clusters": k}
            last = (list(models)[-1], k)
            if regions:
                row |= _compared("mIoU", regions, (name, k), last, _miou, request.seed)
                row["photos with masks"] = len(regions[name, k][0])
            if objects:
                row |= _compared("CorLoc", objects, (name, k), last, _corloc, request.seed)
                row["candidates"] = objects[name, k][0].mean("candidates")
                row["photos with boxes"] = len(objects[name, k][0])
            rows.append(row)
    shown = _pictured([example.path for example in masked or with_boxes or ()], asked["photos"])
    colours, cells = mean_colours(models, shown, {**asked, "redrawn": 0}, request)
    cells = _by_clusters(cells, len(models))
    sheet = draw_contact_sheet([cell for cell, _ in cells], [words for _, words in cells], 1 + len(models), cell=200)
    return Report(
        NAME,
        "What training adds, step by step: NAVE's parts and objects",
        rows,
        _notes(models, asked, request),
        {NAME: Image.fromarray(sheet)},
        {"datasets": list(request.datasets), "models": _named(models), "limit": request.limit, **asked}
        | {"checkpoints": Path(str(asked["checkpoints"])).name},
        request.seed,
        drop_duplicates(_skipped(regions) + _skipped(objects)),
        {"figure": colours},
    )


def stages(request: EvaluationRequest, checkpoints: str = "") -> dict[str, str]:
    """Model strings by name, in the order of their training; the last is what the others are compared with.

    As given (``NAME=MODEL`` or a model), else the zoo's ResNet untrained, after each epoch whose weights its recipe
    kept, and trained. Raises MissingError where no weights were kept, UsageError for fewer than two models.
    """
    if request.models:
        named = [text.split("=", 1) if "=" in text else [text, text] for text in request.models]
        found = dict(named)
        if len(found) < 2:
            raise UsageError(f"{NAME} compares networks: give two or more --model, each NAME=MODEL, in their order")
        return found
    from encoscope.recipes.resnet_caltech101 import PLAN

    folder = Path(checkpoints) if checkpoints else PLAN.folder()
    epochs = [epoch for epoch in range(1, PLAN.epochs) if find_kept_weights(folder, epoch).is_file()]
    if not epochs:
        raise MissingError(
            f"no weights on the way in {folder}: python -m {RECIPE} --keep-at 1,3,10 --stop-epoch 10 --state FOLDER "
            "trains them, then --set checkpoints=FOLDER; or name networks with --model"
        )
    on_the_way = {f"epoch {epoch} of {PLAN.epochs}": f"{ZOO}@{find_kept_weights(folder, epoch)}" for epoch in epochs}
    return {"untrained": f"{ZOO}@untrained", **on_the_way, "trained": ZOO}


_Found = Mapping[tuple[str, int], tuple[Measurements, Measurements]]


def _measured(
    encoders: Mapping[str, Encoder],
    clusters: Sequence[int],
    images: AnnotatedImages | None,
    task: MeasuringTask,
    settings: Mapping[str, Any],
    request: EvaluationRequest,
) -> _Found:
    """For each network and K: NAVE, and as many random parts, photo by photo. Kept in the cache as it is measured."""
    if images is None:
        return {}
    found = {}
    for name, encoder in encoders.items():
        ours = [Baseline("nave", encoder, k, random_state=request.seed, **settings) for k in clusters]
        random = [Baseline(CONTROL, None, k, random_state=request.seed, **settings) for k in clusters]
        all_of_it = localization.measure_baselines(
            [*ours, *random], images, task, fresh=request.fresh, progress=request.progress
        )
        for place, k in enumerate(clusters):
            found[name, k] = (all_of_it[place], all_of_it[len(clusters) + place])
    return found


def _compared(what: str, found: _Found, place: tuple[str, int], last: tuple[str, int], of: Any, seed: int) -> dict:
    """A measure, and its paired differences to the last network and to random parts."""
    ours, random = found[place]
    return {
        what: compute_interval(of(ours), seed),
        f"{what} - {last[0]}": None if place == last else compute_difference(ours, found[last][0], of, seed),
        f"{what} - random": compute_difference(ours, random, of, seed),
    }


def _miou(found: Measurements) -> np.ndarray:
    return found.array("miou")


def _corloc(found: Measurements) -> np.ndarray:
    return compute_corloc(found, "outer", "outer")


def _data(request: EvaluationRequest) -> tuple[AnnotatedImages | None, AnnotatedImages | None]:
    """The photos with masks and those with boxes, of those named."""
    masked, with_boxes = None, None
    for text in request.datasets:
        if overlap.is_panoptic(text):
            masked = overlap.open_panoptic(text, request.limit)
        else:
            with_boxes = localization.list_boxed_images(open_boxed_dataset(text), request.limit)
    if masked is None and with_boxes is None:
        raise UsageError(f"{NAME} needs --dataset: photos with masks, coco:IMAGES#PANOPTIC.json, with boxes, or both")
    return masked, with_boxes


def _pictured(paths: Sequence[Path], count: int) -> list[LoadedImage]:
    number = min(count, len(paths))
    chosen = [paths[index * len(paths) // number] for index in range(number)]
    return [item for item in read_images(chosen) if isinstance(item, LoadedImage)]


def _by_clusters(cells: Sequence[Any], models: int) -> list[Any]:
    """A row for K = 5 and one for 10, instead of both side by side for each of the models."""
    rows = []
    for start in range(0, len(cells), 1 + 2 * models):
        photo, *found = cells[start : start + 1 + 2 * models]
        rows += [photo, *found[::2], photo, *found[1::2]]
    return rows


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 2:
        raise UsageError(f"clusters are whole numbers from 2 on, such as 3,5,10, not {text!r}")
    return found


def _named(models: Mapping[str, str]) -> dict[str, str]:
    """The models with the names of their files, without the folders."""
    found = {}
    for name, model in models.items():
        text, at, file = model.rpartition("@")
        found[name] = f"{text}@{Path(file).name}" if at else model
    return found


def _skipped(found: _Found) -> list[SkippedImage]:
    return [item for both in found.values() for one in both for item in one.skipped]


def _notes(models: Mapping[str, str], asked: Mapping[str, Any], request: EvaluationRequest) -> list[str]:
    notes = [
        "mIoU: with the photo's categories, each part named by its majority with the photo's own mask at hand, an "
        "oracle, fair only at the same number of clusters. CorLoc: share of photos in which the part chosen with the "
        "true boxes at hand, another oracle, has IoU > 0.5 with one of them. [95 % bootstrap interval over photos]",
        f"Differences are paired, on the same photos: to the last network, {list(models)[-1]}, and to as many random "
        "parts, photo by photo.",
        f"Picture: every pixel the mean colour of its part, over {asked['runs']} explanations, K = 5 and 10 (Fig. 4); "
        "figure: mean adjusted Rand index between these explanations.",
        f"Photos: {', '.join(map(shorten_dataset, request.datasets))}.",
    ]
    if not request.models:
        notes.append(
            f"{ZOO} at epochs of its recipe: the moving average of the weights, as it ships. A stand-in for the "
            "paper's networks."
        )
    return notes
