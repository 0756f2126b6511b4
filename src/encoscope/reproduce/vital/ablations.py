"""VITAL's Figs. 8 to 12, what shapes a picture: transparency, regularisers, layers, relevance, references.

Each function reads like the paper's paragraph: which units, which settings. Beside the pictures stands what the network
makes of them, and how rough they are.
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
from encoscope.reproduce.vital.harness import Bench, figures
from encoscope.reproduce.vital.judge import channel_figures
from encoscope.reproduce.vital.metrics import likeliest
from encoscope.reproduce.vital.published import REFERENCES
from encoscope.reproduce.vital.report import report, sheet
from encoscope.reproduce.vital.tables import whole_numbers
from encoscope.units import parse_unit
from encoscope.vital.recipes import choose_recipe

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings of VITAL by what a column is called."""

_FACTORS = (0.0, 0.1, 1.0, 10.0, 100.0)


def fig8(request: EvaluationRequest) -> Report:
    """What the transparency map takes away: a picture as it is, and on white where the loss did not attend to it."""
    _, benches = figures(request, {})
    rows, plain, attended = [], [], []
    for bench in benches.values():
        units = [f"class:{label}" for label in bench.classes(4)]
        made = bench.estimator(units).fit(bench.references, units, progress=request.progress)
        for found in made.stream(progress=request.progress, fresh=request.fresh):
            name = bench.names[parse_unit(found.unit, bench.encoder).index]
            plain.append((found.picture, name))
            attended.append((found.over_white, ""))
            half = half_of(found.transparency)
            rows.append({"class": name, "mean opacity": float(found.transparency.mean()), "half of it lies in": half})
    notes = [
        "Opacity: the mean over the steps of the gradient of the sort-matching loss (Eq. 2), absolute, clipped at its "
        "98th percentile. half of it lies in: the smallest share of the pixels that holds half of it; 0.5 is even."
    ]
    pictures = {"vital-fig8": sheet([*plain, *attended], len(plain))}
    return report("vital-fig8", "the transparency map", rows, benches, notes=notes, pictures=pictures)


def fig9(request: EvaluationRequest) -> Report:
    """The regularisers' factors, of pictures of channels inside the network: each varied, the other left as it is."""
    _, benches = figures(request, {"layer": "", "channels": ""})

    def variants(bench: Bench, units: Sequence[str]) -> Variants:
        usual = choose_recipe(bench.encoder, parse_unit(units[0], bench.encoder), relevance=True)
        tv = {f"TV {usual.tv * factor:.0e}": {"smooth": [usual.tv * factor, usual.l2]} for factor in _FACTORS}
        l2 = {f"l2 {usual.l2 * factor:.0e}": {"smooth": [usual.tv, usual.l2 * factor]} for factor in _FACTORS}
        return tv | l2

    notes = ["Each factor at 0, 0.1, 1, 10 and 100 times its usual value, the other at its own."]
    return _ablation("vital-fig9", "the regularisers", benches, _channels, variants, notes)


def fig10(request: EvaluationRequest) -> Report:
    """The layers that are matched: each alone, and the first ones together."""
    _, benches = figures(request, {})

    def variants(bench: Bench, units: Sequence[str]) -> Variants:
        usual = choose_recipe(bench.encoder, parse_unit(units[0], bench.encoder))
        pairs = list(zip(usual.layers, usual.weights, strict=True))
        sets = {name: [(name, weight)] for name, weight in pairs}
        sets |= {f"{pairs[0][0]} to {pairs[end][0]}": pairs[: end + 1] for end in range(1, len(pairs))}
        return {
            caption: {"layers": [name for name, _ in chosen], "weights": [weight for _, weight in chosen]}
            for caption, chosen in sets.items()
        }

    notes = ["The recipe's layers with its weights: each alone, then from the first one on."]
    return _ablation("vital-fig10", "the layers", benches, _classes, variants, notes)


