"""Build a study from a network and images: draw its questions, make or read the visualizations, write the folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import explain_calls
from encoscope.images import ImageListing, list_images
from encoscope.progress import Progress
from encoscope.results import record_model
from encoscope.units import parse_unit
from encoscope.user_study.answer_key import AnswerKey, StudyPart
from encoscope.user_study.export import TITLE, QuestionContent, StudyInfo, check_overwrite, write_study
from encoscope.user_study.images import (
    find_saved_images,
    open_images,
    synthesize_images,
)
from encoscope.user_study.sampling import (
    crop_patch,
    describe_class,
    draw_channels,
    draw_choices,
    draw_classes,
    gather_references,
    rank_patches,
)
from encoscope.user_study.settings import StudySettings
from encoscope.vital.references.references import References

Visualizations = Mapping[str, Mapping[str, Image.Image]]
"""By method and unit."""
SavedFiles = Mapping[str, Mapping[str, Path]]
"""Files of saved visualizations, by method and unit."""


@dataclass(frozen=True)
class _DrawnUnits:
    """The units of each part."""

    words: list[str]
    examples: list[str]
    describe: list[str]
    match: list[str]

    @property
    def classes(self) -> list[str]:
        return [*self.words, *self.describe]

    @property
    def channels(self) -> list[str]:
        return [*self.examples, *self.match]


@explain_calls
def build_study(
    encoder: Encoder | nn.Module | str,
    references: Any,
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] | None = None,
    classes: int | Sequence[str] | None = None,
    channels: int | Sequence[str] | None = None,
    layer: str | None = None,
    described: int | Sequence[str] | None = None,
    matched: int | None = None,
    examples: int | None = None,
    title: str | None = None,
    participants: int | None = None,
    visualizations: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    n_references: int | None = None,
    n_candidates: int | None = None,
    random_state: int = StudySettings.random_state,
    fresh: bool = False,
    progress: Progress = None,
) -> AnswerKey:
    """Draw the questions, make the visualizations and write the study, as `write_study` describes it.

    `StudySettings` says what each setting means and what its default is; the defaults are the paper's numbers.

    Args:
        encoder: A classifier with class names: an encoder, a module or a source string.
        references: Labelled images, as ``encoscope.images.list_images`` takes them, for references and examples.
        out: The study's folder.
        methods: Two or more of vital, fourier, maco, deepinversion, plugin; the last two are asked about classes only.
        classes: The classes of part 1: how many at random, or their names.
        channels: The channels of part 2: how many at random, or their units.
        layer: The layer of channels drawn at random.
        described: The classes of part 3, as for part 1.
        matched: The number of channels of part 4; 0 leaves it out.
        examples: The number of crops of real images beside each question of part 2.
        title: The questionnaire's title.
        participants: The number of codes to hand out.
        visualizations: A folder with METHOD/result.json of each method, to show these and make none.
        steps: Steps of each method.
        n_references: References of a unit.
        n_candidates: Images of largest value in which top patches are searched.
        random_state: The seed of the study and of its visualizations.
        fresh: Whether visualizations of a stopped run are made again.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The answer key.

    Raises:
        UsageError: If settings do not go together, or ask for more classes or channels than there are.
        MissingError: If saved visualizations are requested that are not there.

    Source: VITAL, section 4.3 and appendix D.
    """
    settings = StudySettings.from_preset(
        methods=methods,
        classes=classes,
        channels=channels,
        layer=layer,
        described=described,
        matched=matched,
        examples=examples,
        title=title,
        participants=participants,
        visualizations=None if visualizations is None else os.fspath(visualizations),
        steps=steps,
        n_references=n_references,
        n_candidates=n_candidates,
        random_state=random_state,
    )
    encoder, out = as_encoder(encoder), Path(out)
    info = _describe_study(encoder, settings)
    check_overwrite(out, settings.methods, info)
    listing = list_images(references)
    folder = settings.visualizations
    saved = None if folder is None else find_saved_images(encoder, Path(folder), settings.methods)
    drawn = _draw_units(encoder, listing.labels, settings, saved)
    gathered = gather_references(encoder, listing, _need_references(drawn, settings), settings, progress=progress)
    shown = _collect_visualizations(encoder, settings, drawn, gathered, saved, listing, fresh, progress)
    choices = draw_choices(encoder, drawn.match, gathered, settings) if drawn.match else {}

    def make_content(part: StudyPart, text: str, methods: Sequence[str], **images: Any) -> QuestionContent:
        unit = parse_unit(text, encoder)
        word = describe_class((encoder.classes or ())[unit.index]) if unit.kind == "class" else None
        return QuestionContent(part, text, word, {method: shown[method][text] for method in methods}, **images)

    contents = [make_content("words", unit, settings.methods) for unit in drawn.words]
    for unit in drawn.examples:
        patches = rank_patches(gathered[unit])[: min(settings.examples, settings.n_references)]
        crops = [crop_patch(patch) for patch in patches]
        contents.append(make_content("examples", unit, settings.channel_methods, examples=crops))
    contents += [make_content("describe", unit, settings.methods) for unit in drawn.describe]
    for unit in drawn.match:
        crops = [crop_patch(patch) for patch in choices[unit]]
        contents.append(make_content("match", unit, settings.channel_methods, choices=crops))
    notes = _write_notes(drawn, gathered, settings, is_saved=saved is not None)
    return write_study(contents, settings.methods, out, replace(info, notes=notes))


def _describe_study(encoder: Encoder, settings: StudySettings) -> StudyInfo:
    """What the answer key records of the request."""
    model = record_model(encoder, [settings.layer] if settings.layer else []).as_dict()
    return StudyInfo(settings.title or TITLE, settings.participants, settings.random_state, model, settings.as_dict())


def _draw_units(
    encoder: Encoder,
    labels: Sequence[str | None],
    settings: StudySettings,
    saved: SavedFiles | None,
) -> _DrawnUnits:
    """The units of each part; where visualizations are saved, of those that every method has."""

    def list_common(methods: Sequence[str]) -> set[str] | None:
        return set.intersection(*(set(saved[method]) for method in methods)) if saved is not None and methods else None

    random_state = settings.random_state
    everywhere, inside = list_common(settings.methods), list_common(settings.channel_methods)
    words = draw_classes(encoder, labels, settings.classes, (), random_state, among=everywhere)
    describe = draw_classes(encoder, labels, settings.described, words, random_state, among=everywhere)
    examples = draw_channels(encoder, settings.layer, settings.channels, (), random_state, among=inside)
    match = draw_channels(encoder, settings.layer, settings.matched, examples, random_state, among=inside)
    return _DrawnUnits(words, examples, describe, match)


def _need_references(drawn: _DrawnUnits, settings: StudySettings) -> list[str]:
    """The units whose references are needed: channels, for their crops; classes where VITAL is to visualize them."""
    is_needed = settings.visualizations is None and "vital" in settings.methods
    return [*(drawn.classes if is_needed else ()), *drawn.channels]


def _collect_visualizations(
    encoder: Encoder,
    settings: StudySettings,
    drawn: _DrawnUnits,
    references: Mapping[str, References],
    saved: SavedFiles | None,
    listing: ImageListing,
    fresh: bool,
    progress: Progress,
) -> Visualizations:
    """Each method's visualizations of the units that it is asked about."""
    collected: dict[str, dict[str, Image.Image]] = {}
    for method in settings.methods:
        units = [*drawn.classes, *(drawn.channels if method in settings.channel_methods else ())]
        if saved is not None:
            collected[method] = open_images(saved[method], units, method)
        else:
            collected[method] = synthesize_images(
                encoder, method, units, references, listing, settings, fresh=fresh, progress=progress
            )
    return collected


def _write_notes(
    drawn: _DrawnUnits, references: Mapping[str, References], settings: StudySettings, *, is_saved: bool
) -> tuple[str, ...]:
    """What a reader of the results has to know of how the study was made."""
    notes = [
        f"{unit}: {note}" for unit, items in references.items() if unit not in drawn.channels for note in items.notes
    ]
    inactive = [unit for unit in drawn.channels if max(patch.score for patch in rank_patches(references[unit])) <= 0]
    notes += [f"{unit} is activated by no image: its visualizations and images mean nothing" for unit in inactive]
    few = [unit for unit in drawn.match if len(rank_patches(references[unit])) <= settings.n_references]
    notes += [f"{unit}: the image to choose is among its references, since there are no more" for unit in few]
    if is_saved:
        notes.append("The visualizations were saved before, with settings of their own")
    return tuple(notes)
