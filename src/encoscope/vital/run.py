"""From a plan to visualizations: run the synthesis loop, measure the images, and keep the run's state."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.plots import to_rgb
from encoscope.progress import Progress
from encoscope.results import record_model
from encoscope.units import Unit, compute_values, required_outputs
from encoscope.vital.settings import FRAMES
from encoscope.vital.synthesis.checkpoint import Checkpoint
from encoscope.vital.synthesis.loop import Outcome, run_stages
from encoscope.vital.synthesis.parametrization import denormalize, normalize
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.target import Target
from encoscope.vital.transparency import compute_transparency
from encoscope.vital.visualization import Visualization

_VERSION = 2  # of what is kept of a run

VisualizationPreview: TypeAlias = Callable[[list[Visualization]], None]
"""Receives the unfinished visualizations of the current batch: now and then, and when a run is interrupted."""


def run_synthesis(
    encoder: Encoder,
    plan: SynthesisPlan,
    targets: Sequence[Target],
    *,
    random_state: int = RANDOM_STATE,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    preview: VisualizationPreview | None = None,
    preview_every: int = 100,
    frames: int = FRAMES,
    progress: Progress = None,
    runs_left: int = 1,
) -> list[Visualization]:
    """Make the visualizations of one plan, all in one batch.

    Args:
        encoder: The encoder.
        plan: What the synthesis loop is to do.
        targets: The units of the plan, in the plan's order.
        random_state: The seed; with a target's name it decides all random numbers of its image.
        cache: Keep the run's state, so that a run that was stopped is resumed and a finished one is not repeated.
        cache_dir: The folder for the state; None is the user's cache.
        fresh: Start over all the same.
        preview: Receives the visualizations so far.
        preview_every: Steps between two previews.
        frames: So many images on the way are kept, from the first to the last.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        runs_left: How many runs like this one follow, this one included, for the estimate of how long all take; 0
            where that was said before.

    Returns:
        A visualization of each target, in order.
    """
    names = [target.name for target in targets]
    checkpoint = None
    if cache and all(target.unit.is_keyed for target in targets):
        layers = _list_layers(encoder, plan, targets)
        checkpoint = Checkpoint.cached(
            _manifest(encoder, plan, targets, random_state) | ({"frames": frames} if frames else {}),
            choose_cache_dir(encoder, cache_dir),
            trial=record_trial(encoder, layers),
            accepts=lambda kept: is_same_network(encoder, kept, layers, "visualizations"),
        )
        if fresh:
            checkpoint.delete()

    def finish(outcome: Outcome) -> list[Visualization]:
        return build_visualizations(encoder, plan, targets, outcome, random_state)

    def show(outcome: Outcome) -> None:
        if preview is not None:
            preview(finish(outcome))

    outcome = run_stages(
        plan.stages,
        plan.objective,
        names,
        random_state=random_state,
        chunk=len(names) if plan.together else None,
        checkpoint=checkpoint,
        preview=None if preview is None else show,
        preview_every=preview_every,
        frames=frames,
        progress=progress,
        runs_left=runs_left,
        label=names[0] if len(names) == 1 else f"{len(names)} units",
    )
    return finish(outcome)


def build_visualizations(
    encoder: Encoder, plan: SynthesisPlan, targets: Sequence[Target], outcome: Outcome, random_state: int
) -> list[Visualization]:
    """Make the result of each target from what the synthesis loop gave, measured with the network.

    Args:
        encoder: The encoder.
        plan: What the synthesis loop did.
        targets: The units of the plan.
        outcome: The images, gradients and losses.
        random_state: The seed of the run.

    Returns:
        A visualization of each target, in order.
    """
    model = record_model(encoder, plan.settings.get("layers", ()), trial=())
    settings = {**plan.settings, "precision": encoder.precision}
    if plan.together:  # each image depends on those beside it
        settings["batch"] = [target.name for target in targets]
    images = denormalize(outcome.images, encoder.preprocess)
    visualizations = []
    for row, target in enumerate(targets):
        seen = resize_to_network(outcome.images[row : row + 1], encoder, plan.settings)
        activation, predicted = measure_image(encoder, seen, target.unit)
        visualizations.append(
            Visualization(
                unit=target.unit.text,
                name=target.name,
                image=images[row].permute(1, 2, 0).numpy(),
                transparency=compute_transparency(outcome.attention[row]),
                losses={name: each[:, row] for name, each in outcome.losses.items()},
                activation=activation,
                reference_activation=target.prototype.activation,
                predicted=predicted,
                references=target.prototype.references,
                method=str(plan.settings.get("method", "")),
                settings=settings,
                seed=random_state,
                model=model,
                steps=outcome.steps,
                total=outcome.total,
                notes=target.prototype.notes,
                facet=target.facet,
                variant=target.variant,
                strength=target.strength,
                profile=_compute_profile(plan, target),
                frames=_show_frames(encoder, outcome.frames, row),
                n_references=target.prototype.count,
            )
        )
    return visualizations


def measure_image(
    encoder: Encoder, image: Float[Tensor, "1 channels height width"], unit: Unit
) -> tuple[float, dict[str, Any] | None]:
    """Measure a unit's value on one image, and the network's own class of it.

    Args:
        encoder: The encoder.
        image: A normalized image.
        unit: The unit.

    Returns:
        The value; and {"index", "class", "probability"}, None without a classifier.
    """
    outputs = required_outputs([unit])
    outputs["logits"] = encoder.outputs is not None
    observation = encoder.observe(image, **outputs)
    activation = float(compute_values(observation, [unit])[0, 0])
    logits = observation.logits
    return activation, None if logits is None else _predict(encoder, logits[0].cpu().numpy())


def resize_to_network(
    images: Float[Tensor, "batch channels height width"], encoder: Encoder, settings: Mapping[str, Any]
) -> Float[Tensor, "batch channels _ _"]:
    """Bring images to the size at which the network saw the whole of them while they were made.

    Args:
        images: Normalized images.
        encoder: The encoder.
        settings: The settings that they were made with.

    Returns:
        The images; those that were shown in crops at the network's own size.
    """
    if settings.get("view") != "crops":
        return images
    own = encoder.preprocess.size
    return torch.nn.functional.interpolate(images, own, mode="bilinear", antialias=True, align_corners=False)


def judge_visualization(encoder: Encoder, visualization: Visualization, unit: Unit) -> dict[str, Any]:
    """Measure a visualization that was made with another encoder: a control's, for instance.

    Args:
        encoder: The encoder that judges.
        visualization: The visualization.
        unit: The unit of the encoder that judges.

    Returns:
        {"activation", "predicted"}: the unit's value, and the encoder's class of the image.
    """
    pixels = normalize(torch.from_numpy(visualization.image).permute(2, 0, 1)[None], encoder.preprocess)
    pixels = resize_to_network(pixels, encoder, visualization.settings)
    activation, predicted = measure_image(encoder, pixels, unit)
    return {"activation": activation, "predicted": predicted}


def _predict(encoder: Encoder, logits: Float[np.ndarray, " classes"]) -> dict[str, Any]:
    index = int(logits.argmax())
    weights = np.exp(logits.astype(np.float64) - logits.max())
    name = None if encoder.classes is None else encoder.classes[index]
    return {"index": index, "class": name, "probability": float(weights[index] / weights.sum())}


def _compute_profile(plan: SynthesisPlan, target: Target) -> Float[np.ndarray, " channels"] | None:
    """Each channel's mean over the references, in the last layer that is matched."""
    layers = [name for name in plan.settings.get("layers", ()) if name in target.prototype.values]
    if not layers:
        return None
    return target.prototype.values[layers[-1]].float().mean(-1).flatten().numpy()


