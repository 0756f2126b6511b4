"""What a study asks about: classes and channels at random, their real images, and each method's pictures of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from encoscope import plots
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import ImageListing, read_image
from encoscope.probing import Patch, load_patches
from encoscope.progress import Progress
from encoscope.units import find_class_index, measure_units, normalize_name, parse_unit
from encoscope.vital.references.patches import find_patch_references
from encoscope.vital.references.references import References, find_class_references
from encoscope.zoo.attributes import attributes

HELD_OUT = 5  # patches of a channel, next in rank after its references, that images to choose from come from


@dataclass(frozen=True)
class Making:
    """How pictures are made. steps: of any method; None leaves them to each. number: references of a unit."""

    steps: int | None = None
    number: int = 50
    candidates: int | None = None
    seed: int = 0
    fresh: bool = False
    progress: Progress = None

    @property
    def scoring(self) -> dict[str, Any]:
        """How top patches are searched."""
        return {} if self.candidates is None else {"scoring": "preselect", "candidates": self.candidates}


def word_of(name: str) -> str:
    """What a class is called before participants: its first synonym, ``_`` a space; Caltech-101's in plain English."""
    known = {entry.folder: entry.name for entry in attributes()}
    return known.get(name) or " ".join(name.split(",")[0].replace("_", " ").split())


def draw_classes(
    encoder: Encoder,
    labels: Sequence[str | None],
    asked: int | Sequence[str],
    used: Sequence[str],
    seed: int,
    *,
    among: Collection[str] | None = None,
) -> list[str]:
    """The units of classes: those named, or so many at random that have references and other words than ``used``.

    among: the units that may be drawn; all if None.

    Raises:
        UsageError: classes without names, too few of them, or a class that is already asked about.
    """
    if asked == 0:
        return []
    if encoder.classes is None:
        raise UsageError(f"{encoder.source} has no class names, so there are no words to ask for: take one that has")
    taken = {word_of(encoder.classes[parse_unit(unit, encoder).index]).casefold() for unit in used}
    if not isinstance(asked, int):
        found = [class_unit(encoder, find_class_index(name, encoder.classes)) for name in asked]
        words = [word_of(encoder.classes[parse_unit(unit, encoder).index]).casefold() for unit in found]
        double = next((word for place, word in enumerate(words) if word in taken or word in words[:place]), None)
        if double is not None:
            raise UsageError(f"{double!r} is asked about twice: a word that was given cannot be guessed any more")
        return found
    pictured = {normalize_name(label) for label in labels if label is not None}
    found = []
    for index in np.random.default_rng([seed, len(used)]).permutation(len(encoder.classes)).tolist():
        unit, word = class_unit(encoder, index), word_of(encoder.classes[index]).casefold()
        there = normalize_name(encoder.classes[index]) in pictured and (among is None or unit in among)
        if len(found) < asked and there and word not in taken:
            found.append(unit)
            taken.add(word)
    if len(found) < asked:
        raise UsageError(f"{asked} classes were asked for, and only {len(found)} are left that have references")
    return found


def draw_channels(
    encoder: Encoder,
    layer: str | None,
    asked: int | Sequence[str],
    used: Sequence[str],
    seed: int,
    *,
    among: Collection[str] | None = None,
) -> list[str]:
    """The units of channels: those named, or so many at random of a layer (the last hidden one), none of ``used``.

    among: the units that may be drawn; all if None.
    """
    if not isinstance(asked, int):
        units = [parse_unit(unit, encoder) for unit in asked]
        wrong = next((unit.text for unit in units if unit.kind == "class"), None)
        if wrong is not None:
            raise UsageError(f"{wrong} is a class: part 2 asks about channels")
        return [unit.text for unit in units]
    name = layer or encoder.depths[-1]
    width = encoder.layer(name).channels
    named = [f"{name}:{channel}" for channel in range(width)]
    free = [unit for unit in named if unit not in used and (among is None or unit in among)]
    if asked > len(free):
        raise UsageError(f"{asked} channels of {name} were asked for, and only {len(free)} are left of {width}")
    return [free[place] for place in np.random.default_rng([seed, len(used)]).permutation(len(free))[:asked].tolist()]


def gather(encoder: Encoder, source: ImageListing, units: Sequence[str], making: Making) -> dict[str, References]:
    """Each unit's references: images of a class; of channels, ``HELD_OUT`` more patches than VITAL will be given."""
    parsed = [parse_unit(unit, encoder) for unit in units]
    inside = [unit for unit in parsed if unit.kind != "class"]
    found = {
        unit.text: find_class_references(source, encoder, unit, count=making.number, seed=making.seed)
        for unit in parsed
        if unit.kind == "class"
    }
    if inside:
        how = {"count": making.number + HELD_OUT, "progress": making.progress, **making.scoring}
        found |= {one.unit: one for one in find_patch_references(source, encoder, inside, **how)}
    return found


def patches_of(references: References) -> list[Patch]:
    """The patches of a channel, those it answers to most first."""
    found = [item.source for item in references.items if isinstance(item.source, Patch)]
    return sorted(found, key=lambda patch: (-patch.score, patch.id))


def crop(patch: Patch) -> Image.Image:
    """A patch as it is in its photo."""
    pixels = plots.to_rgb(read_image(patch.path))
    x0, y0, x1, y1 = patch.box
    return Image.fromarray(pixels[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1])


def choices_of(
    encoder: Encoder, units: Sequence[str], references: Mapping[str, References], making: Making
) -> dict[str, tuple[Patch, Patch]]:
    """For each channel a patch that drives it, kept from its references, and one of another channel's that does least.

    Raises UsageError for a single channel, whose wrong image could come from nowhere.
    """
    if len(units) < 2:
        raise UsageError("images to choose from come from other channels: ask about at least two")
    held: dict[str, Patch] = {}
    for unit in units:
        ranked = patches_of(references[unit])
        held[unit] = ranked[making.number :][0] if len(ranked) > making.number else ranked[-1]
    parsed = [parse_unit(unit, encoder) for unit in units]
    with torch.no_grad():
        answers = measure_units(encoder, load_patches(encoder, list(held.values())), parsed)
    found: dict[str, tuple[Patch, Patch]] = {}
    for row, unit in enumerate(units):
        order: list[int] = answers[:, row].argsort().tolist()
        other = next((place for place in order if held[units[place]].id != held[unit].id), None)
        if other is None:
            raise UsageError(f"all images held out for {', '.join(units)} are the same one: give more references")
        found[unit] = (held[unit], held[units[other]])
    return found


def class_unit(encoder: Encoder, index: int) -> str:
    """The unit of a class: by name; by index where the name is another's too."""
    names = [normalize_name(name) for name in encoder.classes or ()]
    double = names.count(names[index]) > 1
    return f"class:{index}" if double else f"class:{(encoder.classes or ())[index]}"
