"""The real images that a unit's visualization is matched to (VITAL, section 3.2.2)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

from encoscope.classes import find_class_images, normalize_name
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError, suggest_nearest
from encoscope.images import Channels, ImageListing, LoadedImage, list_images, read_images
from encoscope.probing import Patch, hash_files, load_patches, probe
from encoscope.probing.ids import UNREADABLE
from encoscope.progress import Progress
from encoscope.units import Unit

Source: TypeAlias = Any
"""A dataset string, a folder (its subfolders are labels), a list of files, or images in memory."""


@dataclass(frozen=True)
class Reference:
    """One real image, or a patch of it.

    Attributes:
        id: The sha256 of the file, or of the pixels of an image in memory.
        source: The file, the image in memory, or the patch.
    """

    id: str
    source: Path | LoadedImage | Patch

    @property
    def name(self) -> str:
        """What a result records: the id, with the box in the image's pixels if it is a patch."""
        return f"{self.id}@{','.join(map(str, self.source.box))}" if isinstance(self.source, Patch) else self.id

    def input(self, encoder: Encoder) -> Float[Tensor, "1 channels height width"]:
        """Load it as the network takes it: the model's own resize and crop; a patch as it was scored, not cropped.

        Args:
            encoder: The encoder.

        Returns:
            A normalized batch of one.

        Raises:
            ImageError: For a file that cannot be read.
            MissingError: For a file that is not there.
            EncoscopeError: For a patch of an image that has changed.
        """
        if isinstance(self.source, Patch):
            return load_patches(encoder, [self.source])
        return encoder.prepare(self.source).pixels


