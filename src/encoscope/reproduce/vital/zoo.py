"""VITAL and the methods it is compared with, on the zoo's Caltech-101 classifier, with controls.

``python -m encoscope.reproduce.vital.zoo caltech101:ROOT`` first pictures all classes with VITAL, then some with an
untrained network and the same references (what a judge recognises there shows the references, not the network), then
the same ones with every method at equal compute, then channels. Each picture is kept when it is made; the table is
written after every part, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoscope.errors import EncoscopeError
from encoscope.evaluation.report import Report
from encoscope.metrics import bootstrap
from encoscope.probing import probe
from encoscope.reproduce.vital.experiment import PARTS, ComparisonExperiment, ComparisonSettings
from encoscope.reproduce.vital.image_cache import CANDIDATES, encoder_of
from encoscope.reproduce.vital.judge import channel_figures, real_row
from encoscope.units import channel_unit
from encoscope.vital.references.patches import find_patch_references

CLASSES = {"smooth": 1e-3}
"""VITAL's setting where all classes are pictured, and in the control."""
SEARCH: Mapping[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "vital": ("vital", ({"smooth": 1e-3}, {"smooth": 3e-4}, {"smooth": 0.0})),
    "vital, moments": ("vital", tuple({"matching": "moments", "smooth": smooth} for smooth in (1e-3, 0.0))),
    "deepinversion": ("deepinversion", ({}, {"lr": 0.2}, {"statistics": 0.01})),
    "maco": ("maco", ({"crops": 1}, {"crops": 4}, {"crops": 1, "side": 0.5})),
    "fourier": ("fourier", ({}, {"views": "crops", "lr": 1.0}, {"views": "crops", "lr": 0.05})),
    "plugin": ("plugin", ({"ensemble": 1}, {"ensemble": 4}, {"ensemble": 4, "lr": 0.05})),
}
"""What a row of the table is called: the method, and the settings that are tried, the first ones being the default."""
CHANNEL_METHODS = ("vital", "maco", "fourier")
_CONTROL = 50  # strongest real images of a channel
_SHOWN = 8  # classes on the sheet that compares methods


def run(asked: ComparisonSettings) -> Report:
    """All parts that were asked for, in order of weight; the table is written after each."""
    study = ComparisonExperiment(asked)
    study.extra["search"] = {what: list(options) for what, (_, options) in SEARCH.items()}
    parts: Mapping[str, Callable[[ComparisonExperiment], None]] = {
        "classes": all_classes,
        "untrained": untrained,
        "methods": methods,
        "channels": channels,
    }
    for part in PARTS:
        if part in asked.parts:
            parts[part](study)
            study.write()
    return study.report()


def all_classes(study: ComparisonExperiment) -> None:
    """VITAL over all classes."""
    labels = list(range(len(study.names)))[: study.asked.limit]
    trial = study.trial("vital", CLASSES, [f"class:{study.names[label]}" for label in labels], study.asked.steps)
    study.make([trial], "VITAL, all classes")
    study.rows.append({"what": "real photos, all classes"} | real_row(study.real, labels, len(labels)))
    study.rows.append({"what": "vital, all classes"} | study.row([trial], labels))
    study.sheet("vital-zoo-classes", trial.pictures, [study.names[label] for label in labels], columns=11)


def untrained(study: ComparisonExperiment) -> None:
    """VITAL on an untrained network with the same references, judged as before."""
    control = f"{study.asked.model}@untrained"
    units = [f"class:{label}" for label in study.compared]
    trial = replace(
        study.trial("vital", CLASSES, units, study.asked.steps), model=control, digest=encoder_of(control).digest
    )
    trained = study.trial(
        "vital", CLASSES, [f"class:{study.names[label]}" for label in study.compared], study.asked.steps
    )
    study.make([trial, trained], "VITAL, untrained control")
    size = len(study.compared)
    study.rows.append({"what": f"real photos, {size} classes"} | real_row(study.real, study.compared, size))
    study.rows.append({"what": f"vital, {size} classes, untrained network"} | study.row([trial], study.compared))
    study.rows.append({"what": f"vital, {size} classes, default settings"} | study.row([trained], study.compared))
    shown = study.compared[:_SHOWN]
    captions = [f"{study.names[label]}{end}" for end in ("", ", untrained") for label in shown]
    both = [*trained.pictures[: len(shown)], *trial.pictures[: len(shown)]]
    study.sheet("vital-zoo-untrained", both, captions, columns=len(shown))
    study.notes.append("The untrained network's own top-1 is the trained network's word on its pictures.")


