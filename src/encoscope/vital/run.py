"""From a plan to pictures: run the synthesis loop, look at what came out, and keep the run's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from encoscope.encoder import Encoder
from encoscope.progress import Progress
from encoscope.units import Unit, compute_values, required_outputs
from encoscope.vital.baselines.registry import SynthesisPlan
from encoscope.vital.synthesis.checkpoint import Checkpoint
from encoscope.vital.synthesis.loop import Outcome, run_stages
from encoscope.vital.synthesis.parametrization import denormalize, normalize
from encoscope.vital.transparency import compute_transparency
from encoscope.vital.visualization import Visualization

Preview: TypeAlias = Callable[[list[Visualization]], None]
"""Is handed the pictures of the batch at work as they are: now and then, and when a run is interrupted."""


@dataclass(frozen=True)
class SynthesisSubject:
    """A unit to picture, and what is known of its references.

    name: the unit's text, with a number where it has several facets; the picture's random numbers come from it.
    """

    unit: Unit
    name: str
    references: tuple[str, ...] = ()
    reference_activation: float | None = None
    notes: tuple[str, ...] = ()
    facet: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, unit: Unit) -> SynthesisSubject:
        """A unit without references."""
        return cls(unit, unit.text)


def run_synthesis(
    encoder: Encoder,
    plan: SynthesisPlan,
    subjects: Sequence[SynthesisSubject],
    *,
    seed: int = 0,
    cache: bool = True,
    fresh: bool = False,
    preview: Preview | None = None,
    preview_every: int = 100,
    progress: Progress = None,
) -> list[Visualization]:
    """Make the pictures of one plan, all in one batch.

    cache: keep the run's state under what makes it, so that a run that was stopped goes on, and one that is done is
    not made again. fresh: start over all the same.
    """
    names = [subject.name for subject in subjects]
    checkpoint = Checkpoint.cached(_manifest(encoder, plan, subjects, seed)) if cache else None
    if checkpoint is not None and fresh:
        checkpoint.delete()

    def finished(outcome: Outcome) -> list[Visualization]:
        return build_visualizations(encoder, plan, subjects, outcome, seed)

    def show(outcome: Outcome) -> None:
        if preview is not None:
            preview(finished(outcome))

    outcome = run_stages(
        plan.stages,
        plan.objective,
        names,
        seed=seed,
        chunk=len(names) if plan.together else None,
        checkpoint=checkpoint,
        preview=None if preview is None else show,
        preview_every=preview_every,
        progress=progress,
        label=names[0] if len(names) == 1 else f"{len(names)} units",
    )
    return finished(outcome)


def build_visualizations(
    encoder: Encoder, plan: SynthesisPlan, subjects: Sequence[SynthesisSubject], outcome: Outcome, seed: int
) -> list[Visualization]:
    """Each unit's picture, with what the network makes of it."""
    model = {"source": encoder.source, "digest": encoder.digest, "layers": list(plan.settings.get("layers", ()))}
    pictures = denormalize(outcome.images, encoder.preprocess)
    found = []
    for row, subject in enumerate(subjects):
        activation, predicted = measure_image(encoder, outcome.images[row : row + 1], subject.unit)
        found.append(
            Visualization(
                unit=subject.unit.text,
                name=subject.name,
                image=pictures[row].permute(1, 2, 0).numpy(),
                transparency=compute_transparency(outcome.attention[row]),
                losses={name: each[:, row] for name, each in outcome.losses.items()},
                activation=activation,
                reference_activation=subject.reference_activation,
                predicted=predicted,
                references=subject.references,
                method=str(plan.settings.get("method", "")),
                settings=plan.settings,
                seed=seed,
                model=model,
                steps=outcome.steps,
                total=outcome.total,
                notes=subject.notes,
                facet=subject.facet,
            )
        )
    return found


def measure_image(encoder: Encoder, image: Any, unit: Unit) -> tuple[float, dict[str, Any] | None]:
    """A unit's value on one normalised image [1, C, H, W], and the network's own class of it."""
    wanted = required_outputs([unit])
    wanted["logits"] = encoder.outputs is not None
    seen = encoder.observe(image, **wanted)
    activation = float(compute_values(seen, [unit])[0, 0])
    return activation, None if seen.logits is None else _predicted(encoder, seen.logits[0].cpu().numpy())


def judge_visualization(encoder: Encoder, found: Visualization, unit: Unit) -> dict[str, Any]:
    """What an encoder makes of a picture that was made with another: a control's, for instance."""
    pixels = normalize(torch.from_numpy(found.image).permute(2, 0, 1)[None], encoder.preprocess)
    activation, predicted = measure_image(encoder, pixels, unit)
    return {"activation": activation, "predicted": predicted}


def _predicted(encoder: Encoder, logits: Float[np.ndarray, " classes"]) -> dict[str, Any]:
    index = int(logits.argmax())
    shares = np.exp(logits.astype(np.float64) - logits.max())
    name = None if encoder.classes is None else encoder.classes[index]
    return {"index": index, "class": name, "probability": float(shares[index] / shares.sum())}


def _manifest(encoder: Encoder, plan: SynthesisPlan, subjects: Sequence[SynthesisSubject], seed: int) -> dict[str, Any]:
    units = [
        [subject.name, subject.unit.kind, subject.unit.layer, subject.unit.channels, subject.unit.direction]
        for subject in subjects
    ]
    return {
        "encoder": encoder.digest,
        "precision": encoder.precision,
        "units": units,
        "references": [subject.references for subject in subjects],
        "settings": dict(plan.settings),
        "seed": seed,
    }
