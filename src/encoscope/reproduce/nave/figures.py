"""NAVE's figures of single photos: 1 (beside superpixels), 4 (training), 5 (registers), 8 to 10 (K, layers, grouping).

Each function reads like the paper's paragraph: which networks, which settings, K. Beside the picture stands a number
that says how much the settings change. Networks and photos that are not the paper's are stand-ins, named in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from encoscope.discovery.methods import get_base_name
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.images import LoadedImage, collect_files, read_images
from encoscope.metrics import bootstrap
from encoscope.nave import Segmentation, segment
from encoscope.nave.layers import choose_layers
from encoscope.nave.stability import compute_agreement, mean_color
from encoscope.plots import draw_contact_sheet, draw_overlay, to_rgb
from encoscope.progress import track_steps
from encoscope.reproduce.nave.published import WEIGHTS

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings of ``encoscope.segment`` by what a column is called; the first is what the others are compared with."""

RUNS = 20  # explanations that Fig. 4 averages
PAPER_PAIR = (WEIGHTS["ResNet50 ImageNet"], WEIGHTS["ViTB/16 ImageNet"])
STAND_INS = ("zoo:resnet-caltech101", "zoo:vit-caltech101")
REGISTERS = tuple(name for name in WEIGHTS if name.startswith("DINOv2"))


def fig1(request: EvaluationRequest) -> Report:
    """Photos parted by NAVE, SLIC and Felzenszwalb into similar numbers of regions; by Segment Anything if it is given.

    ``--set sam=FOLDER`` names its weights, ``--set points=8`` a coarser grid of prompts, which makes fewer regions.
    """
    asked = request.settings({"clusters": 5, "size": "model", "sam": "", "points": 32})
    weights, points = str(asked["sam"]), asked["points"]
    if not weights:
        asked = {name: value for name, value in asked.items() if name not in ("sam", "points")}
    encoder = encoders(request, STAND_INS[:1], (WEIGHTS["ResNet50 ImageNet"],))[0]
    nave = Baseline(
        "nave", encoder, asked["clusters"], size=asked["size"], min_area=0, border=0, random_state=request.seed
    )
    others = [
        Baseline(name, min_area=0, border=0, random_state=request.seed) for name in ("slic", "felzenszwalb", "random")
    ]
    if weights:
        options = {"points": points, "device": str(encoder.device)}
        others.append(Baseline(f"sam:{weights}", n_clusters=None, options=options))
    rows, cells = [], []
    shown = pictured(request, 3)
    with track_steps(len(shown), "photos", request.progress) as count:
        for photo in shown:
            ours = nave(photo)
            large = [region for region in ours.regions if region.area > 0.001 * ours.labels.size]
            found = {"nave": ours.labels} | {get_base_name(one.method): one(photo, len(large)).labels for one in others}
            cells += [
                (to_rgb(photo), ""),
                *((draw_overlay(photo, labels % 256), name) for name, labels in found.items()),
            ]
            rows += [
                {
                    "photo": name_of(photo),
                    "method": name,
                    "regions": len(np.unique(labels)) if name != "nave" else len(large),
                }
                for name, labels in found.items()
            ]
            count(1)
    return _report(
        "nave-fig1",
        "Photos parted into similar numbers of regions",
        rows,
        cells,
        columns=2 + len(others),
        request=request,
        asked=asked,
        notes=[
            f"NAVE on {encoder.source}; its regions are connected parts of more than 0.1 % of the photo, and the "
            f"others are asked for as many; random is a control. {_said(others[-1])}",
        ],
    )


def _said(last: Baseline) -> str:
    """What a reader of Fig. 1 must know of Segment Anything, which comes last if it is there."""
    if get_base_name(last.method) != "sam":
        return "Segment Anything is not drawn: no weights."
    return (
        f"{last.name} (Segment Anything) cannot be asked for a number: all masks it makes from "
        f"{last.options['points']} x {last.options['points']} prompts are drawn, smaller on larger ones, and what none "
        "covers is one region."
    )


def fig4(request: EvaluationRequest) -> Report:
    """What training adds: every pixel the mean colour of its part, over 20 explanations, for K = 5 and 10.

    The paper leaves open whether the untrained network's weights are drawn anew for each: ``--set redrawn=1`` does so.
    """
    asked = request.settings({"runs": RUNS, "redrawn": 0, "size": "model"})
    models = request.models or (f"{STAND_INS[0]}@untrained", STAND_INS[0])
    rows, cells = mean_colours({model: model for model in models}, pictured(request, 1), asked, request)
    return _report(
        "nave-fig4",
        f"Mean colour of parts over {asked['runs']} explanations",
        rows,
        cells,
        columns=1 + 2 * len(models),
        request=request,
        asked=asked,
        notes=["agreement: mean adjusted Rand index between the explanations of a photo (1 the same, 0 chance)."],
    )


