"""NAVE's Tables 1 to 7: the paper's figure, ours on models and data at hand, and what an oracle's figure is worth.

Every row of NAVE stands beside as many random segments chosen in the same way, and beside the choice made without the
true boxes. A network of the paper that has no model has an empty row, or a stand-in, which the table names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation import localization
from encoscope.evaluation.baselines import CONTROL, MATCHED, Baseline
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import (
    AnnotatedImage,
    Measurements,
    compute_difference,
    compute_interval,
    drop_duplicates,
    measure_images,
    shorten_dataset,
)
from encoscope.evaluation.settings import SCORES
from encoscope.images import SkippedImage, open_boxed_dataset
from encoscope.nave.layers import choose_size
from encoscope.reproduce.inputs import load_model
from encoscope.reproduce.nave.published import (
    IMAGENET,
    NONE,
    SETS,
    STAND_INS,
    TABLES,
    WEIGHTS,
    NaveLine,
    NaveTable,
)
from encoscope.zoo import find_entry

OPTIONS: Mapping[str, Any] = {"size": None, "min_area": 784, "border": 14, "score": "outer", "layers": None}
"""What can be set, with the defaults. size: "native", but the default settings' for the zoo's networks: those of
Caltech-101 were trained on photos of 128 pixels."""

_PAPER = "paper"


def table(number: int, request: EvaluationRequest) -> Report:
    """Run a table of the paper.

    Args:
        number: number of the table, 1 to 7.
        request: the experiment's request.

    Returns:
        The table.

    Raises:
        UsageError: without a dataset, and for settings that cannot be.

    Source: NAVE, Tables 1 to 7.
    """
    published = TABLES[number]
    if not request.datasets:
        raise UsageError(
            f"nave-table{number} needs --dataset, with boxes: voc07:ROOT, voc12:ROOT, coco20k:ROOT or coco:IMAGES#JSON"
        )
    models, extra = assign_models(published, request.models)
    lines = [*published.lines, *extra]
    settings = _check_settings(request)
    read = {text: localization.list_boxed_images(open_boxed_dataset(text), request.limit) for text in request.datasets}
    bench = _Bench(models, settings, request)
    rows, shown = [], len(read) > 1
    for text, examples in read.items():
        for line in lines:
            row = _row(line, bench, text, examples)
            rows.append(({"dataset": shorten_dataset(text)} if shown else {}) | row)
    missing = [feature for feature in published.features if feature not in models]
    return Report(
        f"nave-table{number}",
        f"NAVE, Table {number}: {published.title}" + ("" if shown else f" ({shorten_dataset(request.datasets[0])})"),
        rows,
        notes=_notes(request, bench, missing),
        settings={"datasets": list(request.datasets), "models": models, "limit": request.limit, **bench.settings},
        seed=request.seed,
        skipped=drop_duplicates(bench.skipped),
    )


table1, table2, table3, table4, table5, table6, table7 = (partial(table, number) for number in range(1, 8))


def assign_models(table: NaveTable, requested: Sequence[str]) -> tuple[dict[str, str], list[NaveLine]]:
    """Assign a model to each of a table's networks, and make rows for models that are none of them.

    "FEATURE=MODEL" names the network that a model is or stands for, a name of one's own makes rows of its own; "paper"
    takes the paper's weights; another model is the network whose weights it names, or stands for the next one without a
    model. Without models, the zoo's stand-ins are taken, and its ImageNet networks have rows of their own; beside
    methods that look for objects (Table 1) with the default settings as well.

    Args:
        table: the table.
        requested: the requested models.

    Returns:
        Model strings by network, and the further rows.
    """
    models: dict[str, str] = {}
    presets: tuple[Mapping[str, Any], ...] = ({},)
    if not requested:
        presets += ({"preset": "default"},) if any(line.method == "lost" for line in table.lines) else ()
        models = {name: STAND_INS[name] for name in table.features if name in STAND_INS}
        requested = [f"{name}={model}" for name, model in IMAGENET.items() if _is_installed(model)]
    named = [text.split("=", 1) for text in requested if "=" in text]
    rest = [text for text in requested if "=" not in text]
    if _PAPER in rest:
        models |= {name: WEIGHTS[name] for name in table.features if name in WEIGHTS}
    known = {model: name for name, model in WEIGHTS.items() if name in table.features}
    models |= {known[text]: text for text in rest if text in known}
    models |= {name: model for name, model in named if name in table.features}
    own = [(name, model) for name, model in named if name not in table.features]
    for text in rest:
        if text == _PAPER or text in known:
            continue
        free = next((name for name in table.features if name not in models), None)
        if free is None:
            own.append((text, text))
        else:
            models[free] = text
    template = [line for line in table.lines if line.method == "nave" and line.feature == table.features[-1]]
    extra = [
        replace(line, feature=name, paper=NONE, name="", options={**line.options, **preset})
        for name, _ in own
        for preset in presets
        for line in template
    ]
    return models | dict(own), extra


def _is_installed(model: str) -> bool:
    """Whether the weights of a network of the zoo are at hand."""
    return find_entry(model.removeprefix("zoo:").partition("@")[0]).file is not None


class _Bench:
    """What the rows of a table share: loaded encoders, what was measured, settings; and what could not be run."""

    def __init__(self, models: Mapping[str, str], settings: Mapping[str, Any], request: EvaluationRequest) -> None:
        self.models, self.settings, self.request = models, settings, request
        self.refused: dict[str, str] = {}
        self.skipped: list[SkippedImage] = []
        self._encoders: dict[str, Encoder] = {}
        self._measured: dict[tuple[str, str], Measurements] = {}

    def encoder(self, feature: str) -> Encoder:
        """The network that stands under a name."""
        model = self.models[feature]
        if model not in self._encoders:
            self._encoders[model] = load_model(self.request, model)
        return self._encoders[model]

    def create_baseline(self, line: NaveLine, feature: str, method: str) -> Baseline:
        """A method at a row's settings."""
        ours = self.models[feature].startswith("zoo:")
        size = self.settings["size"] or (choose_size(self.encoder(feature)) if ours else "native")
        options = {"preset": "paper", **line.options} if method == "nave" else {}
        if method == "nave" and self.settings["layers"]:
            options["layers"] = self.settings["layers"]
        return Baseline(
            method,
            None if method in MATCHED else self.encoder(feature),
            line.clusters,
            options,
            size,
            self.settings["min_area"],
            self.settings["border"],
            self.request.seed,
        )

    def measure(self, line: NaveLine, method: str, text: str, examples: Sequence[AnnotatedImage]) -> Measurements:
        """What a method makes of a dataset, each combination once; matched methods follow the row's NAVE."""
        feature = line.feature or next(iter(self.models))
        baseline = self.create_baseline(line, feature, method)
        control_of = self.measure(line, "nave", text, examples) if baseline.matched else None
        key = (text, f"{method} {self.models[feature]} {line.clusters} {dict(line.options)}")
        if key not in self._measured:
            measured = measure_images(
                localization.TASK,
                baseline,
                examples,
                like=control_of,
                fresh=self.request.fresh,
                label=f"{method}, {feature}",
                progress=self.request.progress,
            )
            self._measured[key] = measured
            self.skipped += measured.skipped
        return self._measured[key]


