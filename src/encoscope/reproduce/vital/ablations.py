"""VITAL's Figs. 8 to 12, what shapes a visualization: transparency, regularizers, layers, relevance, references.

Each function reads like the paper's paragraph: which units, which settings. Beside the visualizations stands what the
network makes of them, and how rough they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import Interval, bootstrap
from encoscope.reproduce.sheets import draw_sheet
from encoscope.reproduce.vital.harness import Bench, prepare_benches
from encoscope.reproduce.vital.judge import compare_channel_activations
from encoscope.reproduce.vital.metrics import compute_probabilities
from encoscope.reproduce.vital.published import REFERENCES
from encoscope.reproduce.vital.report import build_report
from encoscope.reproduce.vital.tables import parse_whole_numbers
from encoscope.units import parse_unit
from encoscope.vital.recipes import choose_recipe

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings of VITAL by what a column is called."""

_FACTORS = (0.0, 0.1, 1.0, 10.0, 100.0)


def fig8(request: EvaluationRequest) -> Report:
    """Show the transparency map: a visualization, and the same on white where the loss did not attend to it.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with the opacity of each class.

    Source: VITAL, Fig. 8.
    """
    _, benches = prepare_benches(request, {})
    rows, plain, attended = [], [], []
    for bench in benches.values():
        units = [f"class:{label}" for label in bench.choose_classes(4)]
        estimator = bench.create_estimator(units).fit(bench.references)
        for visualization in estimator.stream(fresh=request.fresh):
            name = bench.names[parse_unit(visualization.unit, bench.encoder).index]
            plain.append((visualization.picture, name))
            attended.append((visualization.over_white, ""))
            opacity = visualization.transparency
            half = compute_half_share(opacity)
            rows.append({"class": name, "mean opacity": float(opacity.mean()), "half of it lies in": half})
    notes = [
        "Opacity: the mean over the steps of the loss's absolute gradient, as in the authors' code, clipped at its "
        "98th percentile. half of it lies in: the smallest share of the pixels that holds half of it; 0.5 is even."
    ]
    sheets = {"vital-fig8": draw_sheet([*plain, *attended], len(plain))}
    return build_report("vital-fig8", "the transparency map", rows, benches, notes=notes, sheets=sheets)


def fig9(request: EvaluationRequest) -> Report:
    """Vary the regularizers' factors for channels inside the network: each varied, the other at its usual value.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with measures of each setting.

    Source: VITAL, Fig. 9.
    """
    _, benches = prepare_benches(request, {"layer": "", "channels": ""})

    def vary(bench: Bench, units: Sequence[str]) -> Variants:
        usual = choose_recipe(bench.encoder, parse_unit(units[0], bench.encoder), relevance=True)
        tv = {f"TV {usual.tv_weight * factor:.0e}": {"tv_weight": usual.tv_weight * factor} for factor in _FACTORS}
        l2 = {f"l2 {usual.l2_weight * factor:.0e}": {"l2_weight": usual.l2_weight * factor} for factor in _FACTORS}
        return tv | l2

    notes = ["Each factor at 0, 0.1, 1, 10 and 100 times its usual value, the other at its own."]
    return _ablation("vital-fig9", "the regularizers", benches, _choose_channels, vary, notes)


def fig10(request: EvaluationRequest) -> Report:
    """Vary the layers that are matched: each alone, and the first ones together.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with measures of each setting.

    Source: VITAL, Fig. 10.
    """
    _, benches = prepare_benches(request, {})

    def vary(bench: Bench, units: Sequence[str]) -> Variants:
        usual = choose_recipe(bench.encoder, parse_unit(units[0], bench.encoder))
        pairs = list(zip(usual.layers, usual.weights, strict=True))
        sets = {name: [(name, weight)] for name, weight in pairs}
        sets |= {f"{pairs[0][0]} to {pairs[end][0]}": pairs[: end + 1] for end in range(1, len(pairs))}
        return {
            caption: {"layers": [name for name, _ in chosen], "weights": [weight for _, weight in chosen]}
            for caption, chosen in sets.items()
        }

    notes = ["The recipe's layers with its weights: each alone, then from the first one on."]
    return _ablation("vital-fig10", "the layers", benches, _choose_classes, vary, notes)


def fig11(request: EvaluationRequest) -> Report:
    """Vary the relevance for class neurons: none, layer-wise relevance propagation, guided backpropagation.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with measures of each setting.

    Source: VITAL, Fig. 11.
    """
    _, benches = prepare_benches(request, {})
    methods = {"none": "none", "LRP": "lrp", "guided backprop": "guided-backprop"}
    variants = {caption: {"relevance": method} for caption, method in methods.items()}
    return _ablation("vital-fig11", "relevance on class neurons", benches, _choose_classes, lambda *_: variants, [])