def mean_colours(
    models: Mapping[str, str], shown: Sequence[LoadedImage], asked: Mapping[str, Any], request: EvaluationRequest
) -> tuple[list[dict[str, Any]], list[tuple[Any, str]]]:
    """Rows and captioned pictures of Fig. 4: each photo, then each model's mean colours for K = 5 and 10.

    models: by their names in the picture. asked: the settings ``runs``, ``redrawn`` and ``size``.
    """
    rows, cells = [], []
    with track_steps(len(shown) * len(models) * 2, "explanations", request.progress) as count:
        for photo in shown:
            cells.append((to_rgb(photo), name_of(photo)))
            for name, model in models.items():
                draw = _drawn(model, request, bool(asked["redrawn"]))
                for k in (5, 10):
                    size, runs = asked["size"], range(asked["runs"])
                    found = [_parts(draw(run), photo, n_clusters=k, size=size, random_state=run) for run in runs]
                    cells.append((mean_color(photo, [one.labels for one in found]), f"{name}, K = {k}"))
                    rows.append({"photo": name_of(photo), "model": name, "K": k, "agreement": _agreement(found)})
                    count(1)
    return rows, cells


def fig5(request: EvaluationRequest) -> Report:
    """What registers do: DINOv2 S/14 and B/14 with and without, K = 5, and how far single tokens stick out."""
    asked = request.settings({"clusters": 5, "size": "model"})
    found = encoders(request, STAND_INS[1:], tuple(WEIGHTS[name] for name in REGISTERS))
    rows, cells = [], []
    shown = pictured(request, 4)
    with track_steps(len(shown), "photos", request.progress) as count:
        for photo in shown:
            cells.append((to_rgb(photo), name_of(photo)))
            for encoder in found:
                parts = _parts(
                    encoder, photo, n_clusters=asked["clusters"], size=asked["size"], random_state=request.seed
                )
                cells.append((draw_overlay(photo, parts.labels), encoder.source))
                rows.append(
                    {"photo": name_of(photo), "model": encoder.source}
                    | {
                        "registers": _registers(encoder),
                        "largest token / median": _outlier(encoder, photo, asked["size"]),
                    }
                )
            count(1)
    return _report(
        "nave-fig5",
        "Parts with and without registers",
        rows,
        cells,
        columns=1 + len(found),
        request=request,
        asked=asked,
        notes=["largest token / median: the last block's longest patch vector over the median one of the photo."],
    )


def fig8(request: EvaluationRequest) -> Report:
    """The number of clusters: K = 3, 5, 7, 10 on a convolutional network and a transformer."""
    return _ablation(
        "nave-fig8", "The number of clusters", request, lambda _: {f"K = {k}": {"n_clusters": k} for k in (5, 3, 7, 10)}
    )


def fig9(request: EvaluationRequest) -> Report:
    """The layers: the default ones, each depth alone, and all of them, on the grid of the first default one."""

    def layers(encoder: Encoder) -> Variants:
        depths, default = encoder.depths[-4:], choose_layers(encoder)
        chosen = {f"default ({', '.join(default)})": list(default)}
        chosen |= {name: [name] for name in depths if (name,) != default}
        cells = min(encoder.layer(default[0]).grid)
        return {
            caption: {"layers": names, "resolution": cells}
            for caption, names in (chosen | {f"last {len(depths)}": depths}).items()
        }

    return _ablation("nave-fig9", "The layers", request, layers)


def fig10(request: EvaluationRequest) -> Report:
    """The grouping: k-means, Ward's linkage, principal components."""
    return _ablation(
        "nave-fig10",
        "The grouping",
        request,
        lambda _: {name: {"grouping": name} for name in ("kmeans", "ward", "pca")},
    )


