"""Draw what a study asks about: classes and channels at random, with their real images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from encoscope import plots
from encoscope.classes import find_class, match_labels, normalize_name
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import ImageListing, read_image
from encoscope.probing import Patch, load_patches
from encoscope.progress import Progress
from encoscope.units import measure_units, parse_unit
from encoscope.user_study.settings import StudySettings
from encoscope.vital.references.patches import find_patch_references
from encoscope.vital.references.references import References, find_class_references
from encoscope.zoo.attributes import load_class_words

HELD_OUT = 5  # patches of a channel, next in rank after its references, that images to choose from come from


def describe_class(name: str) -> str:
    """Give the word for a class that participants see.

    Args:
        name: The network's name of the class.

    Returns:
        Plain English for a class of Caltech-101; for any other the first of its synonyms, with ``_`` as a space.
    """
    known = {entry.folder: entry.name for entry in load_class_words()}
    return known.get(name) or " ".join(name.split(",")[0].replace("_", " ").split())


def name_class_unit(encoder: Encoder, index: int) -> str:
    """Give the text of a class's unit.

    Args:
        encoder: An encoder with class names.
        index: The index of the class.

    Returns:
        ``class:NAME``, or ``class:INDEX`` where another class has the same name.
    """
    names = [normalize_name(name) for name in encoder.classes or ()]
    is_ambiguous = names.count(names[index]) > 1
    return f"class:{index}" if is_ambiguous else f"class:{(encoder.classes or ())[index]}"


def draw_classes(
    encoder: Encoder,
    labels: Sequence[str | None],
    requested: int | Sequence[str],
    used: Sequence[str],
    random_state: int,
    *,
    among: Collection[str] | None = None,
) -> list[str]:
    """Draw classes, or look up those that are named. No word is asked about twice.

    Args:
        encoder: An encoder with class names.
        labels: The labels of the reference images; only classes that have images are drawn.
        requested: The number of classes to draw at random, or the names of classes.
        used: The units of classes that are asked about already.
        random_state: The seed.
        among: The units that may be drawn; None for all.

    Returns:
        The units of the classes.

    Raises:
        UsageError: If the encoder has no class names, too few classes are left, or a class is asked about already.
    """
    if requested == 0:
        return []
    if encoder.classes is None:
        raise UsageError(f"{encoder.source} has no class names, so there are no words to ask for: take one that has")
    words = [describe_class(name).casefold() for name in encoder.classes]
    used_words = {words[parse_unit(unit, encoder).index] for unit in used}
    if not isinstance(requested, int):
        indices = [find_class(name, encoder) for name in requested]
        for index in indices:
            if words[index] in used_words:
                raise UsageError(
                    f"{words[index]!r} is asked about twice: a word that was shown cannot be guessed any more"
                )
            used_words.add(words[index])
        return [name_class_unit(encoder, index) for index in indices]
    matches = match_labels(encoder, (label for label in labels if label is not None))
    labelled = {match.index for match in matches.values() if match.index is not None}
    units: list[str] = []
    for index in np.random.default_rng([random_state, len(used)]).permutation(len(encoder.classes)).tolist():
        unit = name_class_unit(encoder, index)
        is_usable = index in labelled and (among is None or unit in among)
        if len(units) < requested and is_usable and words[index] not in used_words:
            units.append(unit)
            used_words.add(words[index])
    if len(units) < requested:
        raise UsageError(f"{requested} classes were requested, and only {len(units)} are left that have references")
    return units


def draw_channels(
    encoder: Encoder,
    layer: str | None,
    requested: int | Sequence[str],
    used: Sequence[str],
    random_state: int,
    *,
    among: Collection[str] | None = None,
) -> list[str]:
    """Draw channels of a layer, or parse those that are named.

    Args:
        encoder: The encoder.
        layer: The layer to draw from; None for the last hidden one.
        requested: The number of channels to draw at random, or the texts of units.
        used: Units that must not be drawn.
        random_state: The seed.
        among: The units that may be drawn; None for all.

    Returns:
        The units of the channels.

    Raises:
        UsageError: If a named unit is a class, or too few channels are left.
    """
    if not isinstance(requested, int):
        units = [parse_unit(unit, encoder) for unit in requested]
        wrong = next((unit.text for unit in units if unit.kind == "class"), None)
        if wrong is not None:
            raise UsageError(f"{wrong} is a class: part 2 asks about channels")
        return [unit.text for unit in units]
    name = layer or encoder.depths[-1]
    width = encoder.layer(name).channels
    named = [f"{name}:{channel}" for channel in range(width)]
    free = [unit for unit in named if unit not in used and (among is None or unit in among)]
    if requested > len(free):
        raise UsageError(f"{requested} channels of {name} were requested, and only {len(free)} are left of {width}")
    order = np.random.default_rng([random_state, len(used)]).permutation(len(free)).tolist()
    return [free[index] for index in order[:requested]]


def gather_references(
    encoder: Encoder,
    source: ImageListing,
    units: Sequence[str],
    settings: StudySettings,
    *,
    progress: Progress = None,
) -> dict[str, References]:
    """Gather the references of units.

    Args:
        encoder: The encoder.
        source: The reference images.
        units: The texts of classes and channels.
        settings: How many references to take and how patches are searched.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        By unit: images of a class; top patches of a channel, ``HELD_OUT`` more than VITAL takes.
    """
    parsed = [parse_unit(unit, encoder) for unit in units]
    channels = [unit for unit in parsed if unit.kind != "class"]
    references = {
        unit.text: find_class_references(
            source, encoder, unit, count=settings.n_references, random_state=settings.random_state
        )
        for unit in parsed
        if unit.kind == "class"
    }
    if channels:
        patches = find_patch_references(
            source,
            encoder,
            channels,
            count=settings.n_references + HELD_OUT,
            n_candidates=settings.n_candidates,
            progress=progress,
        )
        references |= {each.unit: each for each in patches}
    return references


def rank_patches(references: References) -> list[Patch]:
    """Rank the patches of a channel.

    Args:
        references: The references of a channel, or of a class.

    Returns:
        The patches, those that activate the channel most first; none for a class.
    """
    patches = [item.source for item in references.items if isinstance(item.source, Patch)]
    return sorted(patches, key=lambda patch: (-patch.score, patch.id))


def crop_patch(patch: Patch) -> Image.Image:
    """Crop a patch out of its image.

    Args:
        patch: The patch.

    Returns:
        Its pixels, as far as they lie inside the image.
    """
    pixels = plots.to_rgb(read_image(patch.path, channels=None))
    x0, y0, x1, y1 = patch.box
    return Image.fromarray(pixels[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1])


def draw_choices(
    encoder: Encoder, units: Sequence[str], references: Mapping[str, References], settings: StudySettings
) -> dict[str, tuple[Patch, Patch]]:
    """Choose the two real images that a question of part 4 offers.

    Args:
        encoder: The encoder.
        units: The channels of part 4.
        references: The references of each.
        settings: How many patches of each are references; the next in rank is the right image.

    Returns:
        For each channel the right image, and the wrong one: the right image of that other channel of the study which
        activates this channel least.

    Raises:
        UsageError: If there is a single channel, or all right images are the same.
    """
    if len(units) < 2:
        raise UsageError("images to choose from come from other channels: ask about at least two")
    held_out: dict[str, Patch] = {}
    for unit in units:
        ranked = rank_patches(references[unit])
        held_out[unit] = ranked[settings.n_references] if len(ranked) > settings.n_references else ranked[-1]
    parsed = [parse_unit(unit, encoder) for unit in units]
    with torch.no_grad():
        values = measure_units(encoder, load_patches(encoder, list(held_out.values())), parsed)
    choices: dict[str, tuple[Patch, Patch]] = {}
    for column, unit in enumerate(units):
        order: list[int] = values[:, column].argsort().tolist()
        candidates = (held_out[units[row]] for row in order)
        wrong = next((patch for patch in candidates if patch.id != held_out[unit].id), None)
        if wrong is None:
            raise UsageError(f"all images held out for {', '.join(units)} are the same one: give more references")
        choices[unit] = (held_out[unit], wrong)
    return choices
