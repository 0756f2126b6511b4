"""VITAL's figures of what lies inside a network: relevance (2), small circuits (4), channels (24, 25), facets (26)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import bootstrap
from encoscope.probing import Patch
from encoscope.relevance import compute_relevance
from encoscope.reproduce.sheets import Cell, draw_sheet
from encoscope.reproduce.vital.harness import Bench, prepare_benches
from encoscope.reproduce.vital.judge import compare_channel_activations
from encoscope.reproduce.vital.report import build_report, open_reference
from encoscope.units import parse_unit
from encoscope.vital.circuits import rank_channels
from encoscope.vital.references.references import find_class_references

_CIRCUITS = ("zebra", "pineapple", "Siberian husky", "dalmatian", "Leopards", "strawberry")
"""The paper's zebra, pineapple and a dog (which one it does not say), and Caltech-101's in their place."""
_POLYSEMANTIC = (485, 909, 1524, 1431)
"""The channels of ResNet50's layer4 that the paper shows."""
_METHODS = {
    "fourier": ("fourier", {}),
    "maco": ("maco", {}),
    "vital, guided backprop": ("vital", {"relevance": "guided-backprop"}),
    "vital, LRP": ("vital", {"relevance": "lrp"}),
}
_SIDE = 224  # pixels of a side, as it is shown
_AGAINST = "AUC: the visualization beside the channel's 50 strongest images, 0.5 as strong as they."


def fig2(request: EvaluationRequest) -> Report:
    """Show that an active channel of the block below need not be relevant, by one channel of each kind.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the activation and relevance of both channels.

    Source: VITAL, Fig. 2.
    """
    settings, benches = prepare_benches(request, {"layer": "", "channels": "", "relevance": "lrp"})
    (bench,) = benches.values()
    unit = (bench.choose_channels(1) if settings["channels"] else _choose_class_channels(bench, 1))[0]
    below = _find_layer_below(bench)
    patch = bench.search_patches([unit])[0].items[0].source
    assert isinstance(patch, Patch)  # top patches were searched
    batch = bench.encoder.prepare(patch.path)
    active = bench.encoder.activations(batch, below)[below].maps[0]
    relevant = compute_relevance(bench.encoder, batch, parse_unit(unit, bench.encoder), below, settings["relevance"])[
        below
    ][0]
    pair = choose_two_channels(active, relevant)
    shares = compute_relevance_shares(relevant)
    rows = [
        {
            "channel": f"{below}:{channel}",
            "kind": kind,
            "mean activation": float(active[channel].mean()),
            "share of the relevance": float(shares[channel]),
        }
        for kind, channel in zip(("relevant", "active, not relevant"), pair, strict=True)
    ]
    with Image.open(patch.path) as opened:
        image = opened.convert("RGB").resize((_SIDE, _SIDE))
    cells: list[Cell] = []
    methods = (("with relevance", settings["relevance"]), ("without", "none"))
    for channel, (caption, method) in zip(pair, methods, strict=True):
        (path,) = bench.visualize("vital", [unit], {"relevance": method}, label=caption)
        name = f"{below}:{channel}"
        cells += [(image, f"the photo {unit} answers to most"), (draw_heatmap(active[channel]), f"{name}: activation")]
        cells += [(draw_heatmap(relevant[channel]), f"{name}: relevance"), (path, f"{unit}, {caption}")]
    notes = [
        f"Relevance of {below} for {unit} ({settings['relevance']}), on the image of its strongest patch. relevant: "
        "the channel of the largest relevance; active, not relevant: of those with less than an even share of it, the "
        "most active one. Bright is high, each map by itself.",
    ]
    return build_report(
        "vital-fig2", "why relevance", rows, benches, notes=notes, sheets={"vital-fig2": draw_sheet(cells, 4)}
    )


