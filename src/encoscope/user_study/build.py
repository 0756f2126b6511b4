"""Build a study from a network and photos: what is asked for, what is drawn, whose pictures are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import list_images
from encoscope.units import parse_unit
from encoscope.user_study.answer_key import Key, Part
from encoscope.user_study.export import TITLE, About, Material, check_free, write_study
from encoscope.user_study.images import CLASSES_ONLY, check_methods, make_pictures, opened, read_pictures
from encoscope.user_study.sampling import (
    Making,
    choices_of,
    crop,
    draw_channels,
    draw_classes,
    gather,
    patches_of,
    word_of,
)
from encoscope.vital.references.references import References

Pictures = Mapping[str, Mapping[str, Image.Image]]


@dataclass(frozen=True)
class StudySettings:
    """What a study is to ask (the paper's numbers).

    methods: two or more of vital, fourier, maco, deepinversion, plugin; the last two are asked about classes only.
    classes, described: of parts 1 and 3, so many at random or names; no word is asked about twice.
    channels, layer: of part 2, so many at random of a layer, the last hidden one if left out; examples: its crops.
    matched: channels of part 4 (appendix D, the study of two images to choose from); 0 leaves it out.
    pictures: a folder with METHOD/result.json of each method, instead of making pictures. participants: codes.
    """

    methods: tuple[str, ...] = ("vital", "deepinversion", "maco")
    classes: int | tuple[str, ...] = 10
    channels: int | tuple[str, ...] = 10
    layer: str | None = None
    described: int | tuple[str, ...] = 9
    matched: int = 0
    examples: int = 9
    pictures: Path | None = None
    participants: int = 60
    title: str = TITLE


@dataclass(frozen=True)
class _Drawn:
    """The units of each part."""

    words: list[str]
    examples: list[str]
    describe: list[str]
    match: list[str]

    @property
    def inside(self) -> list[str]:
        return [*self.examples, *self.match]


def build(encoder: Encoder, source: Any, asked: StudySettings, out: Path, making: Making | None = None) -> Key:
    """Draw the questions, make the pictures and write the study; see ``write_study`` for what is in the folder.

    source: photos with labels, as ``encoscope.probing.listing`` takes them: references of all methods, and examples.

    Raises:
        UsageError: what does not go together, or more than there is. MissingError: pictures that are not there.
    """
    making = making or Making()
    check_methods(asked.methods)
    counts = {"classes": asked.classes, "channels": asked.channels, "described": asked.described}
    counts |= {"matched": asked.matched, "participants": asked.participants}
    wrong = next((name for name, count in counts.items() if isinstance(count, int) and count < 0), None)
    if wrong is not None or asked.examples < 1:
        raise UsageError(f"--{wrong or 'examples'} takes a number, not {counts.get(wrong or '', asked.examples)}")
    inner = [method for method in asked.methods if method not in CLASSES_ONLY]
    if len(inner) < 2 and (asked.channels or asked.matched):
        raise UsageError(
            f"of {', '.join(asked.methods)}, {'only ' + inner[0] if inner else 'none'} pictures channels: "
            "name another of vital, fourier, maco, or leave channels out with --channels 0"
        )
    about = _about(encoder, asked, making)
    check_free(out, asked.methods, about)
    files = list_images(source)
    made = None if asked.pictures is None else read_pictures(encoder, asked.pictures, asked.methods)
    drawn = _draw(encoder, files.labels, asked, making.seed, made, inner)
    references = gather(encoder, files, _needed(drawn, asked, made is None), making)
    shown = _pictures(encoder, asked, drawn, inner, references, made, making, files)
    chosen = choices_of(encoder, drawn.match, references, making) if drawn.match else {}

    def material(part: Part, unit: str, methods: Sequence[str], **more: Any) -> Material:
        found = parse_unit(unit, encoder)
        word = word_of((encoder.classes or ())[found.index]) if found.kind == "class" else None
        return Material(part, unit, word, {method: shown[method][unit] for method in methods}, **more)

    materials = [material("words", unit, asked.methods) for unit in drawn.words]
    for unit in drawn.examples:
        crops = [crop(patch) for patch in patches_of(references[unit])[: min(asked.examples, making.number)]]
        materials.append(material("examples", unit, inner, examples=crops))
    materials += [material("describe", unit, asked.methods) for unit in drawn.describe]
    for unit in drawn.match:
        materials.append(material("match", unit, inner, choices=[crop(patch) for patch in chosen[unit]]))
    return write_study(materials, asked.methods, out, replace(about, notes=_notes(drawn, references, made, making)))


def _about(encoder: Encoder, asked: StudySettings, making: Making) -> About:
    """What the key records of how the study was asked for; where pictures came from is no part of it."""
    settings = {
        name: value for name, value in asdict(asked).items() if name not in ("title", "methods", "participants")
    }
    settings["pictures"] = "made before" if asked.pictures else "made"
    settings |= {"steps": making.steps, "number": making.number, "candidates": making.candidates}
    model = {"source": encoder.source, "digest": encoder.digest, "layers": [asked.layer] if asked.layer else []}
    return About(asked.title, asked.participants, making.seed, model, settings)


def _draw(
    encoder: Encoder,
    labels: Sequence[str | None],
    asked: StudySettings,
    seed: int,
    made: Mapping[str, Mapping[str, Path]] | None,
    inner: Sequence[str],
) -> _Drawn:
    """The units of each part; where pictures were given, of those that every method has."""
    common = None if made is None else set.intersection(*(set(made[method]) for method in asked.methods))
    within = None if made is None or not inner else set.intersection(*(set(made[method]) for method in inner))
    words = draw_classes(encoder, labels, asked.classes, (), seed, among=common)
    describe = draw_classes(encoder, labels, asked.described, words, seed, among=common)
    examples = draw_channels(encoder, asked.layer, asked.channels, (), seed, among=within)
    match = draw_channels(encoder, asked.layer, asked.matched, examples, seed, among=within)
    return _Drawn(words, examples, describe, match)


def _needed(drawn: _Drawn, asked: StudySettings, making: bool) -> list[str]:
    """The units whose references are needed: those of examples always, the others where VITAL is to picture them."""
    classes = [*drawn.words, *drawn.describe] if making and "vital" in asked.methods else []
    return [*classes, *drawn.inside]


def _pictures(
    encoder: Encoder,
    asked: StudySettings,
    drawn: _Drawn,
    inner: Sequence[str],
    references: Mapping[str, References],
    made: Mapping[str, Mapping[str, Path]] | None,
    making: Making,
    files: Any,
) -> Pictures:
    """Each method's pictures of the units it is asked about."""
    found: dict[str, dict[str, Image.Image]] = {}
    for method in asked.methods:
        units = [*drawn.words, *drawn.describe, *(drawn.inside if method in inner else ())]
        if made is not None:
            found[method] = opened(made[method], units, method)
        else:
            found[method] = make_pictures(encoder, method, units, references, files, making)
    return found


def _notes(drawn: _Drawn, references: Mapping[str, References], made: Any, making: Making) -> tuple[str, ...]:
    """What whoever reads the results has to know of how the study was made."""
    notes = [f"{unit}: {note}" for unit, one in references.items() if unit not in drawn.inside for note in one.notes]
    weak = [unit for unit in drawn.inside if max(patch.score for patch in patches_of(references[unit])) <= 0]
    notes += [f"{unit} answers to no image: its pictures and images mean nothing" for unit in weak]
    few = [unit for unit in drawn.match if len(patches_of(references[unit])) <= making.number]
    notes += [f"{unit}: the image to choose is among its references, since there are no more" for unit in few]
    if made is not None:
        notes.append("The pictures were made before, with settings of their own")
    return tuple(notes)
