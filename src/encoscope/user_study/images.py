"""Each method's pictures of what a study asks about: made here, or taken from where they were made before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from encoscope import plots, results
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.images import ImageListing, read_image
from encoscope.probing import Patch
from encoscope.units import Unit, parse_unit
from encoscope.user_study.sampling import Making, class_unit, patches_of
from encoscope.vital import Vital
from encoscope.vital.baselines.maco import compute_mean_magnitude
from encoscope.vital.baselines.registry import NAMES, BaselineOptions, find_planner
from encoscope.vital.references.references import References
from encoscope.vital.run import SynthesisSubject, run_synthesis

CLASSES_ONLY = ("deepinversion", "plugin")
"""Methods that have no pictures of units inside a network."""
_TOGETHER = 10  # pictures that DeepInversion makes at once
_SPECTRUM = 500  # photos whose mean magnitude MACO takes


def check_methods(methods: Sequence[str]) -> None:
    """UsageError for unknown methods, doubled ones, or fewer than two."""
    wrong = next((name for name in methods if name not in NAMES), None)
    if wrong is not None:
        raise UsageError(f"unknown method {wrong!r}: some of {', '.join(NAMES)}")
    if len(set(methods)) < len(methods) or len(methods) < 2:
        raise UsageError(f"a study compares two methods or more, each once, not {', '.join(methods) or 'none'}")


def make_pictures(
    encoder: Encoder,
    method: str,
    units: Sequence[str],
    references: Mapping[str, References],
    source: ImageListing,
    making: Making,
) -> dict[str, Image.Image]:
    """One method's pictures of some units. What a stopped run has made is not made again."""
    return dict(_made(encoder, method, units, references, source, making))


def read_pictures(encoder: Encoder, folder: Path, methods: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The pictures of ``encoscope visualize --out FOLDER/METHOD``: for each method the file of each unit.

    Raises:
        MissingError: a method without its folder. EncoscopeError: a damaged one. UsageError: of another model.
    """
    found: dict[str, dict[str, Path]] = {}
    for method in methods:
        path = folder / method / "result.json"
        document = results.read(path, "visualization")
        if (document["model"] or {}).get("digest") != encoder.digest:
            raise UsageError(f"{path} is of another model than {encoder.source}: its pictures cannot be shown beside")
        found[method] = {}
        for entry in document["visualizations"]:
            if entry["method"] != method:
                raise UsageError(f"{path} holds pictures by {entry['method']}, not by {method}")
            found[method][_canonical(encoder, entry["unit"])] = results.resolve(entry["picture"], path)
    return found


def opened(made: Mapping[str, Path], units: Sequence[str], method: str) -> dict[str, Image.Image]:
    """The pictures of some units from their files; MissingError for what is not there."""
    missing = [unit for unit in units if unit not in made]
    if missing:
        raise MissingError(f"no picture by {method} of {', '.join(missing)}: make them with encoscope visualize")
    return {unit: Image.fromarray(plots.to_rgb(read_image(made[unit]))) for unit in units}


def _made(
    encoder: Encoder,
    method: str,
    units: Sequence[str],
    references: Mapping[str, References],
    source: ImageListing,
    making: Making,
) -> Iterator[tuple[str, Image.Image]]:
    if method == "vital":
        how: dict[str, Any] = {} if making.steps is None else {"steps": making.steps}
        vital = Vital(encoder, number=making.number, random_state=making.seed, **how)
        given = {unit: _first(references[unit], making.number) for unit in units}
        vital.fit(given, units, progress=making.progress)
        for found in vital.stream(progress=making.progress, fresh=making.fresh):
            yield found.unit, found.picture
        return
    extra = {"magnitude": _spectrum(encoder, source)} if method == "maco" else {}
    parsed = [parse_unit(unit, encoder) for unit in units]
    for first in range(0, len(parsed), _TOGETHER):
        part = parsed[first : first + _TOGETHER]
        pieces: list[list[Unit]] = [part] if method == "deepinversion" else [[unit] for unit in part]
        for piece in pieces:
            plan = find_planner(method)(encoder, piece, BaselineOptions(steps=making.steps, extra=extra))
            subjects = [SynthesisSubject.of(unit) for unit in piece]
            for found in run_synthesis(
                encoder, plan, subjects, seed=making.seed, fresh=making.fresh, progress=making.progress
            ):
                yield found.unit, found.picture


def _first(references: References, number: int) -> References:
    """A channel's top patches without those that are held out; a class's images as they are."""
    patches = patches_of(references)[:number]
    if not patches:
        return references
    kept = {(patch.id, patch.box) for patch in patches}
    items = [one for one in references.items if isinstance(one.source, Patch) and (one.id, one.source.box) in kept]
    return References(references.unit, tuple(items))


def _spectrum(encoder: Encoder, source: ImageListing) -> torch.Tensor:
    """MACO's magnitudes, of photos spread over the references."""
    spread = np.linspace(0, len(source) - 1, min(_SPECTRUM, len(source))).astype(int).tolist()
    chosen = [source.paths[place] for place in spread]
    batches = (encoder.prepare(path).pixels for path in chosen)
    return compute_mean_magnitude(batches, encoder.preprocess, encoder.preprocess.size)


def _canonical(encoder: Encoder, unit: str) -> str:
    """A unit's text as this study writes it."""
    found = parse_unit(unit, encoder)
    return class_unit(encoder, found.index) if found.kind == "class" else found.text
