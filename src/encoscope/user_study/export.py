"""Write a study: a folder to hand out, in which nothing tells method or class, and beside it the key."""

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
from encoscope.user_study.answer_key import FILE, PARTS, Key, Part, Question, read_key
from encoscope.user_study.ordering import codes, shuffled, square

FOLDER = "questionnaire"
CODES = "participants.csv"
TITLE = "What do these pictures show?"
_PAGES = ("index.html", "study.css", "study.js")
_CROP = 192  # side of reference images, in pixels


@dataclass(frozen=True, eq=False)
class Material:
    """What a question is made of; see `Question`. choices: the image that matches, and one that does not."""

    part: Part
    unit: str
    word: str | None
    pictures: Mapping[str, Image.Image]
    examples: Sequence[Image.Image] = ()
    choices: Sequence[Image.Image] = ()


@dataclass(frozen=True)
class About:
    """What is told of a study besides its questions. participants: codes to hand out."""

    title: str = TITLE
    participants: int = 60
    seed: int = 0
    model: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_study(materials: Sequence[Material], methods: Sequence[str], out: Path, about: About | None = None) -> Key:
    """Write OUT/questionnaire (to hand out), OUT/key.json and OUT/participants.csv (to keep).

    materials: in any order; each part's questions are shuffled by the seed. methods: in the order of tables.

    Raises:
        UsageError: no question, a question whose part compares other methods, or a folder that holds another study.
    """
    about = about or About()
    if not materials:
        raise UsageError("a study needs at least one question")
    files: dict[str, bytes] = {}
    side = max(max(picture.size) for material in materials for picture in material.pictures.values())
    questions = [
        question
        for part in PARTS
        for question in _questions(part, [one for one in materials if one.part == part], methods, files, side, about)
    ]
    parts: list[Part] = [part for part in PARTS if any(question.part == part for question in questions)]
    shown = {"title": about.title, "parts": [_shown(part, questions) for part in parts]}
    study = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:12]
    made = Key(
        study,
        about.title,
        tuple(questions),
        tuple(methods),
        about.model,
        {**about.settings, "participants": about.participants},
        about.seed,
        about.notes,
    )
    check_free(out, methods, about)
    with suppress(MissingError):
        if (there := read_key(out)).study != study:  # other pictures, or other photos
            raise _other_study(out, there)
    handed = out / FOLDER
    for name in sorted(files):  # in the order of their names: the times of files tell nothing
        _write(handed / "pictures" / name, files[name])
    text = json.dumps({"study": study, **shown}, ensure_ascii=False, indent=1).replace("</", "<\\/")
    _write(handed / "questions.js", f"window.STUDY = {text};\n".encode())
    for name in _PAGES:
        _write(handed / name, resources.files("encoscope.user_study").joinpath("pages", name).read_bytes())
    made.write(out)
    _write(out / CODES, _participants(made, about).encode())
    return made


def subsets(key: Key) -> list[tuple[Part, int]]:
    """The parts of which a participant sees one picture a question, and how many subsets each has."""
    return [(part, len(key.methods_of(part))) for part in ("describe", "match") if key.of(part)]


def _questions(
    part: Part,
    materials: Sequence[Material],
    methods: Sequence[str],
    files: dict[str, bytes],
    side: int,
    about: About,
) -> list[Question]:
    """The questions of a part; their files are added to ``files``."""
    compared = {frozenset(material.pictures) for material in materials}
    if len(compared) > 1:
        raise UsageError(f"the questions of part {part!r} compare different methods: {sorted(map(sorted, compared))}")
    if not materials:
        return []
    columns = shuffled([name for name in methods if name in materials[0].pictures], f"{about.seed}/{part}/methods")
    order = shuffled(range(len(materials)), f"{about.seed}/{part}")
    found = []
    for number, (index, row) in enumerate(zip(order, square(len(order), columns), strict=True), 1):
        material = materials[index]

        def keep(image: Image.Image, width: int, role: str, unit: str = material.unit) -> str:
            data = _png(image, width)
            told = f"{about.seed}/{part}/{unit}/{role}/".encode()
            name = f"{hashlib.sha256(told + data).hexdigest()[:16]}.png"
            files[name] = data
            return name

        pictures = {method: keep(material.pictures[method], side, f"method {method}") for method in row}
        examples = tuple(keep(image, _CROP, f"example {place}") for place, image in enumerate(material.examples))
        choices = tuple(keep(image, _CROP, f"choice {place}") for place, image in enumerate(material.choices))
        name = f"{'abcd'[PARTS.index(part)]}{number:02d}"
        found.append(Question(name, part, material.unit, material.word, pictures, examples, choices))
    return found


def _shown(part: Part, questions: Sequence[Question]) -> dict[str, Any]:
    """A part as participants' files hold it: where all pictures are seen, in the order of their meaningless names."""
    shown = []
    for question in questions:
        if question.part != part:
            continue
        pictures = list(question.pictures.values())
        entry: dict[str, Any] = {"name": question.name}
        if part == "words":
            entry["word"] = question.word
        if part == "examples":
            entry["examples"] = list(question.examples)
        if part == "match":
            entry["choices"] = sorted(question.choices)
        entry["pictures"] = sorted(pictures) if part in ("words", "examples") else pictures
        shown.append(entry)
    return {"kind": part, "questions": shown}


def _participants(key: Key, about: About) -> str:
    """A table of codes, with the address of each and the subsets it leads to."""
    from encoscope.user_study.ordering import subset_of

    wanted = [(str(part), number) for part, number in subsets(key)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["code", "address", *(f"subset ({part})" for part, _ in wanted)])
    for code in codes(key.study, about.participants, wanted, about.seed):
        given = [subset_of(key.study, code, part, number) + 1 for part, number in wanted]
        writer.writerow([code, f"index.html#{code}", *given])
    return text.getvalue()


def _png(image: Image.Image, side: int) -> bytes:
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


def check_free(out: Path, methods: Sequence[str], about: About) -> None:
    """A key is never written over: without it the answers that were given to it would be lost.

    Raises UsageError for a folder that holds a study of other settings; before any picture is made.
    """
    try:
        there = read_key(out)
    except MissingError:
        return
    asked = json.loads(results.dumps({**about.settings, "participants": about.participants}))
    digests = [(model or {}).get("digest") for model in (there.model, about.model)]
    before = (there.settings, there.seed, list(there.methods), there.title, digests[0])
    if before != (asked, about.seed, list(methods), about.title, digests[1]):
        raise _other_study(out, there)


def _other_study(out: Path, there: Key) -> UsageError:
    return UsageError(f"{out / FILE} is the key of another study ({there.study}): give another folder with --out")
