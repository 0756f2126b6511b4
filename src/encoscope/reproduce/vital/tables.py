"""VITAL's Tables 1 to 5: the paper's figure, ours on models and data at hand, how many pictures, and an interval.

A table is a list of rows, each a method with settings; every row has the same measures. Distances of small sets of
pictures lie: KID stands beside them, and so does the untrained network, whose pictures show what the references alone
bring.
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
from encoscope.reproduce.vital.harness import (
    Bench,
    Draws,
    comparable,
    figures,
)
from encoscope.reproduce.vital.judge import channel_figures
from encoscope.reproduce.vital.metrics import judge_of, likeliest, measures, real_measures, real_of
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
from encoscope.reproduce.vital.report import report, sheet

OPTIONS: Mapping[str, Any] = {"judge": "zoo:clip-caltech101", "photos": 50}
"""What tables of classes can be asked, besides. judge: the image-text model of the zero-shot figures. photos: real ones
of each class that pictures are compared with, at most."""
_SHOWN = 8  # classes or channels on a sheet
_BIG = 1024 / 224  # the larger pictures of Table 2, in sides of the network's input
_ENSEMBLE = 8
_STAND_IN_CLASSES = ("Leopards", "dalmatian")


@dataclass(frozen=True)
class TableRow:
    """A row of a table of classes: how it is labelled, how its pictures are made, the paper's figures."""

    line: VitalLine
    method: str
    settings: Mapping[str, Any]
    together: int = 64


def comparison(number: int, request: EvaluationRequest) -> Report:
    """Tables 1 and 2: methods on networks."""
    lines = [line for line in COMPARISON if line.main or number == 2]
    asked, benches = figures(request, OPTIONS, _names(lines))
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Image.Image] = {}
    extractor = benches.get("ResNet50") if number == 2 else None
    for network, bench in benches.items():
        mine = [_row(line, bench) for line in lines if line.network == network]
        found, cells = _of_classes(bench, network, mine, extractor, notes)
        rows += found
        pictures[f"vital-table{number}-{network}"] = _sheet(bench, cells)
    missing = [name for name in _names(lines) if name not in benches]
    if missing:
        notes.append(f"Left out, without a model: {', '.join(missing)}; give --model 'NAME=MODEL'.")
    title = "methods on networks" if number == 1 else "methods on networks, with more of their settings"
    notes.append("r: 224 is the size of the network's own input, r: 1024 in proportion to it; bs: made together.")
    return report(f"vital-table{number}", title, rows, benches, notes=[*_reading(asked), *notes], pictures=pictures)


def table3(request: EvaluationRequest) -> Report:
    """Channels inside the network: AUC and MAD of pictures against the strongest photos (CoSy)."""
    asked, benches = figures(request, {"layer": "", "channels": ""})
    rows, pictures = [], {}
    for network, bench in benches.items():
        units = bench.channels()
        bench.search(units)
        cells: list[tuple[Any, str]] = []
        for method, paper in INNER.items():
            made = bench.drawn(method, units)
            cells += [(path, f"{unit}, {method}") for unit, path in list(zip(units, made.first, strict=True))[:_SHOWN]]
            pairs = [
                channel_figures(bench.encoder, unit, made.of(place), bench.strongest(unit).tolist())
                for place, unit in enumerate(units)
            ]
            for place, measure in enumerate(("AUC", "MAD")):
                ours = bootstrap([pair[place] for pair in pairs], seed=request.seed)
                rows.append(
                    {"method": method, "measure": measure, "paper": paper[measure], "ours": ours}
                    | {"difference": _difference(bench, network, ours, paper[measure])}
                    | {"channels": len(units), "pictures": len(made)}
                )
        pictures["vital-table3"] = sheet(cells, min(len(units), _SHOWN))
    bench = next(iter(benches.values()))
    notes = [
        f"Channels of {bench.layer} at random among those that do not lie still (the paper: 90 of ResNet50, it does "
        "not say of which layer). Control: each channel's 50 strongest photos; AUC 0.5 is as strong as these, MAD in "
        "their standard deviations.",
        *_compute(asked),
    ]
    return report("vital-table3", "channels inside the network", rows, benches, notes=notes, pictures=pictures)


