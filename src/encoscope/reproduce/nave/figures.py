"""NAVE's figures of single images: 1 (beside superpixels), 4 (training), 5 (registers), 8 to 10 (K, layers, grouping).

Each function reads like the paper's paragraph: which networks, which settings, K. Beside the picture stands a number
that says how much the settings change. Networks and images that are not the paper's are stand-ins, named in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np

from encoscope.discovery.methods import get_base_name
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import LoadedImage, collect_files
from encoscope.metrics import bootstrap
from encoscope.nave import Segmentation, segment
from encoscope.nave.layers import choose_layers
from encoscope.nave.stability import compute_agreement, mean_color
from encoscope.plots import draw_overlay, to_rgb
from encoscope.progress import track_steps
from encoscope.reproduce.inputs import load_encoders, load_model, read_spread_images
from encoscope.reproduce.nave.published import WEIGHTS
from encoscope.reproduce.sheets import Cell, draw_sheet

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings of ``encoscope.segment`` by what a column is called; the first is what the others are compared with."""

RUNS = 20  # explanations that Fig. 4 averages
PAPER_PAIR = (WEIGHTS["ResNet50 ImageNet"], WEIGHTS["ViTB/16 ImageNet"])
CNNS, VITS = ("zoo:tf_efficientnet_lite0", "zoo:resnet-caltech101"), ("zoo:vit-caltech101",)  # the zoo's stand-ins
REGISTERS = tuple(name for name in WEIGHTS if name.startswith("DINOv2"))


def fig1(request: EvaluationRequest) -> Report:
    """Segment images by NAVE, SLIC and Felzenszwalb, and by Segment Anything if its weights are set.

    All make similar numbers of regions. ``--set sam=FOLDER`` names the weights of Segment Anything, ``--set points=8``
    a coarser grid of its prompts, which makes fewer regions.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the number of regions of each method.

    Source: NAVE, Fig. 1.
    """
    settings = request.settings({"clusters": 5, "size": "model", "sam": "", "points": 32})
    weights, points = str(settings["sam"]), settings["points"]
    if not weights:
        settings = {name: value for name, value in settings.items() if name not in ("sam", "points")}
    encoders = load_encoders(request, CNNS, (WEIGHTS["ResNet50 ImageNet"],))
    paper, size = {"preset": "paper"}, settings["size"]
    ours = [Baseline("nave", encoder, settings["clusters"], paper, size, 0, 0, request.seed) for encoder in encoders]
    names = ("slic", "felzenszwalb", "random")
    others = [Baseline(name, min_area=0, border=0, random_state=request.seed) for name in names]
    if weights:
        options = {"points": points, "device": str(encoders[0].device)}
        others.append(Baseline(f"sam:{weights}", n_clusters=None, options=options))
    rows, cells = [], []
    images = choose_images(request, 3)
    with track_steps(len(images) * len(ours), "images", request.progress) as count:
        for image, nave in product(images, ours):
            segments = nave(image)
            large = [region for region in segments.regions if region.area > 0.001 * segments.labels.size]
            labels_by_method = {"nave": segments.labels}
            labels_by_method |= {get_base_name(item.method): item(image, len(large)).labels for item in others}
            cells += [
                (to_rgb(image), nave.network.source),
                *((draw_overlay(image, labels % 256), name) for name, labels in labels_by_method.items()),
            ]
            rows += [
                {
                    "photo": get_file_name(image),
                    "model": nave.network.source,
                    "method": name,
                    "regions": len(np.unique(labels)) if name != "nave" else len(large),
                }
                for name, labels in labels_by_method.items()
            ]
            count(1)
    return _build_report(
        "nave-fig1",
        "Images segmented into similar numbers of regions",
        rows,
        cells,
        columns=2 + len(others),
        request=request,
        settings=settings,
        notes=[
            f"NAVE on {', '.join(encoder.source for encoder in encoders)}; its regions are connected components of "
            "more than 0.1 % of the image, and the others are asked for as many; random is a control. "
            f"{_describe_sam(others[-1])}",
        ],
    )


def _describe_sam(last: Baseline) -> str:
    """What a reader of Fig. 1 must know of Segment Anything, which comes last if it runs."""
    if get_base_name(last.method) != "sam":
        return "Segment Anything is not drawn: no weights."
    return (
        f"{last.name} (Segment Anything) cannot be asked for a number: all masks it makes from "
        f"{last.options['points']} x {last.options['points']} prompts are drawn, smaller on larger ones, and what none "
        "covers is one region."
    )


