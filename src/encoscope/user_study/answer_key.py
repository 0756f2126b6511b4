"""The answer key of a study: what was shown and which method it came from. It never goes to participants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from encoscope import results
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import EncoscopeError

StudyPart: TypeAlias = Literal["words", "examples", "describe", "match"]
PARTS: tuple[StudyPart, ...] = get_args(StudyPart)
TITLES: Mapping[StudyPart, str] = {
    "words": "part 1, word given",
    "examples": "part 2, reference images given",
    "describe": "part 3, described freely",
    "match": "part 4, image chosen",
}
KIND = "study"
FILE = "key.json"


@dataclass(frozen=True)
class Question:
    """A question of a study.

    Attributes:
        name: What participants' files call it.
        part: The part of the study that it belongs to.
        unit: The text of the unit that it is about.
        word: What a class is called before participants; None for a channel.
        visualizations: The file of each method's visualization; where a participant sees only one of them, in the
            order of the subsets.
        examples: Files of crops of real images that are shown beside them.
        choices: Files of the right real image and the wrong one.
    """

    name: str
    part: StudyPart
    unit: str
    word: str | None
    visualizations: Mapping[str, str]
    examples: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return self.word or self.unit

    def find_method(self, file: str) -> str:
        """Find the method that made a visualization of this question.

        Args:
            file: The visualization's file.

        Returns:
            The name of the method.
        """
        return next(method for method, other in self.visualizations.items() if other == file)


@dataclass(frozen=True)
class AnswerKey:
    """All questions of a study with what is behind them.

    Attributes:
        study: The study's identifier, a digest of what participants see.
        title: The questionnaire's title.
        questions: All questions, in the order of the questionnaire's file.
        methods: The methods that are compared, in the order of the tables.
        model: Source, digest and layers of the encoder.
        settings: How the study was requested.
        seed: The seed that everything was drawn with.
        notes: What a reader of the results has to know.
    """

    study: str
    title: str
    questions: tuple[Question, ...]
    methods: tuple[str, ...]
    model: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = RANDOM_STATE
    notes: tuple[str, ...] = ()

    def select_questions(self, part: StudyPart) -> list[Question]:
        """Select the questions of a part.

        Args:
            part: The part.

        Returns:
            Its questions, in the order of the questionnaire's file; none for a part that was left out.
        """
        return [question for question in self.questions if question.part == part]

    def select_methods(self, part: StudyPart) -> list[str]:
        """Select the methods that a part compares.

        Args:
            part: The part.

        Returns:
            Their names, in the order of the tables.
        """
        compared = {method for question in self.select_questions(part) for method in question.visualizations}
        return [method for method in self.methods if method in compared]

    @property
    def parts(self) -> list[StudyPart]:
        """The parts that have questions."""
        return [part for part in PARTS if self.select_questions(part)]

    def to_dict(self) -> results.Document:
        """Give the result document, whose ``results`` have an entry for each question."""
        about = {"study": self.study, "title": self.title, "methods": list(self.methods), "notes": list(self.notes)}
        entries = [asdict(question) for question in self.questions]
        settings = {**self.settings, **about}
        return results.envelope(KIND, entries, model=self.model, settings=settings, seed=self.seed)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write key.json.

        Args:
            folder: The study's folder.

        Returns:
            The file.
        """
        return results.write(Path(folder) / FILE, self.to_dict())


def load_key(folder: str | os.PathLike[str]) -> AnswerKey:
    """Load the answer key of a study.

    Args:
        folder: The study's folder, which holds key.json.

    Returns:
        The answer key.

    Raises:
        MissingError: If there is no key.json.
        EncoscopeError: If it is damaged.
    """
    path = Path(folder) / FILE
    document = results.read(path, KIND)
    try:
        settings = dict(document["settings"])
        about = {name: settings.pop(name) for name in ("study", "title", "methods", "notes")}
        return AnswerKey(
            study=about["study"],
            title=about["title"],
            questions=tuple(_read_question(entry) for entry in document["results"]),
            methods=tuple(about["methods"]),
            model=document["model"],
            settings=settings,
            seed=document["seed"],
            notes=tuple(about["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EncoscopeError(f"{path} is damaged ({type(error).__name__}: {error}): build the study again") from error


def _read_question(entry: Mapping[str, Any]) -> Question:
    return Question(**{**entry, "examples": tuple(entry["examples"]), "choices": tuple(entry["choices"])})