def table4(request: EvaluationRequest) -> Report:
    """The network's two likeliest classes of pictures of two example classes."""
    asked, benches = figures(request, {"photos": 50})
    rows: list[dict[str, Any]] = []
    cells: list[tuple[Any, str]] = []
    for bench in benches.values():
        labels = bench.classes(2, (*CLASSES, *_STAND_IN_CLASSES))
        units = [f"class:{label}" for label in labels]
        for method, paper in PREDICTIONS.items():
            made = None if method == REAL else _drawn_or_none(bench, method, units)
            for place, label in enumerate(labels):
                images = real_of(bench, [label])[0] if method == REAL else made.of(place) if made else []
                name = bench.names[label]
                plain = name.partition(",")[0]
                printed = paper[CLASSES.index(plain)] if plain in CLASSES else None
                row = {"pictures of": name, "images": method, "paper": printed}
                rows.append(row | _two_likeliest(bench, images, label, request.seed))
                cells += [
                    (path, f"{method}: {rows[-1]['#1']} {_plain(rows[-1]['#1 score']):.0%}") for path in images[:1]
                ]
    notes = [
        "#1 and #2: the classes of largest mean probability over the images, with the mean's interval where there are "
        "several; the paper does not say whether its real image is one photo or a mean. right: #1 is the class.",
        *_compute(asked),
    ]
    pictures = {"vital-table4": sheet(cells, min(2, len(cells)))}
    title = "what the network takes pictures for"
    return report("vital-table4", title, rows, benches, notes=notes, pictures=pictures)


def table5(request: EvaluationRequest) -> Report:
    """The number of references of a class."""
    asked, benches = figures(request, {**OPTIONS, "numbers": ",".join(map(str, REFERENCES))})
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Image.Image] = {}
    for network, bench in benches.items():
        numbers = whole_numbers("numbers", asked["numbers"])
        mine = [
            TableRow(
                VitalLine(network, "vital", f"{number} references", REFERENCES.get(number)), "vital", {"number": number}
            )
            for number in numbers
        ]
        found, cells = _of_classes(bench, network, [TableRow(VitalLine(network, REAL), REAL, {}), *mine], None, notes)
        rows += found
        pictures["vital-table5"] = _sheet(bench, cells)
        fewest = min(np.bincount(bench.photos.labels)[bench.classes()])
        if fewest < max(numbers):
            notes.append(f"Of some of these classes there are but {fewest} photos: larger numbers take all there are.")
    title = "the number of references"
    return report("vital-table5", title, rows, benches, notes=[*_reading(asked), *notes], pictures=pictures)


table1, table2 = (partial(comparison, number) for number in (1, 2))


