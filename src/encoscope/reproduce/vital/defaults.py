"""VITAL's defaults beside the paper's numbers, on any classifier: as natural as photos, and still named by networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.classes import find_class_index
from encoscope.encoder import Encoder
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.metrics import Interval, bootstrap
from encoscope.reproduce.sheets import draw_sheet
from encoscope.reproduce.vital.harness import DEFAULTS, Bench
from encoscope.reproduce.vital.image_cache import load_cached_encoder
from encoscope.reproduce.vital.report import list_matchings
from encoscope.vital.smoothness import compute_total_variation
from encoscope.vital.synthesis.parametrization import denormalize

NAME = "vital-defaults"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {"preset": "default"},
    "pixels, relative": {"preset": "default", "parametrization": "pixels", "scale": "references"},
    "paper": {"preset": "paper"},
}
"""Settings of VITAL by what a row is called."""

MODEL = "zoo:tf_efficientnet_lite0"
_STEPS = 400
_MAX_REAL = 20  # of a class, held out


def run(request: EvaluationRequest) -> Report:
    """Visualize classes with the defaults and with the paper's numbers, in equally many steps.

    Args:
        request: the experiment's request. Settings: ``steps`` (400), ``judges`` (other networks of the same classes,
            with commas), and those of all of VITAL's experiments.

    Returns:
        A row for each variant and one of photos, with a sheet.
    """
    settings = request.settings({**DEFAULTS, "judges": "", "steps": _STEPS})
    benches = {model: Bench(request, settings, model) for model in request.models or (MODEL,)}
    judges = {name: load_cached_encoder(name) for name in str(settings["judges"]).split(",") if name.strip()}
    rows, sheets = [], {}
    for model, bench in benches.items():
        labels = bench.choose_classes()
        units = [f"class:{label}" for label in labels]
        real = [_choose_real_images(bench, label) for label in labels]
        columns = {name: bench.visualize("vital", units, own, label=name) for name, own in VARIANTS.items()}
        columns["untrained"] = bench.visualize("vital", units, VARIANTS["default"], label="untrained", control=True)
        about = {"network": model, "classes": len(labels)}
        rows.append({**about, "what": "photos", **_measure(bench, judges, real, real, labels)})
        for name, paths in columns.items():
            rows.append({**about, "what": name, **_measure(bench, judges, [[path] for path in paths], real, labels)})
        cells = [
            (path, f"{bench.names[label]}, {name}")
            for index, label in enumerate(labels)
            for name, path in (("photo", real[index][0]), *((name, paths[index]) for name, paths in columns.items()))
        ]
        sheets[NAME if len(benches) == 1 else f"{NAME}-{model}"] = draw_sheet(cells, len(columns) + 1, cell=160)
    bench = next(iter(benches.values()))
    notes = [
        "own, and each judge: how often the network, or another one, names the class, the mean over classes. "
        "variation, saturation, high frequencies: total variation, the range of a pixel's channels, and the power "
        "above a quarter cycle a pixel, over those of photos of the class at the same size (1 is as in photos). 95 % "
        f"bootstrap intervals over classes; at most {_MAX_REAL} photos of each. untrained: the default, random "
        "weights.",
        *list_matchings(benches),
    ]
    title = "VITAL's defaults beside the paper's numbers"
    recorded = {"experiment": NAME, "datasets": list(request.datasets), **bench.settings}
    return Report(NAME, title, rows, notes=notes, figures=sheets, settings=recorded, seed=request.seed)


def compute_saturation(image: Float[Tensor, "channels height width"]) -> float:
    """Compute the mean range of a pixel's channels.

    Args:
        image: values in [0, 1].

    Returns:
        The mean over pixels.
    """
    return float((image.amax(0) - image.amin(0)).mean())


def compute_high_frequencies(image: Float[Tensor, "channels height width"]) -> float:
    """Compute the power above a quarter cycle a pixel, of the mean over channels.

    Args:
        image: values in [0, 1].

    Returns:
        The mean square over pixels of what is above.
    """
    grey = image.mean(0)
    power = torch.fft.fft2(grey - grey.mean()).abs().square()
    rows, columns = (torch.fft.fftfreq(side) for side in grey.shape)
    above = (rows[:, None].square() + columns.square()).sqrt() > 0.25
    return float(power[above].sum()) / grey.numel() ** 2


def _choose_real_images(bench: Bench, label: int) -> list[Path]:
    paths = [path for path, own in zip(bench.real_images.paths, bench.real_images.labels, strict=True) if own == label]
    return paths[:_MAX_REAL]


def _measure(
    bench: Bench,
    judges: Mapping[str, Encoder],
    images: Sequence[Sequence[Path]],
    real: Sequence[Sequence[Path]],
    labels: Sequence[int],
) -> dict[str, Interval | None]:
    """Measure the images of each class beside photos of it."""
    seed = bench.request.seed
    row: dict[str, Interval | None] = {"own": bootstrap(_name(bench.encoder, images, labels), random_state=seed)}
    for name, judge in judges.items():
        known = [find_class_index(bench.names[label], judge.classes or ()) for label in labels]
        row[name] = bootstrap(_name(judge, images, known), random_state=seed)
    figures = {
        "variation": lambda image: float(compute_total_variation(image[None])),
        "saturation": compute_saturation,
        "high frequencies": compute_high_frequencies,
    }
    read = [[[_read(bench.encoder, path) for path in paths] for paths in side] for side in (images, real)]
    for name, measure in figures.items():
        means = [[np.mean([measure(image) for image in group]) for group in side] for side in read]
        row[name] = bootstrap(
            [ours / max(theirs, 1e-12) for ours, theirs in zip(*means, strict=True)], random_state=seed
        )
    return row


def _name(encoder: Encoder, images: Sequence[Sequence[Path]], labels: Sequence[int]) -> list[float]:
    """How often a network names each class."""
    return [
        float((encoder.logits(list(paths)).argmax(1) == label).float().mean())
        for paths, label in zip(images, labels, strict=True)
    ]


def _read(encoder: Encoder, path: Path) -> Float[Tensor, "3 height width"]:
    """An image as the network sees it, with values in [0, 1]."""
    return denormalize(encoder.prepare(path).pixels, encoder.preprocess)[0].cpu()
