"""``encoscope study``: ask people how well they understand pictures of units, and evaluate what they answer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names
from encoscope.errors import UsageError

app = App(name="study", help="Ask people how well they understand pictures of units.", help_format="plaintext")

_asked = Group("Questions", sort_key=2)
_picture = Group("Pictures", sort_key=3)
ENCODER = "zoo:clip-caltech101"


@app.command
def build(
    *,
    model: Annotated[str, Parameter(help='A classifier with class names, such as "zoo:resnet-caltech101".')],
    references: Annotated[str, Parameter(help="Real images with labels: caltech101:ROOT#train, or a folder.")],
    out: Annotated[Path, Parameter(help="Folder of the study.")],
    methods: Annotated[
        str, Parameter(help="With commas, two or more of vital, fourier, maco, deepinversion, plugin.")
    ] = "vital,deepinversion,maco",
    classes: Annotated[
        str, Parameter(group=_asked, help="Part 1, word given: so many classes at random, or names with commas.")
    ] = "10",
    channels: Annotated[
        str,
        Parameter(
            group=_asked, help="Part 2, images given: so many channels at random, or LAYER:CHANNEL,CHANNEL; 0: none."
        ),
    ] = "10",
    layer: Annotated[str | None, Parameter(group=_asked, help="Of the channels. Default: the last hidden one.")] = None,
    described: Annotated[
        str, Parameter(group=_asked, help="Part 3, described freely: so many other classes, or names with commas.")
    ] = "9",
    matched: Annotated[
        int, Parameter(group=_asked, help="Part 4, one of two images chosen: so many other channels.")
    ] = 0,
    examples: Annotated[int, Parameter(group=_asked, help="Real images of a channel in part 2.")] = 9,
    title: Annotated[str | None, Parameter(group=_asked, help="What the questionnaire is called.")] = None,
    participants: Annotated[int, Parameter(group=_asked, help="Codes to hand out, spread over the subsets.")] = 60,
    pictures: Annotated[
        Path | None,
        Parameter(
            group=_picture, help="Take pictures from FOLDER/METHOD, each made by visualize --out, and make none."
        ),
    ] = None,
    steps: Annotated[
        int | None, Parameter(group=_picture, help="Of each method's optimisation. Default: its own.")
    ] = None,
    number: Annotated[int, Parameter(group=_picture, help="References of a unit.")] = 50,
    candidates: Annotated[
        int | None,
        Parameter(
            group=_picture,
            help="Search top patches only in so many images of largest value. Default: in every image.",
        ),
    ] = None,
    fresh: Annotated[bool, Parameter(group=_picture, help="Do not go on with pictures of a stopped run.")] = False,
    common: Common | None = None,
) -> int:
    """Make the pictures and write the questionnaire of VITAL's human study (section 4.3, appendix D).

    OUT/questionnaire is handed to participants: index.html opens from a file, shows everyone the questions and methods
    in an order of their own, and saves the answers as a file. OUT/key.json says what is what, OUT/participants.csv
    holds codes to invite with: keep both. An interrupted run goes on when the same command is given again.
    """
    common = common or Common()
    from encoscope import results
    from encoscope.user_study import StudySettings
    from encoscope.user_study import build as run
    from encoscope.user_study.export import CODES, FOLDER, TITLE
    from encoscope.user_study.images import check_methods
    from encoscope.user_study.sampling import Making

    for name, value in {"steps": steps, "number": number, "candidates": candidates}.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} takes a number from 1 on, not {value}")
    chosen = tuple(names(methods) or ())
    check_methods(chosen)  # before anything is loaded
    asked = StudySettings(
        methods=chosen,
        classes=_count_or_names(classes),
        channels=_channels(channels),
        layer=layer,
        described=_count_or_names(described),
        matched=matched,
        examples=examples,
        pictures=pictures,
        participants=participants,
        title=title or TITLE,
    )
    making = Making(steps=steps, number=number, candidates=candidates, seed=common.seed, fresh=fresh)
    key = run(common.load(model), references, asked, out, making)
    if common.json:
        say(results.dumps(key.document()))
    else:
        counts = ", ".join(f"{len(key.of(part))} in part {number}" for number, part in enumerate(key.parts, 1))
        say(f"study {key.study}: {len(key.questions)} questions ({counts})")
        say(f"hand out: {out / FOLDER} (open index.html); keep: {out / 'key.json'}, {out / CODES}")
    for line in key.notes:
        note(line)
    return 0


@app.command
def score(
    study: Annotated[Path, Parameter(help="Folder of the study, where key.json is.")],
    /,
    *answers: Annotated[Path, Parameter(help="Files that participants saved, or folders of them.")],
    text_encoder: Annotated[
        str, Parameter(help="Compares descriptions with words, in place of the Universal Sentence Encoder.")
    ] = ENCODER,
    out: Annotated[
        Path | None, Parameter(help="Folder for tables and figures. Default: scores in the study's.")
    ] = None,
    device: Annotated[str, Parameter(help='"cpu", "cuda", ...; "auto" is a GPU if there is one.')] = "auto",
    seed: Annotated[int, Parameter(help="Of the bootstrap.")] = 0,
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False,
) -> int:
    """Evaluate what participants answered: scores, similarities of descriptions, differences between methods.

    Answers that are damaged, incomplete, of another study or given twice are left out and named. Each table goes into
    the output folder as JSON, CSV and Markdown, with figures of the scores and of every question.
    """
    from encoscope import results, vlm
    from encoscope.user_study import read_answers, read_key
    from encoscope.user_study import score as run
    from encoscope.user_study.export import FOLDER

    if not answers:
        raise UsageError("give the files that participants saved, or their folder")
    key = read_key(study)
    found, skipped = read_answers(key, answers)
    for item in skipped:
        note(f"skipped: {item.path}: {item.reason}")
    model = vlm.load(text_encoder, device=device) if found and key.of("describe") else None
    scored = run(
        key,
        found,
        None if model is None else model.embed_texts,
        encoder=None if model is None else model.source,
        skipped=skipped,
        seed=seed,
    )
    from encoscope.user_study.plots import figures

    folder = out or study / "scores"
    if folder.resolve() == (study / FOLDER).resolve():
        raise UsageError(f"{folder} is what participants get: give another folder with --out")
    command = "encoscope " + shlex.join(sys.argv[1:])
    pictures = figures(scored)
    for report in scored.tables.values():
        report.write(folder, command)
    for name, picture in pictures.items():
        with results.atomic_write(folder / f"{name}.png") as temporary:
            picture.save(temporary)
    if json:
        say(results.dumps(scored.document()))
    else:
        say("\n\n".join(report.text() for name, report in scored.tables.items() if name != "questions"))
        note(f"written: {folder} (single questions: study-questions.csv)")
    return 1 if skipped else 0


def _count_or_names(text: str) -> int | tuple[str, ...]:
    """A number, or names with commas between them."""
    return int(text) if text.isascii() and text.isdigit() else tuple(names(text) or ())


def _channels(text: str) -> int | tuple[str, ...]:
    """A number, or the channels of a layer as units."""
    if text.isascii() and text.isdigit():
        return int(text)
    layer, colon, rest = text.partition(":")
    if not (layer and colon and rest):
        raise UsageError(f"--channels takes a number or LAYER:CHANNEL,CHANNEL, not {text!r}")
    return tuple(f"{layer}:{part.strip()}" for part in rest.split(","))
