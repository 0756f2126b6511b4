"""VITAL and the methods it is compared with, on the zoo's Caltech-101 classifier, with controls.

The sections, in order: all classes by VITAL; some classes by an untrained network with the same references (what a
judge recognizes in these images comes from the references, not from the network); the same classes by every method at
equal compute; channels. Each image is kept when it is made, so that a run that was stopped resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import bootstrap
from encoscope.probing import probe
from encoscope.reproduce.vital.comparison import SECTIONS, MethodComparison, compute_seconds
from encoscope.reproduce.vital.image_cache import CANDIDATES, load_cached_encoder
from encoscope.reproduce.vital.judge import compare_channel_activations, summarize_real_images
from encoscope.units import channel_unit
from encoscope.vital.references.patches import find_patch_references

CLASS_SETTINGS = {"tv_weight": 1e-3, "l2_weight": 1e-3}
"""VITAL's settings for all classes, and for the control."""
SEARCH: Mapping[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "vital": ("vital", tuple({"tv_weight": weight, "l2_weight": weight} for weight in (1e-3, 3e-4, 0.0))),
    "vital, moments": (
        "vital",
        tuple({"matching": "moments", "tv_weight": weight, "l2_weight": weight} for weight in (1e-3, 0.0)),
    ),
    "deepinversion": ("deepinversion", ({}, {"lr": 0.2}, {"statistics_weight": 0.01})),
    "maco": ("maco", ({"n_views": 1}, {"n_views": 4}, {"n_views": 1, "crop_side": 0.5})),
    "fourier": ("fourier", ({}, {"views": "crops", "lr": 1.0}, {"views": "crops", "lr": 0.05})),
    "plugin": ("plugin", ({"n_views": 1}, {"n_views": 4}, {"n_views": 4, "lr": 0.05})),
}
"""What a row of the table is called: the method, and the settings that are tried, the first ones being the default."""
CHANNEL_METHODS = ("vital", "maco", "fourier")
_CONTROL = 50  # strongest real images of a channel
_SHOWN = 8  # classes on the sheet that compares methods


def run(request: EvaluationRequest) -> Report:
    """Run the requested sections, in order of weight.

    Args:
        request: a dataset without a split, such as ``caltech101:ROOT``; settings as in ``comparison.SETTINGS``.

    Returns:
        The table, with a sheet of images for each section.
    """
    comparison = MethodComparison(request)
    sections: Mapping[str, Callable[[MethodComparison], None]] = {
        "classes": visualize_all_classes,
        "untrained": visualize_untrained,
        "methods": compare_methods,
        "channels": compare_channels,
    }
    with _single_thread():
        for name in SECTIONS:
            if name in comparison.sections:
                sections[name](comparison)
        return comparison.build_report({name: options for name, (_, options) in SEARCH.items()})


def visualize_all_classes(comparison: MethodComparison) -> None:
    """Visualize all classes by VITAL.

    Args:
        comparison: rows and a sheet are added to it.
    """
    labels = comparison.all_classes
    names = [comparison.names[label] for label in labels]
    steps = comparison.settings["steps"]
    trial = comparison.create_trial("vital", CLASS_SETTINGS, [f"class:{name}" for name in names], steps)
    comparison.make([trial], "VITAL, all classes")
    comparison.rows.append(
        {"what": "real photos, all classes"} | summarize_real_images(comparison.real, labels, len(labels))
    )
    comparison.rows.append({"what": "vital, all classes"} | comparison.summarize([trial], labels))
    comparison.add_sheet("vital-zoo-classes", trial.image_paths, names, columns=11)


def visualize_untrained(comparison: MethodComparison) -> None:
    """Visualize classes of an untrained network with the same references, judged as those of the trained one.

    Args:
        comparison: rows and a sheet are added to it.
    """
    labels, steps = comparison.compared, comparison.settings["steps"]
    model = f"{comparison.model}@untrained"
    control = replace(
        comparison.create_trial("vital", CLASS_SETTINGS, [f"class:{label}" for label in labels], steps),
        model=model,
        digest=load_cached_encoder(model, comparison.load_options).digest,
    )
    names = [comparison.names[label] for label in labels]
    trained = comparison.create_trial("vital", CLASS_SETTINGS, [f"class:{name}" for name in names], steps)
    comparison.make([control, trained], "VITAL, untrained control")
    size = len(labels)
    real = summarize_real_images(comparison.real, labels, size)
    comparison.rows.append({"what": f"real photos, {size} classes"} | real)
    comparison.rows.append(
        {"what": f"vital, {size} classes, untrained network"} | comparison.summarize([control], labels)
    )
    comparison.rows.append(
        {"what": f"vital, {size} classes, default settings"} | comparison.summarize([trained], labels)
    )
    shown = names[:_SHOWN]
    captions = [f"{name}{end}" for end in ("", ", untrained") for name in shown]
    paths = [*trained.image_paths[: len(shown)], *control.image_paths[: len(shown)]]
    comparison.add_sheet("vital-zoo-untrained", paths, captions, columns=len(shown))
    comparison.notes.append("The untrained network's own top-1 is the trained network's answer to its visualizations.")