def fig12(request: EvaluationRequest) -> Report:
    """Vary the number of references of a class.

    Args:
        request: the experiment's request.

    Returns:
        The figure, with measures of each setting.

    Source: VITAL, Fig. 12.
    """
    settings, benches = prepare_benches(request, {"numbers": ",".join(map(str, REFERENCES))})
    numbers = parse_whole_numbers("numbers", settings["numbers"])
    variants = {f"{number} references": {"n_references": number} for number in numbers}
    notes = ["Where a class has fewer images, all of them are taken. Figures of many classes: vital-table5."]
    return _ablation("vital-fig12", "the number of references", benches, _choose_classes, lambda *_: variants, notes)


def compute_half_share(opacity: Float[np.ndarray, "height width"]) -> float | None:
    """Compute the smallest share of the pixels that holds half of the opacity.

    Args:
        opacity: the transparency map, from 0 to 1.

    Returns:
        A share from 0 to 0.5; None where all is transparent.
    """
    values = np.sort(opacity.astype(np.float64), axis=None)[::-1]
    if not values.any():
        return None
    return float((np.searchsorted(np.cumsum(values), values.sum() / 2) + 1) / values.size)


def compute_roughness(path: Path) -> float:
    """Compute the mean absolute difference of an image's neighboring pixels.

    Args:
        path: the image file.

    Returns:
        The mean over both directions, of values from 0 to 1.
    """
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=np.float64) / 255
    return float((np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()) / 2)


def measure_visualizations(bench: Bench, units: Sequence[str], paths: Sequence[Path]) -> dict[str, Interval]:
    """Measure what the network makes of visualizations, and how rough they are.

    Args:
        bench: the network.
        units: classes or channels.
        paths: an image file for each unit.

    Returns:
        The probability of the classes or the AUC of the channels, and the roughness, with intervals over units.
    """
    seed = bench.request.seed
    if units[0].startswith("class:"):
        shares, _ = compute_probabilities(bench, paths)
        own = [float(row[parse_unit(unit, bench.encoder).index]) for unit, row in zip(units, shares, strict=True)]
        name = "probability"
    else:
        references = [bench.strongest_activations(unit).tolist() for unit in units]
        rows = zip(units, paths, references, strict=True)
        own = [compare_channel_activations(bench.encoder, unit, [path], values)[0] for unit, path, values in rows]
        name = "AUC"
    return {
        name: bootstrap(own, random_state=seed),
        "roughness": bootstrap([compute_roughness(path) for path in paths], random_state=seed),
    }


def _ablation(
    name: str,
    title: str,
    benches: Mapping[str, Bench],
    choose_units: Callable[[Bench], list[str]],
    variants: Callable[[Bench, Sequence[str]], Variants],
    notes: Sequence[str],
) -> Report:
    """Visualizations of units with each setting: a row a unit, a column a setting; what cannot run is noted."""
    rows, sheets, refused = [], {}, []
    for network, bench in benches.items():
        units = choose_units(bench)
        columns: dict[str, list[Path]] = {}
        for caption, settings in variants(bench, units).items():
            try:
                columns[caption] = bench.visualize("vital", units, settings, label=caption)
            except UsageError as error:
                refused.append(f"{caption} on {bench.model} cannot run: {error}.")
                continue
            row = {"network": network, "setting": caption, "pictures": len(units)}
            rows.append(row | measure_visualizations(bench, units, columns[caption]))
        cells = [
            (paths[index], f"{bench.name_unit(unit)}, {caption}")
            for index, unit in enumerate(units)
            for caption, paths in columns.items()
        ]
        sheets[name if len(benches) == 1 else f"{name}-{network}"] = draw_sheet(cells, len(columns), cell=160)
    reading = (
        "probability, AUC: what the network gives the class, or how the channel answers beside its 50 strongest images "
        "(0.5 as they); roughness: mean difference of neighboring pixels. [95 % bootstrap interval over units]"
    )
    return build_report(name, title, rows, benches, notes=[*notes, reading, *refused], sheets=sheets)


def _choose_classes(bench: Bench) -> list[str]:
    return [f"class:{label}" for label in bench.choose_classes(3)]


def _choose_channels(bench: Bench) -> list[str]:
    units = bench.choose_channels(2)
    bench.search_patches(units)
    return units