def fig4(request: EvaluationRequest) -> Report:
    """Draw small circuits: the three channels of the last hidden layer most relevant to a class, by VITAL and MACO.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the relevance and AUC of each channel.

    Source: VITAL, Fig. 4.
    """
    _, benches = prepare_benches(request, {"layer": "", "top": 3})
    (bench,) = benches.values()
    top = int(bench.settings["top"])
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    for label in bench.choose_classes(3, _CIRCUITS):
        unit = f"class:{label}"
        pool = find_class_references(
            bench.references, bench.encoder, parse_unit(unit, bench.encoder), random_state=request.seed
        )
        _, method, channels = rank_channels(
            bench.encoder, unit, pool, n_channels=top, layer=bench.layer, progress=request.progress
        )
        units = [channel.unit for channel in channels]
        bench.search_patches(units)
        for visualizer in ("maco", "vital"):
            (whole,) = bench.visualize(visualizer, [unit])
            paths = bench.visualize(visualizer, units)
            cells.append((whole, f"{bench.names[label]}, {visualizer}"))
            cells += [
                (path, f"{channel.unit}, {channel.relevance_share:.1%}, {visualizer}")
                for channel, path in zip(channels, paths, strict=True)
            ]
            rows += [
                {"class": bench.names[label], "channel": channel.unit, "relevance": method}
                | {"share": channel.relevance_share, "method": visualizer, "AUC": _auc(bench, channel.unit, [path])}
                for channel, path in zip(channels, paths, strict=True)
            ]
    notes = [f"share: of the relevance of {bench.layer}'s channels for the class, mean over its images. {_AGAINST}"]
    return build_report(
        "vital-fig4", "small circuits", rows, benches, notes=notes, sheets={"vital-fig4": draw_sheet(cells, 1 + top)}
    )


def draw_channels(number: int, request: EvaluationRequest) -> Report:
    """Draw four channels at random, by Fourier, MACO and VITAL, with LRP and with guided backprop.

    Args:
        number: number of the figure, 24 or 25; each has other channels.
        request: the experiment's request.

    Returns:
        The figure, with the AUC of each method.

    Source: VITAL, Figs. 24 and 25.
    """
    _, benches = prepare_benches(request, {"layer": "", "channels": ""})
    (bench,) = benches.values()
    units = bench.choose_channels(4, draw=number)
    patches = bench.search_patches(units)
    rows, notes = [], []
    columns: dict[str, list[Any]] = {"strongest patch": [open_reference(references.items[0]) for references in patches]}
    for caption, (method, settings) in _METHODS.items():
        try:
            images = bench.visualize_seeds(method, units, settings, label=caption)
        except UsageError as error:
            notes.append(f"{caption} on {bench.model} cannot run: {error}.")
            continue
        columns[caption] = list(images.first)
        aucs = [_auc(bench, unit, images.of_unit(index)) for index, unit in enumerate(units)]
        rows.append({"method": caption, "channels": len(units), "AUC": bootstrap(aucs, random_state=request.seed)})
    cells = [
        (column[index], f"{unit}, {caption}") for index, unit in enumerate(units) for caption, column in columns.items()
    ]
    name = f"vital-fig{number}"
    reading = f"Channels of {bench.layer} at random, others in each of Figs. 24 and 25. {_AGAINST}"
    sheets = {name: draw_sheet(cells, len(columns))}
    return build_report(name, "channels inside the network", rows, benches, notes=[reading, *notes], sheets=sheets)


fig24, fig25 = partial(draw_channels, 24), partial(draw_channels, 25)


def fig26(request: EvaluationRequest) -> Report:
    """Draw polysemantic channels: MACO's one visualization beside VITAL's for each cluster of the top patches.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the commonest label of each cluster.

    Source: VITAL, Fig. 26.
    """
    settings, benches = prepare_benches(request, {"layer": "", "channels": "", "facets": 2, "candidates": 1000})
    (bench,) = benches.values()
    labels = dict(zip(bench.probe.ids, bench.probe.labels, strict=True))
    units = bench.choose_channels(4) if settings["channels"] else _choose_polysemantic(bench, request.limit or 4)
    facets = int(settings["facets"])
    estimator = bench.create_estimator(units, n_candidates=int(settings["candidates"]), n_facets=facets)
    visualizations = estimator.fit(bench.references).synthesize(fresh=request.fresh)
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    for position, unit in enumerate(units):
        (path,) = bench.visualize("maco", [unit])
        cells.append((path, f"{unit}, maco"))
        for index in range(position * facets, (position + 1) * facets):
            target = estimator.targets_[index]
            assert target.references is not None  # the statistics are of patches
            name, share = find_commonest_label([labels.get(item.id) for item in target.references.items])
            rows.append(
                {"channel": unit, "facet": index % facets + 1, "patches": len(target.references)}
                | {"commonest label": name, "its share": share, "on the picture": visualizations[index].activation}
                | {"on its patches": visualizations[index].reference_activation}
            )
            cells += [(visualizations[index].picture, f"{target.name}, vital")]
            cells += [(open_reference(item), labels.get(item.id) or "") for item in target.references.items[:2]]
    notes = [
        f"k-means ({facets} clusters) on the activations of {bench.layer} over its top patches (at most 1,000, "
        f"of the {settings['candidates']} most active images); commonest label: of the images behind the patches that "
        "a visualization is made from.",
        "Channels: the paper's where the network is its own; others those whose 20 strongest images have the most "
        "labels (--set channels=485,909). The channel's value on a visualization and, mean, on its patches.",
    ]
    sheets = {"vital-fig26": draw_sheet(cells, 1 + 3 * facets, cell=150)}
    return build_report("vital-fig26", "channels of several meanings", rows, benches, notes=notes, sheets=sheets)


