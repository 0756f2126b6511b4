"""VITAL's Tables 1 to 5: the paper's figure, ours on models and data at hand, the number of images, and an interval.

A table is a list of rows, each a method with settings; every row has the same measures. Distances of small sets of
images are unreliable: KID stands beside them, and so does the untrained network, whose visualizations show what the
references alone contribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import Interval, KernelDistance, bootstrap
from encoscope.reproduce.sheets import Cell, draw_sheet
from encoscope.reproduce.vital.harness import (
    Bench,
    SeededImages,
    is_papers_network,
    prepare_benches,
)
from encoscope.reproduce.vital.judge import compare_channel_activations
from encoscope.reproduce.vital.metrics import (
    compute_probabilities,
    load_judge,
    measure_images,
    measure_real_classes,
    select_real_images,
)
from encoscope.reproduce.vital.published import (
    CLASSES,
    COMPARISON,
    CONTROL,
    INNER,
    PERCENT,
    PREDICTIONS,
    REAL,
    REFERENCES,
    VitalLine,
)
from encoscope.reproduce.vital.report import build_report

OPTIONS: Mapping[str, Any] = {"judge": "zoo:clip-caltech101", "images": 50}
"""Further settings of tables of classes. judge: the image-text model of the zero-shot figures. images: real ones of
each class that visualizations are compared with, at most."""
_SHOWN = 8  # classes or channels on a sheet
_LARGE = 1024 / 224  # the larger images of Table 2, in sides of the network's input
_ENSEMBLE = 8
_STAND_IN_CLASSES = ("Leopards", "dalmatian")


@dataclass(frozen=True)
class TableRow:
    """A row of a table of classes.

    Attributes:
        line: how it is labelled, and the paper's figures.
        method: the method of its visualizations, or the name of a control.
        settings: settings of the method.
        together: how many visualizations DeepInversion makes at once.
    """

    line: VitalLine
    method: str
    settings: Mapping[str, Any]
    together: int = 64


def compare_methods(number: int, request: EvaluationRequest) -> Report:
    """Compare methods on networks: Tables 1 and 2.

    Args:
        number: number of the table; 2 has more settings.
        request: the experiment's request.

    Returns:
        The table, with a sheet for each network.

    Source: VITAL, Tables 1 and 2.
    """
    lines = [line for line in COMPARISON if line.main or number == 2]
    settings, benches = prepare_benches(request, OPTIONS, _names(lines))
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    sheets: dict[str, Image.Image] = {}
    extractor = benches.get("ResNet50") if number == 2 else None
    for network, bench in benches.items():
        own_rows = [_plan_row(line, bench) for line in lines if line.network == network]
        class_rows, cells = _measure_rows(bench, network, own_rows, extractor, notes)
        rows += class_rows
        sheets[f"vital-table{number}-{network}"] = _sheet(bench, cells)
    missing = [name for name in _names(lines) if name not in benches]
    if missing:
        notes.append(f"Left out, without a model: {', '.join(missing)}; give --model 'NAME=MODEL'.")
    title = "methods on networks" if number == 1 else "methods on networks, with more of their settings"
    notes.append("r: 224 is the size of the network's own input, r: 1024 in proportion to it; bs: made together.")
    return build_report(
        f"vital-table{number}", title, rows, benches, notes=[*_reading(settings), *notes], sheets=sheets
    )


def table3(request: EvaluationRequest) -> Report:
    """Compare visualizations of channels inside the network with their strongest images: AUC and MAD (CoSy).

    Args:
        request: the experiment's request.

    Returns:
        The table, with a sheet of channels.

    Source: VITAL, Table 3.
    """
    settings, benches = prepare_benches(request, {"layer": "", "channels": ""})
    rows, sheets = [], {}
    for network, bench in benches.items():
        units = bench.choose_channels()
        bench.search_patches(units)
        cells: list[Cell] = []
        for method, paper in INNER.items():
            images = bench.visualize_seeds(method, units)
            cells += [
                (path, f"{unit}, {method}") for unit, path in list(zip(units, images.first, strict=True))[:_SHOWN]
            ]
            pairs = [
                compare_channel_activations(
                    bench.encoder, unit, images.of_unit(index), bench.strongest_activations(unit).tolist()
                )
                for index, unit in enumerate(units)
            ]
            for index, measure in enumerate(("AUC", "MAD")):
                ours = bootstrap([pair[index] for pair in pairs], random_state=request.seed)
                rows.append(
                    {"method": method, "measure": measure, "paper": paper[measure], "ours": ours}
                    | {"difference": _difference(bench, network, ours, paper[measure])}
                    | {"channels": len(units), "pictures": len(images)}
                )
        sheets["vital-table3"] = draw_sheet(cells, min(len(units), _SHOWN))
    bench = next(iter(benches.values()))
    notes = [
        f"Channels of {bench.layer} at random among those whose value varies (the paper: 90 of ResNet50, it does "
        "not say of which layer). Control: each channel's 50 strongest images; AUC 0.5 is as strong as these, MAD in "
        "their standard deviations.",
        *_compute(settings),
    ]
    return build_report("vital-table3", "channels inside the network", rows, benches, notes=notes, sheets=sheets)


def table4(request: EvaluationRequest) -> Report:
    """List the network's two likeliest classes of visualizations of two example classes.

    Args:
        request: the experiment's request.

    Returns:
        The table, with a sheet.

    Source: VITAL, Table 4.
    """
    settings, benches = prepare_benches(request, {"images": 50})
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    for bench in benches.values():
        labels = bench.choose_classes(2, (*CLASSES, *_STAND_IN_CLASSES))
        units = [f"class:{label}" for label in labels]
        for method, paper in PREDICTIONS.items():
            images = None if method == REAL else _visualize_or_none(bench, method, units)
            for index, label in enumerate(labels):
                if method == REAL:
                    paths = list(select_real_images(bench, [label]).paths)
                else:
                    paths = [] if images is None else images.of_unit(index)
                name = bench.names[label]
                plain = name.partition(",")[0]
                printed = paper[CLASSES.index(plain)] if plain in CLASSES else None
                row = {"pictures of": name, "images": method, "paper": printed}
                rows.append(row | _two_likeliest(bench, paths, label, request.seed))
                cells += [
                    (path, f"{method}: {rows[-1]['#1']} {_plain(rows[-1]['#1 score']):.0%}") for path in paths[:1]
                ]
    notes = [
        "#1 and #2: the classes of largest mean probability over the images, with the mean's interval where there are "
        "several; the paper does not say whether its real image is one image or a mean. right: #1 is the class.",
        *_compute(settings),
    ]
    sheets = {"vital-table4": draw_sheet(cells, min(2, len(cells)))}
    title = "what the network takes visualizations for"
    return build_report("vital-table4", title, rows, benches, notes=notes, sheets=sheets)


def table5(request: EvaluationRequest) -> Report:
    """Compare numbers of references of a class.

    Args:
        request: the experiment's request.

    Returns:
        The table, with a sheet.

    Source: VITAL, Table 5.
    """
    settings, benches = prepare_benches(request, {**OPTIONS, "numbers": ",".join(map(str, REFERENCES))})
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    sheets: dict[str, Image.Image] = {}
    for network, bench in benches.items():
        numbers = parse_whole_numbers("numbers", settings["numbers"])
        own_rows = [
            TableRow(
                VitalLine(network, "vital", f"{number} references", REFERENCES.get(number)),
                "vital",
                {"n_references": number},
            )
            for number in numbers
        ]
        class_rows, cells = _measure_rows(
            bench, network, [TableRow(VitalLine(network, REAL), REAL, {}), *own_rows], None, notes
        )
        rows += class_rows
        sheets["vital-table5"] = _sheet(bench, cells)
        fewest = min(np.bincount(bench.images.labels)[bench.choose_classes()])
        if fewest < max(numbers):
            notes.append(f"Some of these classes have only {fewest} images: larger numbers take all of them.")
    title = "the number of references"
    return build_report("vital-table5", title, rows, benches, notes=[*_reading(settings), *notes], sheets=sheets)


table1, table2 = (partial(compare_methods, number) for number in (1, 2))


def parse_whole_numbers(name: str, text: Any) -> list[int]:
    """Parse ``5,10`` as numbers from 1 on.

    Args:
        name: name of the setting, for the error message.
        text: the setting.

    Returns:
        The numbers.

    Raises:
        UsageError: for anything else than whole numbers from 1 on.
    """
    numbers = [number.strip() for number in str(text).split(",")]
    if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
        raise UsageError(f"{name} are whole numbers from 1 on, with commas between them, not {text!r}")
    return [int(number) for number in numbers]


def _plan_row(line: VitalLine, bench: Bench) -> TableRow:
    """Plan how the images of a row of the comparison are made."""
    if line.method in (REAL, CONTROL, "vital") or line.quoted:
        return TableRow(line, line.method, {})
    settings: dict[str, Any] = {"n_views": _ENSEMBLE} if line.method == "plugin" else {}
    if line.setup == "r: 1024":
        settings["size"] = [round(_LARGE * side) for side in bench.encoder.preprocess.size]
    batch = line.setup.removeprefix("bs: ")
    return TableRow(line, line.method, settings, int(batch) if batch.isdigit() else 64)


def _measure_rows(
    bench: Bench, network: str, rows: Sequence[TableRow], extractor: Bench | None, notes: list[str]
) -> tuple[list[dict[str, Any]], list[Cell]]:
    """The measures of each row, one below the other, and its images; a method that cannot run is a note."""
    labels = bench.choose_classes()
    cells: list[Cell] = []
    units = [f"class:{label}" for label in labels]
    judge = load_judge(bench, notes)
    rows_of_measures: list[dict[str, Any]] = []
    for row in rows:
        line = row.line
        identity = {"network": network, "method": line.method, "setup": line.setup}
        if line.quoted:
            values, count = dict.fromkeys(line.paper or ()), 0
        elif line.method == REAL:
            values, count = measure_real_classes(bench, judge, labels)
        else:
            try:
                images = _visualize_row(bench, row, units)
            except UsageError as error:
                notes.append(f"{line.method} on {bench.model} cannot run: {error}.")
                values, count = dict.fromkeys(line.paper or ()), 0
            else:
                values, count = measure_images(bench, judge, images, labels, extractor), len(images)
                named = list(zip(labels, images.first, strict=True))[:_SHOWN]
                cells += [(path, f"{bench.names[label]}, {_label(line)}") for label, path in named]
        for measure, ours in values.items():
            paper = (line.paper or {}).get(measure)
            paper = None if paper is None else paper / 100 if measure in PERCENT else paper
            rows_of_measures.append(
                {**identity, "measure": measure, "paper": paper}
                | {"ours": ours.value if isinstance(ours, KernelDistance) else ours}
                | {"spread": ours.std if isinstance(ours, KernelDistance) else None}
                | {"difference": _difference(bench, network, ours, paper), "images": count or None}
            )
    return rows_of_measures, cells


def _sheet(bench: Bench, cells: Sequence[Cell]) -> Image.Image:
    """The images of the first classes, a row for each row of the table."""
    return draw_sheet(cells, min(len(bench.choose_classes()), _SHOWN))


def _visualize_row(bench: Bench, row: TableRow, units: Sequence[str]) -> SeededImages:
    if row.method == CONTROL:
        return bench.visualize_seeds("vital", units, label=CONTROL, control=True)
    return bench.visualize_seeds(row.method, units, row.settings, together=row.together, label=_label(row.line))


def _label(line: VitalLine) -> str:
    return f"{line.method} ({line.setup})" if line.setup else line.method


def _visualize_or_none(bench: Bench, method: str, units: Sequence[str]) -> SeededImages | None:
    """None for a method that the network does not take."""
    try:
        return bench.visualize_seeds(method, units)
    except UsageError:
        return None


def _two_likeliest(bench: Bench, images: Sequence[Path], label: int, random_state: int) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(("#1", "#1 score", "#2", "#2 score", "right"))
    if not images:
        return empty | {"count": 0}
    shares, _ = compute_probabilities(bench, images)
    first, second = np.argsort(-shares.mean(0), kind="stable")[:2].tolist()
    return {
        "#1": bench.names[first],
        "#1 score": _score(shares[:, first], random_state),
        "#2": bench.names[second],
        "#2 score": _score(shares[:, second], random_state),
        "right": first == label,
        "count": len(images),
    }


def _score(shares: Float[np.ndarray, " images"], random_state: int) -> Interval | float:
    """A mean probability, with its interval where there are several images."""
    return bootstrap(shares, random_state=random_state) if len(shares) > 1 else float(shares[0])


def _difference(bench: Bench, network: str, ours: Any, paper: float | None) -> float | None:
    if paper is None or ours is None or not is_papers_network(bench, network):
        return None
    return round(_plain(ours) - paper, 4)


def _plain(value: Any) -> float:
    return value.value if isinstance(value, Interval | KernelDistance) else value


def _names(lines: Sequence[VitalLine]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.network for line in lines))


def _reading(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"Intervals: 95 % bootstrap over classes (images for {REAL}). spread: of KID, over random subsets. FID, of "
        "fewer than some 3,000 images, is far from the paper's, whatever the method: read KID, and both beside those "
        f"of {REAL}, which are one half of the images from the other.",
        f"Zero-shot: {settings['judge']} among all the network's classes that it was taught; of {REAL} those the "
        f"network takes for their class. {CONTROL}: the same references, and the trained network's answer to the "
        "visualizations.",
        *_compute(settings),
    ]


def _compute(settings: Mapping[str, Any]) -> list[str]:
    if settings["compute"] == "paper":
        return [f"Each method with its own number of steps; MACO and Fourier see {settings['crops']} crops a step."]
    return [
        "Equal compute: the other methods have VITAL's processor time, measured here; MACO and Fourier see "
        f"{settings['crops']} crops a step (--set compute=paper --set crops=32 for steps as they were published)."
    ]