@dataclass(frozen=True)
class References:
    """The references of a unit.

    Attributes:
        unit: The unit's text.
        items: The references.
        notes: What a reader of the result has to know about them, a sentence each.
    """

    unit: str
    items: tuple[Reference, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of references."""
        return len(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """What a result records of them: ids, not copies."""
        return tuple(item.name for item in self.items)


def find_class_references(
    source: Source,
    encoder: Encoder,
    unit: Unit,
    *,
    select: str = "labels",
    count: int | None = 50,
    random_state: int = RANDOM_STATE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> References:
    """Choose images of a class: those labelled so, at random, or those that the network itself scores highest.

    Which labels are the class is as ``match_labels`` has it. Images without labels all count for the class. What is
    drawn depends on the images' contents and the seed alone; the network's highest scores need no seed.

    Args:
        source: The images.
        encoder: The encoder whose classes are meant.
        unit: The class.
        select: "labels", or "top" for the images of the highest logits, whatever their labels.
        count: How many images; None takes all.
        random_state: The seed.
        cache_dir: The folder for the ids of files and the logits; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The references, with notes on how they were selected where it is not by labels, and on fewer images than
        ``count``.

    Raises:
        UsageError: For a unit that is no class, where the images have labels.
        MissingError: When there is no image of the class.
    """
    if select == "top":
        return _find_top_references(source, encoder, unit, count, cache_dir, progress)
    files, labels = _list_sources(source, encoder.preprocess.image_channels)
    notes: list[str] = []
    if not any(label is not None for label in labels):
        indices = list(range(len(files)))
        notes.append(
            f"the references have no labels: all {len(files)} count as {unit.text} (select top takes those that the "
            "network itself scores highest)"
        )
    else:
        if not unit.is_class:
            raise UsageError(f"{unit.text} is no class: its references are top patches")
        indices, matched = find_class_images(encoder, unit.index, labels)
        notes += matched
        if not indices:
            name = normalize_name(encoder.classes[unit.index] if encoder.classes else f"class {unit.index}")
            known = sorted({normalize_name(label) for label in labels if label is not None})
            raise MissingError(
                f"the references hold no image labelled {name!r}{suggest_nearest(name, known)}: "
                f"they are needed for {unit.text}"
            )
    items = _identify([files[index] for index in indices], cache_dir)
    return pick_references(unit.text, items, count, random_state, notes)


def take_all_references(
    source: Source, unit: Unit, *, count: int | None = None, random_state: int = RANDOM_STATE, channels: Channels = 3
) -> References:
    """Take all images of a source as a unit's references, whatever their labels.

    Args:
        source: The images.
        unit: The unit.
        count: Take only so many, at random; None takes all.
        random_state: The seed.
        channels: Channels of the network, for images in memory.

    Returns:
        The references.

    Raises:
        MissingError: When there is no image.
    """
    files, _ = _list_sources(source, channels)
    return pick_references(unit.text, _identify(files), count, random_state)


def pick_references(
    unit: str, items: Sequence[Reference], count: int | None, random_state: int, notes: Iterable[str] = ()
) -> References:
    """Choose by the order of a hash of seed, unit and id, so that any listing of the same images gives the same.

    Args:
        unit: The unit's text.
        items: References to choose from; the same one twice counts once.
        count: How many at most; None takes all.
        random_state: The seed.
        notes: Notes that the result gets.

    Returns:
        The references, ordered by name, with a note where there are fewer than ``count``.

    Raises:
        MissingError: When there is none.
    """
    notes = list(notes)
    distinct = list({item.name: item for item in items}.values())
    if not distinct:
        raise MissingError(f"there are no reference images for {unit}")
    if count is not None and len(distinct) < count:
        notes.append(f"{len(distinct)} references where {count} were asked for")

    def hash_name(item: Reference) -> bytes:
        return hashlib.sha256(f"{random_state}\0{unit}\0{item.name}".encode()).digest()

    ordered = sorted(distinct, key=hash_name)[:count]
    return References(unit, tuple(sorted(ordered, key=lambda item: item.name)), tuple(notes))


def _find_top_references(
    source: Source,
    encoder: Encoder,
    unit: Unit,
    count: int | None,
    cache_dir: str | os.PathLike[str] | None,
    progress: Progress,
) -> References:
    """The images of the highest logits for a class, the highest first, ties by id; the same image twice counts once."""
    if unit.kind != "class":
        raise UsageError(f"{unit.text} is no class: its references are top patches")
    items, logits = _compute_logits(source, encoder, cache_dir, progress)
    values = logits[:, unit.index]
    ranked: dict[str, int] = {}
    for row in sorted(range(len(items)), key=lambda row: (-float(values[row]), items[row].id)):
        ranked.setdefault(items[row].id, row)
    rows = list(ranked.values())[:count]
    named = int((logits[rows].argmax(1) == unit.index).sum())
    best = "the highest-scoring" if len(rows) < len(ranked) else "all"
    notes = [
        f"references selected by the network itself, not by labels: {best} {len(rows)} of {len(ranked)} images for "
        f"{unit.text}, logits {values[rows[0]]:.3g} to {values[rows[-1]]:.3g}; it takes {named} of them for this class"
    ]
    if count is not None and len(rows) < count:
        notes.append(f"{len(rows)} references where {count} were asked for")
    return References(unit.text, tuple(items[row] for row in rows), tuple(notes))


def _compute_logits(
    source: Source, encoder: Encoder, cache_dir: str | os.PathLike[str] | None, progress: Progress
) -> tuple[list[Reference], Float[np.ndarray, "images classes"]]:
    """The images that can be read, and the logits of each; those of files are kept as a probe."""
    if _in_memory(source):
        images, _ = _list_sources(source, encoder.preprocess.image_channels)
        if not images:
            raise MissingError("there are no reference images")
        rows = [encoder.logits(encoder.prepare(image).pixels)[0].float().cpu().numpy() for image in images]
        return _identify(images), np.stack(rows)
    probed = probe(encoder, source, "logits", cache_dir=cache_dir, progress=progress)
    pairs = zip(probed.ids, probed.paths, strict=True)
    return [Reference(id, Path(path or "")) for id, path in pairs], np.asarray(probed.values)


def _list_sources(source: Source, channels: Channels) -> tuple[Sequence[Path | LoadedImage], Sequence[str | None]]:
    """The files or images in memory that a source stands for, and a label each."""
    if _in_memory(source):
        images = [image for image in read_images(source, channels=channels) if isinstance(image, LoadedImage)]
        return images, [None] * len(images)
    files: ImageListing = list_images(source)
    return list(files.paths), files.labels


def _in_memory(source: Source) -> bool:
    """Whether a source holds images instead of naming files."""
    if isinstance(source, str | Path | ImageListing) or hasattr(source, "paths"):
        return False
    if isinstance(source, Sequence):
        return bool(source) and not isinstance(source[0], str | Path)
    if isinstance(source, Iterator):
        raise UsageError("references are read more than once: give a list of images or files, not an iterator")
    return True


def _identify(
    sources: Sequence[Path | LoadedImage], cache_dir: str | os.PathLike[str] | None = None
) -> list[Reference]:
    """References of files and images; files that cannot be opened are left out."""
    paths = [source for source in sources if isinstance(source, Path)]
    ids = dict(zip(paths, hash_files(paths, cache_dir=cache_dir), strict=True)) if paths else {}
    items = [Reference(source.id if isinstance(source, LoadedImage) else ids[source], source) for source in sources]
    return [item for item in items if item.id != UNREADABLE]