def methods(study: ComparisonExperiment) -> None:
    """Every method at VITAL's compute, each with the best of its settings."""
    units = [f"class:{study.names[label]}" for label in study.compared]
    cost = study.cost("class:" + study.names[(study.searched or study.compared)[0]], study.asked.steps)
    passes = round(cost * study.asked.steps)
    study.notes.append(
        f"Equal compute: a step of VITAL takes {cost:.2f} times the processor time of one forward and backward pass "
        f"with a plain objective, so the others have {passes} passes a picture."
    )
    sheets: list[tuple[str, list[Path]]] = []
    for what, (method, options) in SEARCH.items():
        settings = study.best(method, options, passes)
        study.chosen[what] = settings
        trials = study.trials(method, settings, units, passes)
        study.make(trials, f"{what}, {len(units)} classes")
        row = {"what": f"{what}, {len(units)} classes"} | study.row(trials, study.compared)
        row |= {"settings": ", ".join(f"{name}={value}" for name, value in settings.items()) or "default"}
        study.rows.append(row | {"steps": trials[0].steps})
        sheets.append((what, [path for trial in trials for path in trial.pictures]))
        shown = range(min(_SHOWN, len(study.compared)))
        captions = [f"{study.names[study.compared[place]]}, {name}" for name, _ in sheets for place in shown]
        study.sheet("vital-zoo-methods", [paths[place] for _, paths in sheets for place in shown], captions, len(shown))
        study.write()


def channels(study: ComparisonExperiment) -> None:
    """AUC and MAD of channels of the last stage, against their strongest real photos."""
    layer = study.asked.layer or study.encoder.depths[-1]
    width = study.encoder.layer(layer).channels
    drawn = np.random.default_rng(study.asked.seed).permutation(width)[: study.asked.channels]
    units = [channel_unit(layer, int(channel)) for channel in sorted(drawn)]
    values = probe(study.encoder, study.references, layer, progress=study.asked.progress).values
    control = {unit.text: np.sort(values[:, unit.index])[-_CONTROL:] for unit in units}
    # one pass for all; what is found stays in the cache, where each picture finds its own
    how: dict[str, Any] = {"scoring": "preselect", "candidates": CANDIDATES, "progress": study.asked.progress}
    find_patch_references(study.references, study.encoder, units, **how)
    steps = study.asked.channel_steps
    cost = study.cost(units[0].text, steps)
    study.notes.append(f"Channels of {layer}: {steps} steps of VITAL (LRP), {cost:.2f} passes each; one picture each.")
    for method in CHANNEL_METHODS:
        settings = {} if method == "vital" else study.chosen.get(method, SEARCH[method][1][0])
        trials = study.trials(method, settings, [unit.text for unit in units], round(cost * steps), steps)
        study.make(trials, f"{method}, {len(units)} channels")
        figures = [
            channel_figures(study.encoder, text, [trial.picture(text)], control[text].tolist())
            for trial in trials
            for text in trial.units
        ]
        row = {"what": f"{method}, {len(units)} channels of {layer}", "pictures": len(units)}
        row |= {"AUC": bootstrap([auc for auc, _ in figures]), "MAD": bootstrap([mad for _, mad in figures])}
        study.rows.append(row | {"seconds": study.seconds(trials), "steps": trials[0].steps})
        study.sheet(f"vital-zoo-channels-{method}", trials[0].pictures, list(trials[0].units), columns=10)
        study.write()


def command(chosen: Mapping[str, Any]) -> str:
    """The command that the table names: what was asked for, not where somebody keeps things."""
    words = ["python -m encoscope.reproduce.vital.zoo", f"{chosen['data'].partition(':')[0]}:ROOT"]
    for option in dataclasses.fields(ComparisonSettings):
        value = chosen.get(option.name)
        if option.name not in ("data", "folder", "out") and value is not None and value != option.default:
            shown = " ".join(value) if isinstance(value, tuple) else str(value)
            words.append(f"--{option.name.replace('_', '-')} {shown}")
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", help="caltech101:ROOT")
    parser.add_argument("--model", default=ComparisonSettings.model)
    parser.add_argument("--judge", default=ComparisonSettings.judge, help="an image-text model")
    parser.add_argument("--steps", type=int, default=ComparisonSettings.steps, help="of VITAL on a class")
    parser.add_argument("--limit", type=int, help="only the first so many classes where all are pictured")
    parser.add_argument(
        "--classes", type=int, default=ComparisonSettings.classes, help="classes that every method pictures"
    )
    parser.add_argument(
        "--search", type=int, default=ComparisonSettings.search, help="classes that settings are searched on"
    )
    parser.add_argument("--channels", type=int, default=ComparisonSettings.channels)
    parser.add_argument(
        "--channel-steps", type=int, default=ComparisonSettings.channel_steps, help="of VITAL on a channel"
    )
    parser.add_argument("--layer", help="of the channels; the last stage if left out")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--workers", type=int, default=ComparisonSettings.workers, help="processes, one thread each")
    parser.add_argument("--folder", type=Path, help="where pictures are kept; in the cache if left out")
    parser.add_argument("--out", type=Path, default=ComparisonSettings.out, help="where table and sheets are written")
    parser.add_argument("--seed", type=int, default=ComparisonSettings.seed)
    chosen: dict[str, Any] = vars(parser.parse_args(arguments))
    chosen["parts"] = tuple(chosen["parts"])
    torch.set_num_threads(1)
    try:
        report = run(ComparisonSettings(**chosen, command=command(chosen), progress=True))
    except EncoscopeError as error:
        sys.stderr.write(f"encoscope: error: {error}\n")
        return error.exit_code
    sys.stdout.write(report.text() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