def fig11(request: EvaluationRequest) -> Report:
    """Relevance for class neurons: none, layer-wise relevance propagation, guided backpropagation."""
    _, benches = figures(request, {})
    methods = {"none": "none", "LRP": "lrp", "guided backprop": "guided-backprop"}
    found = {caption: {"relevance": method} for caption, method in methods.items()}
    return _ablation("vital-fig11", "relevance on class neurons", benches, _classes, lambda *_: found, [])


def fig12(request: EvaluationRequest) -> Report:
    """The number of references of a class."""
    asked, benches = figures(request, {"numbers": ",".join(map(str, REFERENCES))})
    numbers = whole_numbers("numbers", asked["numbers"])
    found = {f"{number} references": {"number": number} for number in numbers}
    notes = ["Where a class has fewer photos, all of them are taken. Figures of many classes: vital-table5."]
    return _ablation("vital-fig12", "the number of references", benches, _classes, lambda *_: found, notes)


def half_of(opacity: Float[np.ndarray, "height width"]) -> float | None:
    """The smallest share of the pixels that holds half of the opacity; None where there is none."""
    values = np.sort(opacity.astype(np.float64), axis=None)[::-1]
    if not values.any():
        return None
    return float((np.searchsorted(np.cumsum(values), values.sum() / 2) + 1) / values.size)


def roughness(path: Path) -> float:
    """The mean absolute difference of a picture's neighbouring pixels, of values in [0, 1]."""
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"), dtype=np.float64) / 255
    return float((np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()) / 2)


def worth(bench: Bench, units: Sequence[str], paths: Sequence[Path]) -> dict[str, Interval]:
    """What the network makes of units' pictures, a class's probability or a channel's AUC, and how rough they are."""
    seed = bench.request.seed
    if units[0].startswith("class:"):
        shares, _ = likeliest(bench, paths)
        own = [float(row[parse_unit(unit, bench.encoder).index]) for unit, row in zip(units, shares, strict=True)]
        name = "probability"
    else:
        control = [bench.strongest(unit).tolist() for unit in units]
        rows = zip(units, paths, control, strict=True)
        own = [channel_figures(bench.encoder, unit, [path], values)[0] for unit, path, values in rows]
        name = "AUC"
    return {name: bootstrap(own, seed=seed), "roughness": bootstrap([roughness(path) for path in paths], seed=seed)}


def _ablation(
    name: str,
    title: str,
    benches: Mapping[str, Bench],
    chosen: Callable[[Bench], list[str]],
    variants: Callable[[Bench, Sequence[str]], Variants],
    notes: Sequence[str],
) -> Report:
    """Pictures of some units under each setting: a row a unit, a column a setting. What cannot be is noted."""
    rows, pictures, refused = [], {}, []
    for network, bench in benches.items():
        units = chosen(bench)
        columns: dict[str, list[Path]] = {}
        for caption, settings in variants(bench, units).items():
            try:
                columns[caption] = bench.pictures("vital", units, settings, label=caption)
            except UsageError as error:
                refused.append(f"{caption} on {bench.model} cannot run: {error}.")
                continue
            row = {"network": network, "setting": caption, "pictures": len(units)}
            rows.append(row | worth(bench, units, columns[caption]))
        cells = [
            (paths[place], f"{bench.title(unit)}, {caption}")
            for place, unit in enumerate(units)
            for caption, paths in columns.items()
        ]
        pictures[name if len(benches) == 1 else f"{name}-{network}"] = sheet(cells, len(columns), cell=160)
    reading = (
        "probability, AUC: what the network gives the class, or how the channel answers beside its 50 strongest photos "
        "(0.5 as they); roughness: mean difference of neighbouring pixels. [95 % bootstrap interval over units]"
    )
    return report(name, title, rows, benches, notes=[*notes, reading, *refused], pictures=pictures)


def _classes(bench: Bench) -> list[str]:
    return [f"class:{label}" for label in bench.classes(3)]


def _channels(bench: Bench) -> list[str]:
    units = bench.channels(2)
    bench.search(units)
    return units