def choose_two_channels(
    active: Float[Tensor, "channels height width"], relevant: Float[Tensor, "channels height width"]
) -> tuple[int, int]:
    """Choose the channel of the largest relevance, and the most active one of those with less than an even share of it.

    Args:
        active: activations of the channels.
        relevant: relevance of the channels.

    Returns:
        The indices of the two channels.
    """
    shares = compute_relevance_shares(relevant)
    first = int(shares.argmax())
    means = active.mean((1, 2)).cpu().numpy().astype(np.float64)
    means[shares >= 1 / len(shares)] = -np.inf
    return first, int(means.argmax())


def compute_relevance_shares(relevant: Float[Tensor, "channels height width"]) -> Float[np.ndarray, " channels"]:
    """Compute each channel's share of the relevance, summed over space.

    Args:
        relevant: relevance of the channels.

    Returns:
        Shares of the sum of absolute values; negative where the relevance is negative.
    """
    sums = relevant.sum((1, 2)).cpu().numpy().astype(np.float64)
    return sums / max(float(np.abs(sums).sum()), 1e-30)


def draw_heatmap(map_: Float[Tensor, "height width"]) -> np.ndarray:
    """Draw a map in color, dark to bright from its smallest to its largest value, enlarged without smoothing.

    Args:
        map_: the map.

    Returns:
        An image of 16 times the size, values from 0 to 255.
    """
    from matplotlib import colormaps

    values = map_.detach().cpu().numpy().astype(np.float64)
    values = (values - values.min()) / max(float(values.max() - values.min()), 1e-30)
    enlarged = values.repeat(16, 0).repeat(16, 1)
    return np.asarray(colormaps["inferno"](enlarged)[..., :3] * 255).round().astype(np.uint8)


def find_commonest_label(labels: Sequence[str | None]) -> tuple[str | None, float | None]:
    """Find the label that most items have; ties go by name.

    Args:
        labels: a label for each item, None for those without.

    Returns:
        The label and its share of all items; None twice where no item has one.
    """
    known = Counter(label for label in labels if label is not None)
    if not known:
        return None, None
    name, count = min(known.items(), key=lambda pair: (-pair[1], pair[0]))
    return name, count / len(labels)


def _find_layer_below(bench: Bench) -> str:
    """The stage or block below the channels' layer, or whatever layer is. UsageError for the first one."""
    order = [info.name for info in bench.encoder.layers]
    under = order[: order.index(bench.layer)]
    if not under:
        raise UsageError(f"no layer lies below {bench.layer}: name a later one with --set layer=NAME")
    return next((name for name in reversed(under) if name in bench.encoder.depths), under[-1])


def _choose_class_channels(bench: Bench, count: int) -> list[str]:
    """The channels most relevant to the first class that is visualized."""
    label = bench.choose_classes(1, _CIRCUITS)[0]
    unit = parse_unit(f"class:{label}", bench.encoder)
    pool = find_class_references(bench.references, bench.encoder, unit, random_state=bench.request.seed)
    _, _, channels = rank_channels(bench.encoder, unit, pool, n_channels=count, layer=bench.layer)
    return [channel.unit for channel in channels]


def _choose_polysemantic(bench: Bench, count: int) -> list[str]:
    """The paper's channels, where the network has them; else those whose 20 strongest images have the most labels."""
    if bench.model.partition(":")[2].partition(".")[0] == "resnet50" and bench.layer == "layer4":
        return [f"{bench.layer}:{channel}" for channel in _POLYSEMANTIC[:count]]
    probed = bench.probe
    number = min(20, len(probed))
    top = np.argsort(-probed.values, axis=0, kind="stable")[:number]
    counts = np.array([len({probed.labels[row] for row in column}) for column in top.T])
    counts[probed.values.max(0) <= probed.values.min(0)] = 0
    return [f"{bench.layer}:{channel}" for channel in np.argsort(-counts, kind="stable")[:count]]


def _auc(bench: Bench, unit: str, paths: Sequence[Any]) -> float:
    return compare_channel_activations(bench.encoder, unit, list(paths), bench.strongest_activations(unit).tolist())[0]
