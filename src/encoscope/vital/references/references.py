"""The real images that a unit's picture is matched to (paper, section 3.2.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError, suggest_nearest
from encoscope.images import ImageListing, LoadedImage, list_images, read_images
from encoscope.probing import Patch, hash_files, load_patches
from encoscope.probing.ids import UNREADABLE
from encoscope.units import Unit, find_class_images, normalize_name

Source: TypeAlias = Any
"""A dataset string, a folder (its subfolders are labels), a list of files, or images in memory."""


@dataclass(frozen=True)
class Reference:
    """One real image, or a patch of it. id: sha256 of the file, or of the pixels of an image in memory."""

    id: str
    source: Path | LoadedImage | Patch

    @property
    def name(self) -> str:
        """What a result records: the id, with the box in the image's pixels if it is a patch."""
        return f"{self.id}@{','.join(map(str, self.source.box))}" if isinstance(self.source, Patch) else self.id

    def input(self, encoder: Encoder) -> Float[Tensor, "1 channels height width"]:
        """The reference as the network takes it: its own resize and crop; a patch as it was scored, nothing cut off.

        Raises ImageError and MissingError for what cannot be read, EncoscopeError for a changed image of a patch.
        """
        if isinstance(self.source, Patch):
            return load_patches(encoder, [self.source])
        return encoder.prepare(self.source).pixels


@dataclass(frozen=True)
class References:
    """A unit's references. notes: what a reader of the result has to know about them, a sentence each."""

    unit: str
    items: tuple[Reference, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of references."""
        return len(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """What a result records of them: ids, not copies."""
        return tuple(item.name for item in self.items)


def find_class_references(
    source: Source, encoder: Encoder, unit: Unit, *, count: int | None = 50, seed: int = 0
) -> References:
    """``count`` images of a class at random (all if None); which ones depends on their contents and the seed alone.

    Labels match the encoder's class names, whatever their case, ``_`` a space; without class names, the labels in
    alphabetical order are the classes if there are as many. Images without labels all count for the class asked for.

    Raises MissingError when there is no image of the class.
    """
    files, labels = _files(source)
    notes: list[str] = []
    if not any(label is not None for label in labels):
        chosen = list(range(len(files)))
        notes.append(f"the references have no labels: all {len(files)} count as {unit.text}")
    else:
        if unit.kind != "class":
            raise UsageError(f"{unit.text} is no class: its references are top patches")
        chosen = find_class_images(encoder, unit.index, labels)
        if not chosen:
            name = normalize_name(encoder.classes[unit.index] if encoder.classes else f"class {unit.index}")
            known = sorted({normalize_name(label) for label in labels if label is not None})
            raise MissingError(
                f"the references hold no image labelled {name!r}{suggest_nearest(name, known)}: "
                f"they are needed for {unit.text}"
            )
    return pick_references(unit.text, _identified([files[index] for index in chosen]), count, seed, notes)


def take_all_references(source: Source, unit: Unit, *, count: int | None = None, seed: int = 0) -> References:
    """All images of a source, or ``count`` at random, as a unit's references, whatever their labels."""
    files, _ = _files(source)
    return pick_references(unit.text, _identified(files), count, seed)


def pick_references(
    unit: str, items: Sequence[Reference], count: int | None, seed: int, notes: Iterable[str] = ()
) -> References:
    """At most ``count`` items, by the order of a hash of seed, unit and id: any listing of the same images agrees."""
    notes = list(notes)
    distinct = list({item.name: item for item in items}.values())
    if not distinct:
        raise MissingError(f"there are no reference images for {unit}")
    if count is not None and len(distinct) < count:
        notes.append(f"{len(distinct)} references where {count} were asked for")

    def place(item: Reference) -> bytes:
        return hashlib.sha256(f"{seed}\0{unit}\0{item.name}".encode()).digest()

    ordered = sorted(distinct, key=place)[:count]
    return References(unit, tuple(sorted(ordered, key=lambda item: item.name)), tuple(notes))


def _files(source: Source) -> tuple[Sequence[Path | LoadedImage], Sequence[str | None]]:
    """The files or images in memory that a source stands for, and a label each."""
    if _in_memory(source):
        found = [photo for photo in read_images(source) if isinstance(photo, LoadedImage)]
        return found, [None] * len(found)
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


def _identified(sources: Sequence[Path | LoadedImage]) -> list[Reference]:
    """References of files and images; files that cannot be opened are left out."""
    paths = [source for source in sources if isinstance(source, Path)]
    known = dict(zip(paths, hash_files(paths), strict=True)) if paths else {}
    found = [Reference(source.id if isinstance(source, LoadedImage) else known[source], source) for source in sources]
    return [item for item in found if item.id != UNREADABLE]