def _row(line: NaveLine, bench: _Bench, text: str, examples: Sequence[AnnotatedImage]) -> dict[str, Any]:
    """A row: the paper's figure, ours, and beside an oracle what it is worth."""
    paper = line.paper[_column(text)]
    row: dict[str, Any] = {
        "row": line.label,
        "feature": line.feature,
        "model": None if line.feature is None or line.quoted else bench.models.get(line.feature),
        "paper": None if paper is None else paper / 100,
        **dict.fromkeys(("ours", "difference", "border", "random", "ours - random", "candidates", "images")),
    }
    if line.quoted or not bench.models or (line.feature is not None and line.feature not in bench.models):
        return row
    seed, score = bench.request.seed, bench.settings["score"]
    try:
        measured = bench.measure(line, line.method, text, examples)
    except UsageError as error:
        if line.method == "nave" or line.method in MATCHED:
            raise
        bench.refused[f"{line.label} on {row['model']}"] = str(error)
        return row

    def corloc(method: Measurements, select: str = line.select) -> np.ndarray:
        return localization.compute_corloc(method, select, score)

    ours = compute_interval(corloc(measured), seed)
    row |= {"ours": ours, "candidates": measured.mean("candidates"), "images": int((~np.isnan(corloc(measured))).sum())}
    if ours is not None and paper is not None:
        row["difference"] = round(ours.value - paper / 100, 3)
    if line.method == "nave" or line.method in MATCHED:
        row["border"] = _value(corloc(measured, "border"))
        if line.method != CONTROL:
            control = bench.measure(line, CONTROL, text, examples)
            row |= {
                "random": _value(corloc(control)),
                "ours - random": compute_difference(measured, control, corloc, seed),
            }
    return row


