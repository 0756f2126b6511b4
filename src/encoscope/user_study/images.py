"""Each method's visualizations of what a study asks about: synthesized here, or read from where they were saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from encoscope import plots, results
from encoscope.encoder import Encoder, gives_kept_outputs
from encoscope.errors import MissingError, UsageError
from encoscope.images import ImageListing, read_image
from encoscope.probing import Patch
from encoscope.progress import Progress
from encoscope.units import Unit, parse_unit
from encoscope.user_study.sampling import name_class_unit, rank_patches
from encoscope.user_study.settings import StudySettings
from encoscope.vital import Vital
from encoscope.vital.baselines.maco import compute_mean_magnitude
from encoscope.vital.baselines.registry import find_planner
from encoscope.vital.references.references import References
from encoscope.vital.run import run_synthesis
from encoscope.vital.settings import make_settings
from encoscope.vital.target import Target

_TOGETHER = 10  # visualizations that DeepInversion makes at once
_SPECTRUM = 500  # images whose mean magnitude MACO takes


def synthesize_images(
    encoder: Encoder,
    method: str,
    units: Sequence[str],
    references: Mapping[str, References],
    source: ImageListing,
    settings: StudySettings,
    *,
    fresh: bool = False,
    progress: Progress = None,
) -> dict[str, Image.Image]:
    """Synthesize one method's visualizations. Those that a stopped run has finished are not made again.

    Args:
        encoder: The encoder.
        method: The name of the method.
        units: The units to visualize.
        references: The references of each unit; only VITAL reads them.
        source: The reference images; MACO takes its spectrum from them.
        settings: Steps, seed and number of references.
        fresh: Whether visualizations of a stopped run are made again.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The visualization of each unit.
    """
    synthesize = _synthesize_vital if method == "vital" else _synthesize_baseline
    return dict(synthesize(encoder, method, units, references, source, settings, fresh, progress))


def find_saved_images(encoder: Encoder, folder: Path, methods: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Find the visualizations that ``encoscope visualize --out FOLDER/METHOD`` saved.

    Args:
        encoder: The encoder that they have to be of.
        folder: Holds a folder for each method.
        methods: The names of the methods.

    Returns:
        For each method the file of each unit.

    Raises:
        MissingError: If the folder of a method is not there.
        EncoscopeError: If a result in it is damaged.
        UsageError: If they are of another model or by another method.
    """
    files: dict[str, dict[str, Path]] = {}
    for method in methods:
        path = folder / method / "result.json"
        document = results.read(path, "visualization")
        model = document["model"] or {}
        kept = model.get("trial")
        if model.get("digest") != encoder.digest or (kept is not None and not gives_kept_outputs(encoder, kept)):
            raise UsageError(f"{path} is of another model than {encoder.source}: take visualizations of this one")
        files[method] = {}
        for entry in document["visualizations"]:
            if entry["method"] != method:
                raise UsageError(f"{path} holds visualizations by {entry['method']}, not by {method}")
            files[method][_normalize_unit(encoder, entry["unit"])] = results.resolve(entry["picture"], path)
    return files


def open_images(files: Mapping[str, Path], units: Sequence[str], method: str) -> dict[str, Image.Image]:
    """Open one method's saved visualizations.

    Args:
        files: The file of each unit.
        units: The units to open.
        method: The name of the method, for the message.

    Returns:
        The visualization of each unit.

    Raises:
        MissingError: If a unit has no file.
    """
    missing = [unit for unit in units if unit not in files]
    if missing:
        raise MissingError(f"no visualization by {method} of {', '.join(missing)}: make them with encoscope visualize")
    return {unit: Image.fromarray(plots.to_rgb(read_image(files[unit]))) for unit in units}


def _synthesize_vital(
    encoder: Encoder,
    method: str,
    units: Sequence[str],
    references: Mapping[str, References],
    source: ImageListing,
    settings: StudySettings,
    fresh: bool,
    progress: Progress,
) -> Iterator[tuple[str, Image.Image]]:
    vital = Vital(
        encoder,
        units,
        steps=settings.steps,
        n_references=settings.n_references,
        random_state=settings.random_state,
        progress=progress,
    )
    vital.fit({unit: _select_first(references[unit], settings.n_references) for unit in units})
    for visualization in vital.stream(fresh=fresh):
        yield visualization.unit, visualization.picture


def _synthesize_baseline(
    encoder: Encoder,
    method: str,
    units: Sequence[str],
    references: Mapping[str, References],
    source: ImageListing,
    settings: StudySettings,
    fresh: bool,
    progress: Progress,
) -> Iterator[tuple[str, Image.Image]]:
    magnitude = _compute_spectrum(encoder, source) if method == "maco" else None
    own = make_settings(method, steps=settings.steps, magnitude=magnitude)
    parsed = [parse_unit(unit, encoder) for unit in units]
    together = _TOGETHER if method == "deepinversion" else 1
    for first in range(0, len(parsed), together):
        batch: list[Unit] = parsed[first : first + together]
        plan = find_planner(method)(encoder, batch, own, None)
        for visualization in run_synthesis(
            encoder,
            plan,
            [Target.of(unit) for unit in batch],
            random_state=settings.random_state,
            fresh=fresh,
            progress=progress,
        ):
            yield visualization.unit, visualization.picture


def _select_first(references: References, number: int) -> References:
    """A channel's top patches without those that are held out; a class's images as they are."""
    patches = rank_patches(references)[:number]
    if not patches:
        return references
    kept = {(patch.id, patch.box) for patch in patches}
    items = [item for item in references.items if isinstance(item.source, Patch) and (item.id, item.source.box) in kept]
    return References(references.unit, tuple(items))


def _compute_spectrum(encoder: Encoder, source: ImageListing) -> torch.Tensor:
    """MACO's mean magnitudes, of images spread evenly over the source."""
    indices = np.linspace(0, len(source) - 1, min(_SPECTRUM, len(source))).astype(int).tolist()
    batches = (encoder.prepare(source.paths[index]).pixels for index in indices)
    return compute_mean_magnitude(batches, encoder.preprocess, encoder.preprocess.size)


def _normalize_unit(encoder: Encoder, text: str) -> str:
    """A unit's text as this study writes it."""
    unit = parse_unit(text, encoder)
    return name_class_unit(encoder, unit.index) if unit.kind == "class" else unit.text