def _ablation(name: str, title: str, request: EvaluationRequest, variants: Callable[[Encoder], Variants]) -> Report:
    """Photos of two networks at some settings, and how far each setting agrees with the first."""
    asked = request.settings({"size": "model"})
    rows, cells, columns = [], [], 1
    shown = pictured(request, 3)
    found = encoders(request, STAND_INS, PAPER_PAIR)
    with track_steps(len(shown) * len(found), title, request.progress) as count:
        for encoder in found:
            given = variants(encoder)
            columns = max(columns, 1 + len(given))
            agreements: dict[str, list[float]] = {caption: [] for caption in given}
            for photo in shown:
                line = [(to_rgb(photo), encoder.source)]
                parts = [
                    _parts(encoder, photo, size=asked["size"], random_state=request.seed, **more)
                    for more in given.values()
                ]
                for caption, one in zip(given, parts, strict=True):
                    line.append((draw_overlay(photo, one.labels), caption))
                    agreements[caption].append(compute_agreement(one.labels, parts[0].labels))
                cells.append(line)
                count(1)
            rows += [
                {
                    "model": encoder.source,
                    "setting": caption,
                    "agreement with the first": bootstrap(values),
                    "photos": len(shown),
                }
                for caption, values in agreements.items()
            ]
    blank = (np.full((1, 16, 3), 255, dtype=np.uint8), "")
    flat = [cell for line in cells for cell in [*line, *[blank] * (columns - len(line))]]
    notes = ["agreement: adjusted Rand index with the first setting of the network (1 the same, 0 chance)."]
    return _report(name, title, rows, flat, columns, request, asked, notes)


def encoders(request: EvaluationRequest, stand_ins: Sequence[str], paper: Sequence[str]) -> list[Encoder]:
    """The networks named, the paper's own for "paper", or the stand-ins."""
    models = paper if request.models == ("paper",) else request.models or stand_ins
    return [load(model, **{**request.load, "random_state": request.seed}) for model in models]


def pictured(request: EvaluationRequest, count: int) -> list[LoadedImage]:
    """The photos of a figure: ``--limit`` of them (``count`` if not said), evenly spread over the dataset's list."""
    if not request.datasets:
        raise UsageError("a figure needs --dataset: a photo, a folder, or a dataset such as caltech101:ROOT#test")
    files = collect_files(request.datasets)
    number = min(request.limit or count, len(files))
    chosen = [files[index * len(files) // number] for index in range(number)]
    found = [item for item in read_images(chosen) if isinstance(item, LoadedImage)]
    if not found:
        raise UsageError(f"none of the {number} photos can be read; the first: {chosen[0]}")
    return found


def name_of(photo: LoadedImage) -> str:
    """A photo's file name."""
    return (photo.path or "photo").replace("\\", "/").rpartition("/")[2]


def _drawn(model: str, request: EvaluationRequest, redrawn: bool) -> Callable[[int], Encoder]:
    """The network for a run: always the same, or, untrained, with weights of the run's own seed."""
    first = load(model, **{**request.load, "random_state": request.seed})
    if not (redrawn and first.source.endswith("@untrained")):
        return lambda run: first
    return lambda run: load(model, **{**request.load, "random_state": request.seed + run})


def _parts(encoder: Encoder, photo: LoadedImage, **more: Any) -> Segmentation:
    if not encoder.resizable:
        more["size"] = "model"
    return segment(encoder, photo, **more)


def _agreement(found: Sequence[Segmentation]) -> float | None:
    """Mean adjusted Rand index over pairs of neighbours in the series."""
    pairs = [compute_agreement(a.grid_labels, b.grid_labels) for a, b in pairwise(found)]
    return float(np.mean(pairs)) if pairs else None


def _registers(encoder: Encoder) -> int:
    """Prefix tokens besides the class token."""
    return max(0, encoder.layer(choose_layers(encoder)[-1]).prefix - 1)


def _outlier(encoder: Encoder, photo: LoadedImage, size: Any) -> float:
    layer = choose_layers(encoder)[-1]
    batch = encoder.prepare(photo, geometry="whole", size=size if encoder.resizable else "model")
    maps = encoder.activations(batch, layer)[layer].maps[0]
    rows, columns = batch.geometries[0].valid_cells((maps.shape[1], maps.shape[2]))
    norms = maps[:, :rows, :columns].flatten(1).norm(dim=0)
    return float(norms.max() / norms.median().clamp_min(1e-12))


def _report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[tuple[Any, str]],
    columns: int,
    request: EvaluationRequest,
    asked: Mapping[str, Any],
    notes: Sequence[str],
) -> Report:
    sheet = draw_contact_sheet([picture for picture, _ in cells], [caption for _, caption in cells], columns)
    stands = [] if request.models else ["The zoo's networks stand in for the paper's; --model names others."]
    return Report(
        name,
        f"NAVE, Fig. {name.removeprefix('nave-fig')}: {title}",
        rows,
        [*notes, *stands, f"Photos: {', '.join(map(shorten_dataset, request.datasets))}."],
        {name: Image.fromarray(sheet)},
        {"datasets": list(request.datasets), "limit": request.limit, **asked},
        request.seed,
    )