def _value(values: np.ndarray) -> float | None:
    result = compute_interval(values)
    return None if result is None else result.value


def _column(text: str) -> int:
    """The paper's column for a dataset: VOC07's or VOC12's own, COCO20k's for anything else."""
    return {"voc07": 0, "voc12": 1}.get(text.partition(":")[0], 2)


def _check_settings(request: EvaluationRequest) -> dict[str, Any]:
    settings = request.settings(OPTIONS)
    if settings["score"] not in SCORES:
        raise UsageError(f"score is {' or '.join(SCORES)}, not {settings['score']!r}")
    for name in ("min_area", "border"):
        if not isinstance(settings[name], int) or settings[name] < 0:
            raise UsageError(f"{name} is a number of pixels, at least 0, not {settings[name]!r}")
    return settings


def _notes(request: EvaluationRequest, bench: _Bench, missing: Sequence[str]) -> list[str]:
    size = bench.settings["size"] or "native size (the zoo's networks: at two or three times their own, as by default)"
    notes = [
        f"CorLoc: share of images whose chosen box has IoU > 0.5 with a true box; K = 5 unless said; images at {size}; "
        f"segments of more than {bench.settings['min_area']} pixels, a frame of {bench.settings['border']} "
        f"taken away; outer and inner are how a segment is chosen, the {bench.settings['score']} box is scored.",
        "nave, slic, felzenszwalb, grid and random are chosen with the true boxes known (an oracle). border: the "
        "same segments, the one that touches the image's border least, no oracle. random: as many Voronoi cells as "
        "NAVE has candidates, chosen by the same oracle. Others look for one object (maskcut for "
        "three) and need no choice.",
    ]
    foreign = sorted({model for model in bench.models.values() if model not in WEIGHTS.values()})
    if foreign:
        notes.append(
            f"Not the paper's networks, and so no reproduction of its figures: {', '.join(foreign)}. The paper's own, "
            "from their public sources: --model paper."
        )
    others = [text for text in request.datasets if text.partition(":")[0] not in ("voc07", "voc12", "coco20k")]
    if others:
        notes.append(
            f"The paper's figures are those on {SETS[2]}; {', '.join(map(shorten_dataset, others))} stands in for it."
        )
    notes += [f"{name} cannot run: {reason}" for name, reason in bench.refused.items()]
    if missing:
        notes.append(
            f"Empty rows: no model for {', '.join(missing)}; give --model 'NAME=MODEL', such as "
            f"--model '{missing[0]}={WEIGHTS.get(missing[0], 'timm:vit_small_patch16_224@FILE')}'."
        )
    return notes
