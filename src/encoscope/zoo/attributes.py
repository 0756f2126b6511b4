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
    """A class in words. All phrases are lower case, except for proper names; no list is empty, except for synonyms.

    Attributes:
        folder: The dataset's own class name.
        name: A singular noun phrase without article.
        synonyms: Other such phrases.
        kind: Noun phrases without article that say what it is.
        parts: Noun phrases that follow "with".
        material: Noun phrases that follow "made of", or "with" for living things.
        texture: Adjectives before a noun.
        color: Adjectives before a noun.
        location: Phrases after the noun that say where it is.
        doing: Phrases after the noun that say what it does.
        nature: "living" or "made".
    """

    folder: str
    name: str
    synonyms: tuple[str, ...]
    kind: tuple[str, ...]
    parts: tuple[str, ...]
    material: tuple[str, ...]
    texture: tuple[str, ...]
    color: tuple[str, ...]
    location: tuple[str, ...]
    doing: tuple[str, ...]
    nature: Nature

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


@cache
def load_class_words() -> tuple[ClassWords, ...]:
    """Load the table, in the order of the classes (folder names sorted bytewise)."""
    table = resources.files("encoscope.zoo") / "data" / "caltech101-attributes.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(_parse_row(row) for row in rows)


def _parse_row(row: dict[str, str]) -> ClassWords:
    if row["nature"] not in ("living", "made"):
        raise ValueError(f"{row['class']} is neither living nor made: {row['nature']!r}")
    return ClassWords(
        folder=row["class"],
        name=row["name"],
        synonyms=_split_cell(row["synonyms"]),
        kind=_split_cell(row["kind"]),
        parts=_split_cell(row["parts"]),
        material=_split_cell(row["material"]),
        texture=_split_cell(row["texture"]),
        color=_split_cell(row["colour"]),
        location=_split_cell(row["place"]),
        doing=_split_cell(row["doing"]),
        nature="living" if row["nature"] == "living" else "made",
    )


def _split_cell(cell: str) -> tuple[str, ...]:
    return () if cell == "-" else tuple(phrase.strip() for phrase in cell.split(","))