def fig4(request: EvaluationRequest) -> Report:
    """Draw what training adds: every pixel the mean color of its segment, over 20 explanations, for K = 5 and 10.

    The paper leaves open whether the untrained network's weights are drawn anew for each: ``--set redrawn=1`` does so.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the agreement of the explanations.

    Source: NAVE, Fig. 4.
    """
    settings = request.settings({"runs": RUNS, "redrawn": 0, "size": "model"})
    models = request.models or tuple(text for name in CNNS for text in (f"{name}@untrained", name))
    rows, cells = draw_mean_colors({model: model for model in models}, choose_images(request, 1), settings, request)
    return _build_report(
        "nave-fig4",
        f"Mean color of segments over {settings['runs']} explanations",
        rows,
        cells,
        columns=1 + 2 * len(models),
        request=request,
        settings=settings,
        notes=["agreement: mean adjusted Rand index between the explanations of an image (1 the same, 0 chance)."],
    )


def draw_mean_colors(
    models: Mapping[str, str], images: Sequence[LoadedImage], settings: Mapping[str, Any], request: EvaluationRequest
) -> tuple[list[dict[str, Any]], list[Cell]]:
    """Draw the rows and captioned images of Fig. 4: each image, then each model's mean colors for K = 5 and 10.

    Args:
        models: model strings by their names in the figure.
        images: the images.
        settings: the settings ``runs``, ``redrawn`` and ``size``.
        request: the experiment's request.

    Returns:
        A row for each image, model and K, and the cells of the sheet.
    """
    rows, cells = [], []
    with track_steps(len(images) * len(models) * 2, "explanations", request.progress) as count:
        for image in images:
            cells.append((to_rgb(image), get_file_name(image)))
            for name, model in models.items():
                load_run = _load_runs(model, request, bool(settings["redrawn"]))
                for k in (5, 10):
                    size, runs = settings["size"], range(settings["runs"])
                    segmentations = [
                        _segment(load_run(run), image, n_clusters=k, size=size, random_state=run) for run in runs
                    ]
                    labels = [segmentation.labels for segmentation in segmentations]
                    cells.append((mean_color(image, labels), f"{name}, K = {k}"))
                    agreement = _compute_mean_agreement(segmentations)
                    rows.append({"photo": get_file_name(image), "model": name, "K": k, "agreement": agreement})
                    count(1)
    return rows, cells


def fig5(request: EvaluationRequest) -> Report:
    """Show what registers do: DINOv2 S/14 and B/14 with and without, K = 5, and how far single tokens stick out.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the largest token of each network.

    Source: NAVE, Fig. 5.
    """
    settings = request.settings({"clusters": 5, "size": "model"})
    networks = load_encoders(request, VITS, tuple(WEIGHTS[name] for name in REGISTERS))
    rows, cells = [], []
    images = choose_images(request, 4)
    with track_steps(len(images), "images", request.progress) as count:
        for image in images:
            cells.append((to_rgb(image), get_file_name(image)))
            for encoder in networks:
                segmentation = _segment(
                    encoder, image, n_clusters=settings["clusters"], size=settings["size"], random_state=request.seed
                )
                cells.append((draw_overlay(image, segmentation.labels), encoder.source))
                rows.append(
                    {"photo": get_file_name(image), "model": encoder.source}
                    | {
                        "registers": _count_registers(encoder),
                        "largest token / median": _measure_outlier(encoder, image, settings["size"]),
                    }
                )
            count(1)
    return _build_report(
        "nave-fig5",
        "Segments with and without registers",
        rows,
        cells,
        columns=1 + len(networks),
        request=request,
        settings=settings,
        notes=["largest token / median: the last block's longest patch vector over the median one of the image."],
    )


def fig8(request: EvaluationRequest) -> Report:
    """Vary the number of clusters: K = 3, 5, 7, 10 on a convolutional network and a transformer.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the agreement of the settings.

    Source: NAVE, Fig. 8.
    """
    return _ablation(
        "nave-fig8", "The number of clusters", request, lambda _: {f"K = {k}": {"n_clusters": k} for k in (5, 3, 7, 10)}
    )


def fig9(request: EvaluationRequest) -> Report:
    """Vary the layers: the default ones, each depth alone, and all of them, on the grid of the first default one.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the agreement of the settings.

    Source: NAVE, Fig. 9.
    """

    def layers(encoder: Encoder) -> Variants:
        depths, default = encoder.depths[-4:], choose_layers(encoder, preset="paper")
        chosen = {f"default ({', '.join(default)})": list(default)}
        chosen |= {name: [name] for name in depths if (name,) != default}
        cells = min(encoder.layer(default[0]).grid)
        return {
            caption: {"layers": names, "resolution": cells}
            for caption, names in (chosen | {f"last {len(depths)}": depths}).items()
        }

    return _ablation("nave-fig9", "The layers", request, layers)


def fig10(request: EvaluationRequest) -> Report:
    """Vary the grouping: k-means, Ward's linkage, principal components.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the agreement of the settings.

    Source: NAVE, Fig. 10.
    """
    return _ablation(
        "nave-fig10",
        "The grouping",
        request,
        lambda _: {name: {"grouping": name} for name in ("kmeans", "ward", "pca")},
    )


