"""The key to a study: what was shown and which method made it. It never goes to participants."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from encoscope import results
from encoscope.errors import EncoscopeError

Part: TypeAlias = Literal["words", "examples", "describe", "match"]
PARTS: tuple[Part, ...] = get_args(Part)
TITLES: Mapping[Part, str] = {
    "words": "part 1, word given",
    "examples": "part 2, reference images given",
    "describe": "part 3, described freely",
    "match": "part 4, image chosen",
}
KIND = "study"
FILE = "key.json"


@dataclass(frozen=True)
class Question:
    """One question.

    name: what participants' files call it. word: what a class is called; None for a channel.
    pictures: a file for each method, in the order of the subsets where a participant sees only one of them.
    examples: crops of real images that are shown beside them. choices: the right image and the wrong one.
    """

    name: str
    part: Part
    unit: str
    word: str | None
    pictures: Mapping[str, str]
    examples: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return self.word or self.unit

    def method(self, picture: str) -> str:
        """The method that made a picture of this question."""
        return next(name for name, file in self.pictures.items() if file == picture)


@dataclass(frozen=True)
class Key:
    """A whole study. methods: in the order of tables. model: source, digest, layers."""

    study: str
    title: str
    questions: tuple[Question, ...]
    methods: tuple[str, ...]
    model: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    notes: tuple[str, ...] = ()

    def of(self, part: Part) -> list[Question]:
        """The questions of a part, as they stand in the questionnaire's file."""
        return [question for question in self.questions if question.part == part]

    def methods_of(self, part: Part) -> list[str]:
        """The methods that a part compares."""
        found = {method for question in self.of(part) for method in question.pictures}
        return [method for method in self.methods if method in found]

    @property
    def parts(self) -> list[Part]:
        """The parts that have questions."""
        return [part for part in PARTS if self.of(part)]

    def document(self) -> results.Document:
        """The envelope, ``results`` one entry a question."""
        about = {"study": self.study, "title": self.title, "methods": list(self.methods), "notes": list(self.notes)}
        entries = [asdict(question) for question in self.questions]
        made = {**self.settings, **about}
        return results.envelope(KIND, entries, model=self.model, settings=made, seed=self.seed)

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write key.json into the study's folder."""
        return results.write(Path(folder) / FILE, self.document())


def read_key(folder: str | os.PathLike[str]) -> Key:
    """The key of a study, from its folder. MissingError without one, EncoscopeError for a damaged one."""
    path = Path(folder) / FILE
    document = results.read(path, KIND)
    try:
        settings = dict(document["settings"])
        taken = {name: settings.pop(name) for name in ("study", "title", "methods", "notes")}
        return Key(
            study=taken["study"],
            title=taken["title"],
            questions=tuple(_question(entry) for entry in document["results"]),
            methods=tuple(taken["methods"]),
            model=document["model"],
            settings=settings,
            seed=document["seed"],
            notes=tuple(taken["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EncoscopeError(f"{path} is damaged ({type(error).__name__}: {error}): build the study again") from error


def _question(entry: Mapping[str, Any]) -> Question:
    sequences: dict[str, Sequence[str]] = {name: tuple(entry[name]) for name in ("examples", "choices")}
    return Question(**{**entry, **sequences})