def whole_numbers(name: str, text: Any) -> list[int]:
    """``5,10`` as numbers from 1 on. UsageError names the setting."""
    parts = [part.strip() for part in str(text).split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{name} are whole numbers from 1 on, with commas between them, not {text!r}")
    return [int(part) for part in parts]


def _row(line: VitalLine, bench: Bench) -> TableRow:
    """How a row of the comparison is made."""
    if line.method in (REAL, CONTROL, "vital") or line.quoted:
        return TableRow(line, line.method, {})
    settings: dict[str, Any] = {"ensemble": _ENSEMBLE} if line.method == "plugin" else {}
    if line.setup == "r: 1024":
        settings["size"] = [round(_BIG * side) for side in bench.encoder.preprocess.size]
    batch = line.setup.removeprefix("bs: ")
    return TableRow(line, line.method, settings, int(batch) if batch.isdigit() else 64)


def _of_classes(
    bench: Bench, network: str, rows: Sequence[TableRow], extractor: Bench | None, notes: list[str]
) -> tuple[list[dict[str, Any]], list[tuple[Any, str]]]:
    """Each row's measures, one below the other, and its pictures; a method the network does not take is a note."""
    labels = bench.classes()
    cells: list[tuple[Any, str]] = []
    units = [f"class:{label}" for label in labels]
    judge = judge_of(bench, notes)
    found: list[dict[str, Any]] = []
    for row in rows:
        line = row.line
        about = {"network": network, "method": line.method, "setup": line.setup}
        if line.quoted:
            values, count = dict.fromkeys(line.paper or ()), 0
        elif line.method == REAL:
            values, count = real_measures(bench, judge, labels)
        else:
            try:
                made = _made(bench, row, units)
            except UsageError as error:
                notes.append(f"{line.method} on {bench.model} cannot run: {error}.")
                values, count = dict.fromkeys(line.paper or ()), 0
            else:
                values, count = measures(bench, judge, made, labels, extractor), len(made)
                named = list(zip(labels, made.first, strict=True))[:_SHOWN]
                cells += [(path, f"{bench.names[label]}, {_label(line)}") for label, path in named]
        for measure, ours in values.items():
            paper = (line.paper or {}).get(measure)
            paper = None if paper is None else paper / 100 if measure in PERCENT else paper
            found.append(
                {**about, "measure": measure, "paper": paper}
                | {"ours": ours.value if isinstance(ours, KernelDistance) else ours}
                | {"spread": ours.std if isinstance(ours, KernelDistance) else None}
                | {"difference": _difference(bench, network, ours, paper), "images": count or None}
            )
    return found, cells


def _sheet(bench: Bench, cells: Sequence[tuple[Any, str]]) -> Image.Image:
    """The first classes' pictures, a row for each row of the table."""
    return sheet(cells, min(len(bench.classes()), _SHOWN))


def _made(bench: Bench, row: TableRow, units: Sequence[str]) -> Draws:
    if row.method == CONTROL:
        return bench.drawn("vital", units, label=CONTROL, control=True)
    return bench.drawn(row.method, units, row.settings, together=row.together, label=_label(row.line))


def _label(line: VitalLine) -> str:
    return f"{line.method} ({line.setup})" if line.setup else line.method


def _drawn_or_none(bench: Bench, method: str, units: Sequence[str]) -> Draws | None:
    """None for a method that the network does not take."""
    try:
        return bench.drawn(method, units)
    except UsageError:
        return None


def _two_likeliest(bench: Bench, images: Sequence[Path], label: int, seed: int) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(("#1", "#1 score", "#2", "#2 score", "right"))
    if not images:
        return empty | {"count": 0}
    shares, _ = likeliest(bench, images)
    first, second = np.argsort(-shares.mean(0), kind="stable")[:2].tolist()
    return {
        "#1": bench.names[first],
        "#1 score": _score(shares[:, first], seed),
        "#2": bench.names[second],
        "#2 score": _score(shares[:, second], seed),
        "right": first == label,
        "count": len(images),
    }


def _score(shares: Float[np.ndarray, " images"], seed: int) -> Interval | float:
    """A mean probability, with its interval where there are several images."""
    return bootstrap(shares, seed=seed) if len(shares) > 1 else float(shares[0])


def _difference(bench: Bench, network: str, ours: Any, paper: float | None) -> float | None:
    if paper is None or ours is None or not comparable(bench, network):
        return None
    return round(_plain(ours) - paper, 4)


def _plain(value: Any) -> float:
    return value.value if isinstance(value, Interval | KernelDistance) else value


def _names(lines: Sequence[VitalLine]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.network for line in lines))


def _reading(asked: Mapping[str, Any]) -> list[str]:
    return [
        f"Intervals: 95 % bootstrap over classes (photos for {REAL}). spread: of KID, over random subsets. FID, of "
        "fewer than some 3,000 pictures, is far from the paper's, whatever the method: read KID, and both beside those "
        f"of {REAL}, which are one half of the photos from the other.",
        f"Zero-shot: {asked['judge']} among all the network's classes that it was taught; of {REAL} those the network "
        f"takes for their class. {CONTROL}: the same references, and the trained network's word on what comes out.",
        *_compute(asked),
    ]


def _compute(asked: Mapping[str, Any]) -> list[str]:
    if asked["compute"] == "paper":
        return [f"Each method with its own number of steps; MACO and Fourier see {asked['crops']} crops a step."]
    return [
        "Equal compute: the other methods have VITAL's processor time, measured here; MACO and Fourier see "
        f"{asked['crops']} crops a step (--set compute=paper --set crops=32 for steps as they were published)."
    ]