def _ablation(name: str, title: str, request: EvaluationRequest, variants: Callable[[Encoder], Variants]) -> Report:
    """Photos of two networks at some settings, and how far each setting agrees with the first."""
    settings = request.settings({"size": "model"})
    rows, cells, columns = [], [], 1
    images = choose_images(request, 3)
    networks = load_encoders(request, CNNS + VITS, PAPER_PAIR)
    with track_steps(len(images) * len(networks), title, request.progress) as count:
        for encoder in networks:
            settings_by_caption = variants(encoder)
            columns = max(columns, 1 + len(settings_by_caption))
            agreements: dict[str, list[float]] = {caption: [] for caption in settings_by_caption}
            for image in images:
                row = [(to_rgb(image), encoder.source)]
                segmentations = [
                    _segment(encoder, image, size=settings["size"], random_state=request.seed, **options)
                    for options in settings_by_caption.values()
                ]
                for caption, segmentation in zip(settings_by_caption, segmentations, strict=True):
                    row.append((draw_overlay(image, segmentation.labels), caption))
                    agreements[caption].append(compute_agreement(segmentation.labels, segmentations[0].labels))
                cells.append(row)
                count(1)
            rows += [
                {
                    "model": encoder.source,
                    "setting": caption,
                    "agreement with the first": bootstrap(values),
                    "photos": len(images),
                }
                for caption, values in agreements.items()
            ]
    blank = (np.full((1, 16, 3), 255, dtype=np.uint8), "")
    flat = [cell for row in cells for cell in [*row, *[blank] * (columns - len(row))]]
    notes = ["agreement: adjusted Rand index with the first setting of the network (1 the same, 0 chance)."]
    return _build_report(name, title, rows, flat, columns, request, settings, notes)


def choose_images(request: EvaluationRequest, count: int) -> list[LoadedImage]:
    """Choose the images of a figure, evenly spread over the dataset's list.

    Args:
        request: its ``limit`` is the number of images.
        count: number of images where no limit is set.

    Returns:
        The images.

    Raises:
        UsageError: without a dataset, and if no image can be read.
    """
    if not request.datasets:
        raise UsageError("a figure needs --dataset: an image, a folder, or a dataset such as caltech101:ROOT#test")
    files = collect_files(request.datasets)
    number = min(request.limit or count, len(files))
    images = read_spread_images(files, number)
    if not images:
        raise UsageError(f"none of the {number} images can be read; the first: {files[0]}")
    return images


def get_file_name(image: LoadedImage) -> str:
    """Return an image's file name.

    Args:
        image: the image.

    Returns:
        The name without the folder; "photo" for an image without a file.
    """
    return (image.path or "photo").replace("\\", "/").rpartition("/")[2]


def _load_runs(model: str, request: EvaluationRequest, redrawn: bool) -> Callable[[int], Encoder]:
    """The network for a run: always the same, or, untrained, with weights of the run's own seed."""
    first = load_model(request, model)
    if not (redrawn and first.source.endswith("@untrained")):
        return lambda run: first
    return lambda run: load_model(replace(request, seed=request.seed + run), model)


def _segment(encoder: Encoder, image: LoadedImage, **options: Any) -> Segmentation:
    if not encoder.resizable:
        options["size"] = "model"
    return segment(encoder, image, preset="paper", **options)


def _compute_mean_agreement(segmentations: Sequence[Segmentation]) -> float | None:
    """Mean adjusted Rand index over pairs of neighbours in the series."""
    pairs = [compute_agreement(a.grid_labels, b.grid_labels) for a, b in pairwise(segmentations)]
    return float(np.mean(pairs)) if pairs else None


def _count_registers(encoder: Encoder) -> int:
    """Prefix tokens besides the class token."""
    return max(0, encoder.layer(choose_layers(encoder, preset="paper")[-1]).prefix - 1)


def _measure_outlier(encoder: Encoder, image: LoadedImage, size: Any) -> float:
    layer = choose_layers(encoder, preset="paper")[-1]
    batch = encoder.prepare(image, geometry="whole", size=size if encoder.resizable else "model")
    maps = encoder.activations(batch, layer)[layer].maps[0]
    rows, columns = batch.geometries[0].valid_cells((maps.shape[1], maps.shape[2]))
    norms = maps[:, :rows, :columns].flatten(1).norm(dim=0)
    return float(norms.max() / norms.median().clamp_min(1e-12))


def _build_report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[Cell],
    columns: int,
    request: EvaluationRequest,
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> Report:
    provenance = [] if request.models else ["The zoo's networks stand in for the paper's; --model names others."]
    return Report(
        name,
        f"NAVE, Fig. {name.removeprefix('nave-fig')}: {title}",
        rows,
        [*notes, *provenance, f"Images: {', '.join(map(shorten_dataset, request.datasets))}."],
        {name: draw_sheet(cells, columns, cell=240)},
        {"datasets": list(request.datasets), "limit": request.limit, **settings},
        request.seed,
    )
