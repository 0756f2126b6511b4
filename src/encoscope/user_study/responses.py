"""Read what participants handed in, and hold it against the key: whole, of this study, in the orders of its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoscope import results
from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import SkippedImage
from encoscope.user_study.answer_key import Key, Question
from encoscope.user_study.ordering import choice_order, is_code, question_order, subset_of

KIND = "study-answers"
SCORES = range(1, 6)
CONFIDENCES = range(1, 4)


@dataclass(frozen=True)
class Answers:
    """One participant's answers, with methods in place of files.

    scores: by question and method, 1 to 5. texts: by question, (method, what was written).
    choices: by question, (method, whether the matching image was chosen, confidence 1 to 3).
    subsets: by part, where only one picture of a question is seen. demographics: "age" and "gender", None unanswered.
    seconds: spent on the questions.
    """

    participant: str
    scores: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, bool, int]] = field(default_factory=dict)
    subsets: Mapping[str, int] = field(default_factory=dict)
    demographics: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0


def read_answers(key: Key, sources: Iterable[Path]) -> tuple[list[Answers], list[SkippedImage]]:
    """Everyone's answers, and the files that are left out, each with the reason: damaged, incomplete, of another study
    or of a participant whose answers are there already (the first file in alphabetical order counts).

    sources: files, and folders whose .json files are taken.

    Raises MissingError when no file is found.
    """
    found: dict[str, tuple[Answers, Path]] = {}
    skipped: list[SkippedImage] = []
    files = _files(sources)
    for path in files:
        try:
            answers = checked(key, results.read(path, KIND))
        except EncoscopeError as error:
            skipped.append(SkippedImage(str(path), str(error).removeprefix(f"{path} ").removeprefix("cannot read ")))
            continue
        before = found.get(answers.participant)
        if before is not None:
            reason = f"participant {answers.participant} has answered already, in {before[1].name}"
            skipped.append(SkippedImage(str(path), reason))
        else:
            found[answers.participant] = (answers, path)
    return [answers for answers, _ in found.values()], skipped


def checked(key: Key, document: Mapping[str, Any]) -> Answers:
    """The answers in a document. EncoscopeError for what is missing, or was not made by this questionnaire."""
    if document.get("study") != key.study:
        raise EncoscopeError(f"these are answers to study {document.get('study')!r}, not to {key.study}")
    code = document.get("participant")
    if not is_code(code):
        raise EncoscopeError(f"no participant code: {code!r}")
    given, orders = _mapping(document.get("answers"), "answers"), _mapping(document.get("orders"), "orders")
    scores, texts, choices, subsets = {}, {}, {}, {}
    seconds = 0.0
    for part in key.parts:
        questions = key.of(part)
        if orders.get(part) != question_order(key.study, str(code), part, [one.name for one in questions]):
            raise EncoscopeError(f"the order of the questions of {part!r} is not that of participant {code}")
        if part in ("describe", "match"):
            subsets[part] = subset_of(key.study, str(code), part, len(questions[0].pictures))
        for place, question in enumerate(orders[part], 1):
            asked = next(one for one in questions if one.name == question)
            where = f"part {key.parts.index(part) + 1}, question {place}"
            answer = _mapping(given.get(question), f"{where}: answer")
            seen = list(asked.pictures.values())[subsets[part]] if part in subsets else None
            _check_shown(key, str(code), asked, answer, seen, where)
            if part in ("words", "examples"):
                scores[question] = _scores(asked, answer, where)
            elif part == "describe":
                text = answer.get("text")
                if not isinstance(text, str) or not text.strip():
                    raise EncoscopeError(f"{where}: nothing is written")
                texts[question] = (asked.method(str(seen)), text)
            else:
                choices[question] = (asked.method(str(seen)), *_choice(asked, answer, where))
            spent = answer.get("seconds")
            seconds += float(spent) if isinstance(spent, int | float) and not isinstance(spent, bool) else 0.0
    return Answers(str(code), scores, texts, choices, subsets, _demographics(document), seconds)


def _files(sources: Iterable[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found |= dict.fromkeys(sorted(source.glob("*.json")))
        else:
            found[source] = None
    if not found:
        raise MissingError("no answers: give the .json files that participants saved, or their folder")
    return list(found)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise EncoscopeError(f"{what} missing")
    return value


def _check_shown(key: Key, code: str, asked: Question, answer: Mapping[str, Any], seen: str | None, where: str) -> None:
    """What was shown must be what the code leads to; otherwise scores would go to the wrong methods."""
    if asked.part == "describe":
        expected = [str(seen)]
    else:
        items = asked.choices if asked.part == "match" else list(asked.pictures.values())
        expected = choice_order(key.study, code, asked.name, sorted(items))
    if answer.get("shown") != expected or (asked.part == "match" and answer.get("picture") != seen):
        raise EncoscopeError(f"{where}: other pictures were shown than participant {code} is to see")


def _scores(asked: Question, answer: Mapping[str, Any], where: str) -> dict[str, int]:
    given = _mapping(answer.get("scores"), f"{where}: scores")
    found = {}
    for method, name in asked.pictures.items():
        score = _number(given.get(name), SCORES, f"{where}: score")
        found[method] = score
    return found


def _choice(asked: Question, answer: Mapping[str, Any], where: str) -> tuple[bool, int]:
    choice = answer.get("choice")
    if choice not in asked.choices:
        raise EncoscopeError(f"{where}: no image is chosen")
    return choice == asked.choices[0], _number(answer.get("confidence"), CONFIDENCES, f"{where}: confidence")


def _number(value: Any, allowed: range, what: str) -> int:
    if value is None:
        raise EncoscopeError(f"{what} missing")
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise EncoscopeError(f"{what} is {allowed[0]} to {allowed[-1]}, not {value!r}")
    return value


def _demographics(document: Mapping[str, Any]) -> dict[str, str | None]:
    told = document.get("demographics")
    told = told if isinstance(told, Mapping) else {}
    return {name: value if isinstance(value := told.get(name), str) else None for name in ("age", "gender")}
