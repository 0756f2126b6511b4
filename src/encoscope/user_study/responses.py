"""Read the answers that participants handed in, and check them against the answer key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoscope import results
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import SkippedImage
from encoscope.user_study.answer_key import AnswerKey, Question
from encoscope.user_study.ordering import find_subset, is_code, order_images, order_questions

KIND = "study-answers"
SCORES = range(1, 6)
CONFIDENCES = range(1, 4)


@dataclass(frozen=True)
class Answers:
    """The answers of one participant, with methods in place of files.

    Attributes:
        participant: The participant's code.
        scores: By question and method, 1 to 5.
        texts: By question: the method of the visualization shown, and the description.
        choices: By question: the method of the visualization shown, whether the right image was chosen, and the
            confidence, 1 to 3.
        subsets: By part, the index of the subset that was shown.
        demographics: "age" and "gender"; None where it was not told.
        seconds: The time spent on all questions.
    """

    participant: str
    scores: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, bool, int]] = field(default_factory=dict)
    subsets: Mapping[str, int] = field(default_factory=dict)
    demographics: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0


def read_answers(key: AnswerKey, sources: Iterable[Path]) -> tuple[list[Answers], list[SkippedImage]]:
    """Read everyone's answers.

    Args:
        key: The study's answer key.
        sources: Files, and folders whose .json files are read.

    Returns:
        The answers, and the files that are left out with the reason: damaged, incomplete, of another study, or of a
        participant whose answers are there already (of several files the first in alphabetical order counts).

    Raises:
        MissingError: If there is no file.
    """
    answers: dict[str, Answers] = {}
    files: dict[str, Path] = {}
    skipped: list[SkippedImage] = []
    for path in _list_files(sources):
        try:
            current = check_answers(key, results.read(path, KIND))
        except EncoscopeError as error:
            skipped.append(SkippedImage(str(path), str(error).removeprefix(f"{path} ").removeprefix("cannot read ")))
            continue
        name = current.participant
        if name in answers:
            skipped.append(SkippedImage(str(path), f"participant {name} has answered already, in {files[name].name}"))
        else:
            answers[name], files[name] = current, path
    return list(answers.values()), skipped


def check_answers(key: AnswerKey, document: Mapping[str, Any]) -> Answers:
    """Check a participant's file and translate its files into methods.

    Args:
        key: The study's answer key.
        document: What the file holds.

    Returns:
        The answers.

    Raises:
        EncoscopeError: If something is missing, or the file is not from this questionnaire with the orders of its code.
    """
    if document.get("study") != key.study:
        raise EncoscopeError(f"these are answers to study {document.get('study')!r}, not to {key.study}")
    code = document.get("participant")
    if not is_code(code):
        raise EncoscopeError(f"no participant code: {code!r}")
    entries, orders = _get_mapping(document, "answers"), _get_mapping(document, "orders")
    scores, texts, choices, subsets = {}, {}, {}, {}
    seconds = 0.0
    for part in key.parts:
        questions = {question.name: question for question in key.select_questions(part)}
        if orders.get(part) != order_questions(key.study, str(code), part, list(questions)):
            raise EncoscopeError(f"the order of the questions of {part!r} is not that of participant {code}")
        if part in ("describe", "match"):
            methods = next(iter(questions.values())).visualizations
            subsets[part] = find_subset(key.study, str(code), part, len(methods))
        for number, name in enumerate(orders[part], 1):
            question = questions[name]
            where = f"part {key.parts.index(part) + 1}, question {number}"
            entry = entries.get(name)
            if not isinstance(entry, Mapping):
                raise EncoscopeError(f"{where}: answer missing")
            files = list(question.visualizations.values())
            shown = files[subsets[part]] if part in subsets else None
            _check_shown(key, str(code), question, entry, shown, where)
            if part in ("words", "examples"):
                scores[name] = _read_scores(question, entry, where)
            elif part == "describe":
                text = entry.get("text")
                if not isinstance(text, str) or not text.strip():
                    raise EncoscopeError(f"{where}: nothing is written")
                texts[name] = (question.find_method(str(shown)), text)
            else:
                choices[name] = (question.find_method(str(shown)), *_read_choice(question, entry, where))
            spent = entry.get("seconds")
            seconds += float(spent) if isinstance(spent, int | float) and not isinstance(spent, bool) else 0.0
    return Answers(str(code), scores, texts, choices, subsets, _read_demographics(document), seconds)


def _list_files(sources: Iterable[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for source in sources:
        files |= dict.fromkeys(sorted(source.glob("*.json")) if source.is_dir() else [source])
    if not files:
        raise MissingError("no answers: give the .json files that participants saved, or their folder")
    return list(files)


def _get_mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise EncoscopeError(f"{name} missing")
    return value


def _check_shown(
    key: AnswerKey, code: str, question: Question, entry: Mapping[str, Any], shown: str | None, where: str
) -> None:
    """Check that what was shown follows from the code; otherwise scores would go to the wrong methods."""
    if question.part == "describe":
        expected = [str(shown)]
    else:
        files = question.choices if question.part == "match" else question.visualizations.values()
        expected = order_images(key.study, code, question.name, sorted(files))
    if entry.get("shown") != expected or (question.part == "match" and entry.get("picture") != shown):
        raise EncoscopeError(f"{where}: other images were shown than participant {code} is to see")


def _read_scores(question: Question, entry: Mapping[str, Any], where: str) -> dict[str, int]:
    scores = entry.get("scores")
    if not isinstance(scores, Mapping):
        raise EncoscopeError(f"{where}: scores missing")
    files = question.visualizations.items()
    return {method: _check_number(scores.get(file), SCORES, f"{where}: score") for method, file in files}


def _read_choice(question: Question, entry: Mapping[str, Any], where: str) -> tuple[bool, int]:
    choice = entry.get("choice")
    if choice not in question.choices:
        raise EncoscopeError(f"{where}: no image is chosen")
    confidence = _check_number(entry.get("confidence"), CONFIDENCES, f"{where}: confidence")
    return choice == question.choices[0], confidence


def _check_number(value: Any, allowed: range, what: str) -> int:
    if value is None:
        raise EncoscopeError(f"{what} missing")
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise EncoscopeError(f"{what} is {allowed[0]} to {allowed[-1]}, not {value!r}")
    return value


def _read_demographics(document: Mapping[str, Any]) -> dict[str, str | None]:
    answers = document.get("demographics")
    answers = answers if isinstance(answers, Mapping) else {}
    return {name: value if isinstance(value := answers.get(name), str) else None for name in ("age", "gender")}
