"""The words behind the shipped image-text model: a reviewed table of names and attributes, a row per class."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

HELD_OUT = (
    "grand_piano",
    "lobster",
    "okapi",
    "panda",
    "saxophone",
    "soccer_ball",
    "strawberry",
    "water_lilly",
    "wheelchair",
    "wild_cat",
)
"""Classes whose names and synonyms no caption holds (their attributes stay): what the model says of them is zero-shot.

Chosen for variety (instruments, animals, a fruit, a flower, a vehicle) and so that some names are made of words that
other classes' captions do hold ("wild" and "cat", "water", "ball") and others are wholly unseen ("okapi").
"""

Nature: TypeAlias = Literal["living", "made"]


@dataclass(frozen=True)
class ClassWords:
    """A class in words. All phrases are lower case, but for proper names; lists are never empty but for synonyms.

    folder: the dataset's own class name. name: a singular noun phrase without article. synonyms: other such phrases.
    kind: what it is, without article. parts, material: noun phrases after "with" and "made of".
    texture, colour: adjectives before a noun. place, doing: phrases after the noun. nature: "living" or "made".
    """

    folder: str
    name: str
    synonyms: tuple[str, ...]
    kind: tuple[str, ...]
    parts: tuple[str, ...]
    material: tuple[str, ...]
    texture: tuple[str, ...]
    colour: tuple[str, ...]
    place: tuple[str, ...]
    doing: tuple[str, ...]
    nature: Nature

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


def _list(cell: str) -> tuple[str, ...]:
    return () if cell == "-" else tuple(part.strip() for part in cell.split(","))


@cache
def attributes() -> tuple[ClassWords, ...]:
    """The table, in the order of the classes (folder names sorted bytewise)."""
    table = resources.files("encoscope.zoo") / "data" / "caltech101-attributes.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(_row(row) for row in rows)


def _row(row: dict[str, str]) -> ClassWords:
    if row["nature"] not in ("living", "made"):
        raise ValueError(f"{row['class']} is neither living nor made: {row['nature']!r}")
    return ClassWords(
        folder=row["class"],
        name=row["name"],
        synonyms=_list(row["synonyms"]),
        kind=_list(row["kind"]),
        parts=_list(row["parts"]),
        material=_list(row["material"]),
        texture=_list(row["texture"]),
        colour=_list(row["colour"]),
        place=_list(row["place"]),
        doing=_list(row["doing"]),
        nature="living" if row["nature"] == "living" else "made",
    )
