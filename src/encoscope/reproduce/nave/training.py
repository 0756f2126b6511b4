"""What training adds, step by step: NAVE's Fig. 4 and Table 2 on one network untrained, during training, and trained.

The paper compares a trained network with an untrained one. Here the states between stand beside them: weights that a
recipe of the zoo kept after some of its epochs (``--keep-at``), or any checkpoints in the order of their training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.evaluation import localization
from encoscope.evaluation import mask_overlap as overlap
from encoscope.evaluation.baselines import CONTROL, Baseline
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
from encoscope.evaluation.settings import CorlocSettings
from encoscope.images import SkippedImage, open_boxed_dataset
from encoscope.recipes.training import find_kept_weights
from encoscope.reproduce.inputs import load_model, read_spread_images
from encoscope.reproduce.nave.figures import RUNS, draw_mean_colors
from encoscope.reproduce.sheets import Cell, draw_sheet

NAME = "nave-training"
ZOO = "zoo:resnet-caltech101"
RECIPE = "encoscope.recipes.resnet_caltech101"
OPTIONS: Mapping[str, Any] = {
    "checkpoints": "",
    "clusters": "3,5,10",
    "runs": RUNS,
    "images": 2,
    "size": "model",
    "box_size": "auto",
    "min_area": CorlocSettings.min_area,
    "border": CorlocSettings.border,
}
"""What can be set. checkpoints: folder of a recipe's kept weights. images, runs: those of the figure, and how
many explanations of each. size: short side of images in the figure and for the overlap; box_size, min_area, border: for
CorLoc, as in Table 2 ("auto" is the default settings')."""


def run(request: EvaluationRequest) -> Report:
    """Measure each network at each number of clusters, with paired differences to the last network and to chance.

    Args:
        request: the experiment's request.

    Returns:
        The table, with a sheet of mean colors.

    Raises:
        UsageError: without a dataset, for fewer than two models, and for wrong numbers of clusters.

    Source: NAVE, Fig. 4 and Table 2.
    """
    settings = request.settings(OPTIONS)
    clusters = _parse_clusters(str(settings["clusters"]))
    masked, with_boxes = _read_examples(request)
    models = list_stages(request, str(settings["checkpoints"]))
    encoders = {name: load_model(request, model) for name, model in models.items()}
    boxes = {"size": settings["box_size"], "min_area": settings["min_area"], "border": settings["border"]}
    whole = {"size": settings["size"], "min_area": 0, "border": 0}
    regions = _measure(encoders, clusters, masked, overlap.TASK, whole, request)
    objects = _measure(encoders, clusters, with_boxes, localization.TASK, boxes, request)
    rows = []
    for name in models:
        for k in clusters:
            row: dict[str, Any] = {"network": name, "clusters": k}
            last = (list(models)[-1], k)
            if regions:
                row |= _compare("mIoU", regions, (name, k), last, _get_miou, request.seed)
                row["photos with masks"] = len(regions[name, k][0])
            if objects:
                row |= _compare("CorLoc", objects, (name, k), last, _compute_corloc, request.seed)
                row["candidates"] = objects[name, k][0].mean("candidates")
                row["photos with boxes"] = len(objects[name, k][0])
            rows.append(row)
    shown = read_spread_images([example.path for example in masked or with_boxes or ()], settings["images"])
    agreements, cells = draw_mean_colors(models, shown, {**settings, "redrawn": 0}, request)
    sheet = draw_sheet(_order_by_clusters(cells, len(models)), 1 + len(models), cell=200)
    return Report(
        NAME,
        "What training adds, step by step: NAVE's segments and objects",
        rows,
        _notes(models, settings, request),
        {NAME: sheet},
        {"datasets": list(request.datasets), "models": _shorten_paths(models), "limit": request.limit, **settings}
        | {"checkpoints": Path(str(settings["checkpoints"])).name},
        request.seed,
        drop_duplicates(_skipped(regions) + _skipped(objects)),
        {"figure": agreements},
    )


def list_stages(request: EvaluationRequest, checkpoints: str = "") -> dict[str, str]:
    """List model strings by name, in the order of their training; the others are compared with the last.

    Args:
        request: its ``models`` (``NAME=MODEL`` or a model); without any, the zoo's ResNet untrained, after each epoch
            whose
            weights its recipe kept, and trained.
        checkpoints: folder of the recipe's kept weights; by default the recipe's own.

    Returns:
        The models.

    Raises:
        MissingError: if no weights were kept.
        UsageError: for fewer than two models.
    """
    if request.models:
        named = [text.split("=", 1) if "=" in text else [text, text] for text in request.models]
        models = dict(named)
        if len(models) < 2:
            raise UsageError(f"{NAME} compares networks: give two or more --model, each NAME=MODEL, in their order")
        return models
    from encoscope.recipes.resnet_caltech101 import PLAN

    folder = Path(checkpoints) if checkpoints else PLAN.folder()
    epochs = [epoch for epoch in range(1, PLAN.epochs) if find_kept_weights(folder, epoch).is_file()]
    if not epochs:
        raise MissingError(
            f"no intermediate weights in {folder}: python -m {RECIPE} --keep-at 1,3,10 --stop-epoch 10 --state FOLDER "
            "trains them, then --set checkpoints=FOLDER; or name networks with --model"
        )
    intermediate = {f"epoch {epoch} of {PLAN.epochs}": f"{ZOO}@{find_kept_weights(folder, epoch)}" for epoch in epochs}
    return {"untrained": f"{ZOO}@untrained", **intermediate, "trained": ZOO}


_Measured = Mapping[tuple[str, int], tuple[Measurements, Measurements]]


def _measure(
    encoders: Mapping[str, Encoder],
    clusters: Sequence[int],
    images: AnnotatedImages | None,
    task: MeasuringTask,
    settings: Mapping[str, Any],
    request: EvaluationRequest,
) -> _Measured:
    """For each network and K: NAVE, and as many random segments, image by image; the cache keeps what is measured."""
    if images is None:
        return {}
    measured = {}
    for name, encoder in encoders.items():
        paper = {"preset": "paper"}
        ours = [Baseline("nave", encoder, k, paper, random_state=request.seed, **settings) for k in clusters]
        random = [Baseline(CONTROL, None, k, random_state=request.seed, **settings) for k in clusters]
        by_method = localization.measure_baselines(
            [*ours, *random], images, task, fresh=request.fresh, progress=request.progress
        )
        for index, k in enumerate(clusters):
            measured[name, k] = (by_method[index], by_method[len(clusters) + index])
    return measured


def _compare(
    measure: str, measured: _Measured, stage: tuple[str, int], last: tuple[str, int], get_values: Any, random_state: int
) -> dict[str, Any]:
    """A measure, and its paired differences to the last network and to random segments."""
    ours, random = measured[stage]
    return {
        measure: compute_interval(get_values(ours), random_state),
        f"{measure} - {last[0]}": None
        if stage == last
        else compute_difference(ours, measured[last][0], get_values, random_state),
        f"{measure} - random": compute_difference(ours, random, get_values, random_state),
    }


def _get_miou(measured: Measurements) -> np.ndarray:
    return measured.array("miou")


def _compute_corloc(measured: Measurements) -> np.ndarray:
    return compute_corloc(measured, "outer", "outer")


def _read_examples(request: EvaluationRequest) -> tuple[AnnotatedImages | None, AnnotatedImages | None]:
    """The images with masks and those with boxes, of the requested datasets."""
    masked, with_boxes = None, None
    for dataset in request.datasets:
        if overlap.is_panoptic(dataset):
            masked = overlap.open_panoptic(dataset, request.limit)
        else:
            with_boxes = localization.list_boxed_images(open_boxed_dataset(dataset), request.limit)
    if masked is None and with_boxes is None:
        raise UsageError(f"{NAME} needs --dataset: images with masks, coco:IMAGES#PANOPTIC.json, with boxes, or both")
    return masked, with_boxes


def _order_by_clusters(cells: Sequence[Cell], models: int) -> list[Cell]:
    """A row for K = 5 and one for 10, instead of both side by side for each of the models."""
    rows = []
    for start in range(0, len(cells), 1 + 2 * models):
        image, *colors = cells[start : start + 1 + 2 * models]
        rows += [image, *colors[::2], image, *colors[1::2]]
    return rows


def _parse_clusters(text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 2:
        raise UsageError(f"clusters are whole numbers from 2 on, such as 3,5,10, not {text!r}")
    return numbers


def _shorten_paths(models: Mapping[str, str]) -> dict[str, str]:
    """The models with the names of their files, without the folders."""
    shortened = {}
    for name, model in models.items():
        text, at, file = model.rpartition("@")
        shortened[name] = f"{text}@{Path(file).name}" if at else model
    return shortened


def _skipped(measured: _Measured) -> list[SkippedImage]:
    return [item for both in measured.values() for each in both for item in each.skipped]


def _notes(models: Mapping[str, str], settings: Mapping[str, Any], request: EvaluationRequest) -> list[str]:
    notes = [
        "mIoU: with the image's categories, each segment named by its majority with the image's own mask known, an "
        "oracle, fair only at the same number of clusters. CorLoc: share of images in which the segment chosen with "
        "the true boxes known, another oracle, has IoU > 0.5 with one of them. [95 % bootstrap interval over images]",
        f"Differences are paired, on the same images: to the last network, {list(models)[-1]}, and to as many random "
        "segments, image by image.",
        f"Picture: every pixel the mean color of its segment, over {settings['runs']} explanations, K = 5 and 10 (Fig. "
        "4); figure: mean adjusted Rand index between these explanations.",
        f"Images: {', '.join(map(shorten_dataset, request.datasets))}.",
    ]
    if not request.models:
        notes.append(
            f"{ZOO} at epochs of its recipe: the moving average of the weights, as it ships. A stand-in for the "
            "paper's networks."
        )
    return notes
