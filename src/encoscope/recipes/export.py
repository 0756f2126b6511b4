"""From a finished training to what ships: half-precision weights, a record, a log and a model card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors.torch import save_file
from torch import nn

from encoscope.images import Preprocess
from encoscope.images.caltech101 import LabelledImages
from encoscope.recipes.augment import MEAN, STD
from encoscope.recipes.classify import compute_accuracies, predict_files
from encoscope.recipes.training import TrainingPlan
from encoscope.zoo.registry import FORMAT

SAMPLE = 600


def sample_indices(count: int, size: int = SAMPLE) -> Int64[np.ndarray, " size"]:
    """Draw the fixed sample of the test list on which the tests measure again.

    Args:
        count: The length of the list.
        size: The size of the sample.

    Returns:
        The indices of the sample, in ascending order.
    """
    return np.sort(np.random.default_rng(600).permutation(count)[:size])


@torch.no_grad()
def round_to_half(model: nn.Module) -> nn.Module:
    """Round a model's numbers to what half precision holds, so that what is measured is what ships.

    Args:
        model: The model; it is changed in place.

    Returns:
        The model.
    """
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    return model


def make_preprocess(side: int) -> Preprocess:
    """Make the preprocessing of the zoo's networks: the short side resized, the middle square.

    Args:
        side: The side of the square, in pixels.

    Returns:
        The preprocessing.
    """
    return Preprocess(size=(side, side), mean=MEAN, std=STD, interpolation="bicubic", crop=1.0)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    return {k: (v.half() if v.is_floating_point() else v).contiguous().clone() for k, v in state.items()}


def _log(history: Sequence[Mapping[str, float]]) -> str:
    columns = list(dict.fromkeys(key for record in history for key in record))
    rows = ["\t".join(f"{record[key]:.5g}" if key in record else "" for key in columns) for record in history]
    return "\n".join(["\t".join(columns), *rows]) + "\n"


def _card(record: Mapping[str, Any], plan: TrainingPlan, each: Float[np.ndarray, " classes"], limits: str) -> str:
    name, about = record["name"], record["about"]
    phases = "; ".join(f"{phase.epochs} epochs at {phase.pixels} px" for phase in plan.phases)
    figures = "\n".join(f"| {key.replace('_', ' ')} | {value:.4f} |" for key, value in record["accuracy"].items())
    classes = "\n".join(
        f"| {folder} | {'-' if np.isnan(value) else f'{value:.3f}'} |"
        for folder, value in zip(record["classes"], each, strict=True)
    )
    return f"""# zoo:{name}

{about}

- **Network**: {record["library"]} `{record["architecture"]}`, {record["parameters"]:,} parameters, float16 safetensors,
  sha256 `{record["sha256"]}`.
- **Data**: Caltech-101 (Fei-Fei, Fergus and Perona, 2004; CC BY 4.0), 5,784 training and 2,893 test images of 101
  classes by the split lists in `encoscope/images/splits`; the background class is left out. No other images, no
  pretrained weights.
- **Recipe**: `python -m encoscope.recipes.{name.replace("-", "_")}`: {phases}; AdamW, one cycle up to
  {plan.rate:g}, batch {plan.batch}, weight decay {plan.decay:g}, seed {plan.seed}, moving average of the weights; a
  class of n images is drawn in proportion to n^{1 - plan.balance:g}. The log is `{name}.tsv`, a line per epoch.
- **Licence**: Apache-2.0, as the package; the images remain their authors'.

## Accuracy

On the test list, after training, of the weights as they ship and with the preprocessing of `encoscope.load`.

| | |
|---|---|
{figures}

## Limits

{limits}

## Accuracy per class

| class | |
|---|---|
{classes}
"""


def export_network(
    model: nn.Module,
    plan: TrainingPlan,
    history: Sequence[Mapping[str, float]],
    *,
    output: Path,
    library: str,
    architecture: str,
    kwargs: Mapping[str, Any],
    file: str,
    side: int,
    classes: Sequence[str],
    accuracy: Mapping[str, float],
    each: Float[np.ndarray, " classes"],
    about: str,
    limits: str,
) -> Path:
    """Write ``weights/FILE``, ``weights/NAME.json``, ``cards/NAME.md`` and ``cards/NAME.tsv``.

    Args:
        model: The trained network.
        plan: The plan of its training.
        history: The record of each epoch.
        output: The folder that ``weights`` and ``cards`` are in.
        library: "timm" or "open_clip".
        architecture: What builds it.
        kwargs: Keyword arguments of the architecture.
        file: The name of the weights' file below ``weights``.
        side: The side of its input, in pixels.
        classes: The names of its classes.
        accuracy: Its accuracies by name.
        each: The accuracy of each class.
        about: What it is, for its record and card.
        limits: What it cannot do, for its card.

    Returns:
        The file of the weights.
    """
    name, weights, cards = plan.name, output / "weights" / file, output / "cards"
    weights.parent.mkdir(parents=True, exist_ok=True)
    cards.mkdir(parents=True, exist_ok=True)
    save_file(_tensors(model), weights)
    record = {
        "format": FORMAT,
        "name": name,
        "library": library,
        "architecture": architecture,
        "kwargs": dict(kwargs),
        "file": file,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "preprocess": make_preprocess(side).as_dict(),
        "classes": list(classes),
        "accuracy": {key: round(float(value), 5) for key, value in accuracy.items()},
        "parameters": sum(value.numel() for value in model.parameters()),
        "about": about,
    }
    (output / "weights" / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (cards / f"{name}.md").write_text(_card(record, plan, each, limits), encoding="utf-8")
    (cards / f"{name}.tsv").write_text(_log(history), encoding="utf-8")
    return weights


def measure_and_export(
    model: nn.Module,
    plan: TrainingPlan,
    history: Sequence[Mapping[str, float]],
    test: LabelledImages,
    *,
    output: Path,
    architecture: str,
    kwargs: Mapping[str, Any],
    side: int,
    about: str,
    limits: str,
) -> dict[str, float]:
    """Measure a timm classifier on the test list and write what ships of it.

    Args:
        model: The trained classifier.
        plan: The plan of its training.
        history: The record of each epoch.
        test: The test list.
        output: The folder that ``weights`` and ``cards`` are in.
        architecture: What builds it.
        kwargs: Keyword arguments of the architecture.
        side: The side of its input, in pixels.
        about: What it is, for its record and card.
        limits: What it cannot do, for its card.

    Returns:
        Its accuracies: "top1", "mean_per_class", and "top1_sample" on the fixed sample.
    """
    labels, classes = np.asarray(test.labels), len(test.classes)
    device = next(model.parameters()).device
    predicted = predict_files(model.eval(), test.paths, make_preprocess(side), device).argmax(1)
    top1, mean, each = compute_accuracies(predicted, labels, classes)
    chosen = sample_indices(len(labels))
    accuracy = {
        "top1": top1,
        "mean_per_class": mean,
        "top1_sample": compute_accuracies(predicted[chosen], labels[chosen], classes)[0],
    }
    export_network(
        model,
        plan,
        history,
        output=output,
        library="timm",
        architecture=architecture,
        kwargs=kwargs,
        file=f"{plan.name}.safetensors",
        side=side,
        classes=test.classes,
        accuracy=accuracy,
        each=each,
        about=about,
        limits=limits,
    )
    return accuracy
