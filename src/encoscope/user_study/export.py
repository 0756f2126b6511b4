"""Write a study: a folder to hand out, in which nothing tells method or class, and beside it the answer key."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from encoscope import results
from encoscope.errors import MissingError, UsageError
from encoscope.user_study.answer_key import FILE, PARTS, AnswerKey, Question, StudyPart, load_key
from encoscope.user_study.ordering import draw_codes, find_subset, make_latin_square, shuffle
from encoscope.user_study.settings import StudySettings

FOLDER = "questionnaire"
CODES = "participants.csv"
TITLE = "What do these pictures show?"
_PAGES = ("index.html", "study.css", "study.js")
_CROP = 192  # side of reference images, in pixels


@dataclass(frozen=True, eq=False)
class QuestionContent:
    """What a question is made of.

    Attributes:
        part: The part of the study that it belongs to.
        unit: The text of the unit that it is about.
        word: What a class is called before participants; None for a channel.
        visualizations: Each method's visualization of the unit.
        examples: Crops of real images to show beside them.
        choices: The real image that matches, and one that does not.
    """

    part: StudyPart
    unit: str
    word: str | None
    visualizations: Mapping[str, Image.Image]
    examples: Sequence[Image.Image] = ()
    choices: Sequence[Image.Image] = ()


@dataclass(frozen=True)
class StudyInfo:
    """What is recorded of a study besides its questions.

    Attributes:
        title: The questionnaire's title.
        participants: The number of codes to hand out.
        random_state: The seed of all orders and codes.
        model: Source, digest and layers of the encoder.
        settings: How the study was requested.
        notes: What a reader of the results has to know.
    """

    title: str = TITLE
    participants: int = StudySettings.participants
    random_state: int = StudySettings.random_state
    model: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_study(
    contents: Sequence[QuestionContent], methods: Sequence[str], out: Path, info: StudyInfo | None = None
) -> AnswerKey:
    """Write OUT/questionnaire (to hand out), OUT/key.json and OUT/participants.csv (to keep).

    Args:
        contents: The questions in any order; the questions of each part are shuffled by the seed.
        methods: The methods, in the order of the tables.
        out: The study's folder.
        info: What is recorded besides; the defaults of `StudyInfo` if None.

    Returns:
        The answer key.

    Raises:
        UsageError: If there is no question, the questions of a part compare different methods, or the folder holds
            another study.
    """
    info = info or StudyInfo()
    if not contents:
        raise UsageError("a study needs at least one question")
    files: dict[str, bytes] = {}
    side = max(max(image.size) for content in contents for image in content.visualizations.values())
    questions = [
        question
        for part in PARTS
        for question in _make_questions(
            part, [content for content in contents if content.part == part], methods, files, side, info
        )
    ]
    parts: list[StudyPart] = [part for part in PARTS if any(question.part == part for question in questions)]
    shown = {"title": info.title, "parts": [_describe_part(part, questions) for part in parts]}
    study = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:12]
    key = AnswerKey(
        study,
        info.title,
        tuple(questions),
        tuple(methods),
        info.model,
        {**info.settings, "participants": info.participants},
        info.random_state,
        info.notes,
    )
    check_overwrite(out, methods, info)
    with suppress(MissingError):
        if (existing := load_key(out)).study != study:  # other visualizations, or other images
            raise _refuse(out, existing)
    handed_out = out / FOLDER
    for name in sorted(files):  # in the order of their names, so that the times of the files tell nothing
        _write(handed_out / "pictures" / name, files[name])
    text = json.dumps({"study": study, **shown}, ensure_ascii=False, indent=1).replace("</", "<\\/")
    _write(handed_out / "questions.js", f"window.STUDY = {text};\n".encode())
    for name in _PAGES:
        _write(handed_out / name, resources.files("encoscope.user_study").joinpath("pages", name).read_bytes())
    key.save(out)
    _write(out / CODES, _list_participants(key, info).encode())
    return key


def count_subsets(key: AnswerKey) -> list[tuple[StudyPart, int]]:
    """Count the subsets of the parts of which a participant sees one visualization a question.

    Args:
        key: The answer key.

    Returns:
        Each of these parts with its number of subsets.
    """
    parts: tuple[StudyPart, ...] = ("describe", "match")
    return [(part, len(key.select_methods(part))) for part in parts if key.select_questions(part)]


def check_overwrite(out: Path, methods: Sequence[str], info: StudyInfo) -> None:
    """Check that no other study's answer key would be overwritten: without its key, answers to it are lost.

    Args:
        out: The folder of the new study.
        methods: The methods of the new study.
        info: What is recorded of the new study.

    Raises:
        UsageError: If the folder holds a study of other settings.
    """
    try:
        existing = load_key(out)
    except MissingError:
        return
    settings = json.loads(results.dumps({**info.settings, "participants": info.participants}))
    digests = [(model or {}).get("digest") for model in (existing.model, info.model)]
    before = (existing.settings, existing.seed, list(existing.methods), existing.title, digests[0])
    if before != (settings, info.random_state, list(methods), info.title, digests[1]):
        raise _refuse(out, existing)


def _make_questions(
    part: StudyPart,
    contents: Sequence[QuestionContent],
    methods: Sequence[str],
    files: dict[str, bytes],
    side: int,
    info: StudyInfo,
) -> list[Question]:
    """The questions of a part; their files are added to ``files``."""
    compared = {frozenset(content.visualizations) for content in contents}
    if len(compared) > 1:
        raise UsageError(f"the questions of part {part!r} compare different methods: {sorted(map(sorted, compared))}")
    if not contents:
        return []
    columns = shuffle(
        [name for name in methods if name in contents[0].visualizations], f"{info.random_state}/{part}/methods"
    )
    order = shuffle(range(len(contents)), f"{info.random_state}/{part}")
    questions = []
    for number, (index, row) in enumerate(zip(order, make_latin_square(len(order), columns), strict=True), 1):
        content = contents[index]

        def add(image: Image.Image, width: int, role: str, unit: str = content.unit) -> str:
            data = _encode_png(image, width)
            secret = f"{info.random_state}/{part}/{unit}/{role}/".encode()
            name = f"{hashlib.sha256(secret + data).hexdigest()[:16]}.png"
            files[name] = data
            return name

        visualizations = {method: add(content.visualizations[method], side, f"method {method}") for method in row}
        examples = tuple(add(image, _CROP, f"example {index}") for index, image in enumerate(content.examples))
        choices = tuple(add(image, _CROP, f"choice {index}") for index, image in enumerate(content.choices))
        name = f"{'abcd'[PARTS.index(part)]}{number:02d}"
        questions.append(Question(name, part, content.unit, content.word, visualizations, examples, choices))
    return questions


def _describe_part(part: StudyPart, questions: Sequence[Question]) -> dict[str, Any]:
    """A part as participants' files hold it. Visualizations that are seen together are in the order of their names."""
    shown = []
    for question in questions:
        if question.part != part:
            continue
        files = list(question.visualizations.values())
        entry: dict[str, Any] = {"name": question.name}
        if part == "words":
            entry["word"] = question.word
        if part == "examples":
            entry["examples"] = list(question.examples)
        if part == "match":
            entry["choices"] = sorted(question.choices)
        entry["pictures"] = sorted(files) if part in ("words", "examples") else files
        shown.append(entry)
    return {"kind": part, "questions": shown}


def _list_participants(key: AnswerKey, info: StudyInfo) -> str:
    """A table of codes, with the address of each and the subsets it leads to."""
    parts = [(str(part), number) for part, number in count_subsets(key)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["code", "address", *(f"subset ({part})" for part, _ in parts)])
    for code in draw_codes(key.study, info.participants, parts, info.random_state):
        subsets = [find_subset(key.study, code, part, number) + 1 for part, number in parts]
        writer.writerow([code, f"index.html#{code}", *subsets])
    return text.getvalue()


def _encode_png(image: Image.Image, side: int) -> bytes:
    """A square of this side as PNG, without anything besides its pixels."""
    plain = image.convert("RGB")
    if plain.size != (side, side):
        plain = plain.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    Image.frombytes("RGB", plain.size, plain.tobytes()).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with results.atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _refuse(out: Path, existing: AnswerKey) -> UsageError:
    return UsageError(f"{out / FILE} is the key of another study ({existing.study}): give another folder with --out")