def compare_methods(comparison: MethodComparison) -> None:
    """Visualize classes by every method at VITAL's compute, each with the best of its settings.

    Args:
        comparison: rows, a sheet and the chosen settings are added to it.
    """
    labels, steps = comparison.compared, comparison.settings["steps"]
    names = [comparison.names[label] for label in labels]
    units = [f"class:{name}" for name in names]
    cost = comparison.measure_cost("class:" + comparison.names[(comparison.searched or labels)[0]], steps)
    passes = round(cost * steps)
    comparison.notes.append(
        f"Equal compute: a step of VITAL takes {cost:.2f} times the processor time of one forward and backward pass "
        f"with a plain objective, so the others have {passes} passes an image."
    )
    shown = range(min(_SHOWN, len(labels)))
    by_method: list[tuple[str, list[Path]]] = []
    for name, (method, options) in SEARCH.items():
        settings = comparison.search_settings(method, options, passes)
        comparison.chosen[name] = settings
        trials = comparison.create_equal_trials(method, settings, units, passes)
        comparison.make(trials, f"{name}, {len(units)} classes")
        row = {"what": f"{name}, {len(units)} classes"} | comparison.summarize(trials, labels)
        row |= {"settings": ", ".join(f"{key}={value}" for key, value in settings.items()) or "default"}
        comparison.rows.append(row | {"steps": trials[0].steps})
        by_method.append((name, [path for trial in trials for path in trial.image_paths]))
    captions = [f"{names[index]}, {name}" for name, _ in by_method for index in shown]
    paths = [paths[index] for _, paths in by_method for index in shown]
    comparison.add_sheet("vital-zoo-methods", paths, captions, len(shown))


def compare_channels(comparison: MethodComparison) -> None:
    """Compare visualizations of the last stage's channels with their strongest real images: AUC and MAD.

    Args:
        comparison: rows and sheets are added to it.
    """
    encoder, request, settings = comparison.encoder, comparison.request, comparison.settings
    layer = str(settings["layer"] or encoder.depths[-1])
    width = encoder.layer(layer).channels
    drawn = np.random.default_rng(request.seed).permutation(width)[: settings["channels"]]
    units = [channel_unit(layer, int(channel)) for channel in sorted(drawn)]
    values = probe(encoder, comparison.references, layer, progress=request.progress).values
    control = {unit.text: np.sort(values[:, unit.index])[-_CONTROL:] for unit in units}
    # one pass for all channels; the patches stay in the cache, where each visualization finds its own
    find_patch_references(
        comparison.references,
        encoder,
        units,
        search="patches",
        geometry="model",
        n_candidates=CANDIDATES,
        progress=request.progress,
    )
    steps = settings["channel_steps"]
    cost = comparison.measure_cost(units[0].text, steps)
    comparison.notes.append(
        f"Channels of {layer}: {steps} steps of VITAL (LRP), {cost:.2f} passes each; one image each."
    )
    texts = [unit.text for unit in units]
    for method in CHANNEL_METHODS:
        chosen = {} if method == "vital" else comparison.chosen.get(method, SEARCH[method][1][0])
        trials = comparison.create_equal_trials(method, chosen, texts, round(cost * steps), steps)
        comparison.make(trials, f"{method}, {len(units)} channels")
        measures = [
            compare_channel_activations(encoder, text, [trial.image_path(text)], control[text].tolist())
            for trial in trials
            for text in trial.units
        ]
        row = {"what": f"{method}, {len(units)} channels of {layer}", "pictures": len(units)}
        row |= {"AUC": bootstrap([auc for auc, _ in measures]), "MAD": bootstrap([mad for _, mad in measures])}
        comparison.rows.append(row | {"seconds": compute_seconds(trials), "steps": trials[0].steps})
        comparison.add_sheet(f"vital-zoo-channels-{method}", trials[0].image_paths, list(trials[0].units), columns=10)


@contextmanager
def _single_thread() -> Iterator[None]:
    """One thread of PyTorch, which the processor times of the methods are compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