def _show_frames(
    encoder: Encoder, frames: Sequence[Float[Tensor, "batch channels height width"]], row: int
) -> UInt8[np.ndarray, "frames height width 3"] | None:
    """An image's frames as pictures."""
    if not frames:
        return None
    views = [denormalize(images[row : row + 1].float(), encoder.preprocess)[0] for images in frames]
    return np.stack([to_rgb(view.permute(1, 2, 0).numpy()) for view in views])


def _list_layers(encoder: Encoder, plan: SynthesisPlan, targets: Sequence[Target]) -> list[str]:
    """The layers that a run reads, those of the units too."""
    names = [*plan.settings.get("layers", ()), *(target.unit.layer for target in targets)]
    known = {info.name for info in encoder.layers}
    return [name for name in dict.fromkeys(names) if name in known]


def _manifest(encoder: Encoder, plan: SynthesisPlan, targets: Sequence[Target], random_state: int) -> dict[str, Any]:
    units = [[target.name, *target.unit.as_key()] for target in targets]
    settings = {**plan.settings, "authors": plan.settings.get("preset") == "authors"}
    settings.pop("preset", None)  # what it stands for is in the other settings
    return {
        "version": _VERSION,
        **identify_encoder(encoder),
        "units": units,
        "references": [target.prototype.references for target in targets],
        "statistics": [target.prototype.digest for target in targets],
        "settings": settings,
        "seed": random_state,
    }
