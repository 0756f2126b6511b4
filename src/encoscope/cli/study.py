"""``encoscope study``: ask people how well they understand visualizations of units, and evaluate their answers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common, names
from encoscope.counting import count_noun
from encoscope.errors import UsageError

app = App(name="study", help="Ask people how well they understand visualizations of units.", help_format="plaintext")

_questions = Group("Questions", sort_key=2)
_visualizations = Group("Visualizations", sort_key=3)
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
        str,
        Parameter(group=_questions, help="Part 1, word given: the number of random classes, or names with commas."),
    ] = "10",
    channels: Annotated[
        str,
        Parameter(
            group=_questions,
            help="Part 2, images given: the number of random channels, or LAYER:CHANNEL,CHANNEL; 0 for none.",
        ),
    ] = "10",
    layer: Annotated[
        str | None, Parameter(group=_questions, help="Layer of the random channels. Default: the last hidden one.")
    ] = None,
    described: Annotated[
        str,
        Parameter(
            group=_questions, help="Part 3, described freely: the number of other random classes, or names with commas."
        ),
    ] = "9",
    matched: Annotated[
        int,
        Parameter(group=_questions, help="Part 4, one of two images chosen: the number of other random channels."),
    ] = 0,
    examples: Annotated[int, Parameter(group=_questions, help="Real images of a channel in part 2.")] = 9,
    title: Annotated[str | None, Parameter(group=_questions, help="Title of the questionnaire.")] = None,
    participants: Annotated[
        int, Parameter(group=_questions, help="Codes to hand out, spread evenly over the subsets.")
    ] = 60,
    visualizations: Annotated[
        Path | None,
        Parameter(
            group=_visualizations,
            help="Show the visualizations that visualize --out saved in FOLDER/METHOD, and make none.",
        ),
    ] = None,
    steps: Annotated[
        int | None, Parameter(group=_visualizations, help="Steps of each method. Default: its own number.")
    ] = None,
    n_references: Annotated[int, Parameter(group=_visualizations, help="References of a unit.")] = 50,
    candidates: Annotated[
        int | None,
        Parameter(
            group=_visualizations,
            help="Search top patches only in this many images of largest value. Default: in every image.",
        ),
    ] = None,
    fresh: Annotated[
        bool, Parameter(group=_visualizations, help="Start over instead of resuming a stopped run.")
    ] = False,
    common: Common | None = None,
) -> int:
    """Make the visualizations and write the questionnaire of VITAL's human study (section 4.3, appendix D).

    OUT/questionnaire is handed to participants: index.html opens from a file, shows everyone the questions and methods
    in an order of their own, and saves the answers as a file. OUT/key.json says what is what, OUT/participants.csv
    holds codes to invite with: keep both. An interrupted run resumes when the same command is given again.
    """
    common = common or Common()
    from encoscope import results
    from encoscope.user_study import StudySettings, SynthesisOptions, build_study
    from encoscope.user_study.export import CODES, FOLDER
    from encoscope.user_study.images import check_methods

    for name, value in {"steps": steps, "n-references": n_references, "candidates": candidates}.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} takes a number from 1 on, not {value}")
    selected = tuple(names(methods) or ())
    check_methods(selected)  # before anything is loaded
    settings = StudySettings(
        methods=selected,
        classes=_parse_classes(classes),
        channels=_parse_channels(channels),
        layer=layer,
        described=_parse_classes(described),
        matched=matched,
        examples=examples,
        visualizations=visualizations,
        participants=participants,
        title=title,
    )
    options = SynthesisOptions(
        steps=steps,
        n_references=n_references,
        n_candidates=candidates,
        random_state=common.seed,
        fresh=fresh,
        progress=common.progress,
    )
    check_run(common, out=out, sources=[references, visualizations])
    key = build_study(common.defer(model), references, out, settings, options)
    if common.json:
        say(results.dumps(key.to_dict()))
    else:
        counts = (f"{len(key.select_questions(part))} in part {index}" for index, part in enumerate(key.parts, 1))
        say(f"study {key.study}: {count_noun(len(key.questions), 'question')} ({', '.join(counts)})")
        say(f"hand out: {out / FOLDER} (open index.html); keep: {out / 'key.json'}, {out / CODES}")
    for line in key.notes:
        note(line)
    return 0


@app.command
def score(
    study: Annotated[Path, Parameter(help="Folder of the study, which holds key.json.")],
    /,
    *answers: Annotated[Path, Parameter(help="Files that participants saved, or folders of them.")],
    text_encoder: Annotated[
        str, Parameter(help="Compares descriptions with words, in place of the Universal Sentence Encoder.")
    ] = ENCODER,
    out: Annotated[
        Path | None, Parameter(help="Folder for tables and figures. Default: scores in the study's folder.")
    ] = None,
    device: Annotated[str, Parameter(help='"cpu", "cuda", ...; "auto" is a GPU if there is one.')] = "auto",
    seed: Annotated[int, Parameter(help="Seed of the bootstrap.")] = 0,
    json: Annotated[bool, Parameter(help="Print one JSON document on stdout, and nothing else.")] = False,
) -> int:
    """Evaluate participants' answers: scores, similarities of descriptions, differences between methods.

    Answers that are damaged, incomplete, of another study or a second time of the same participant are left out and
    named. Each table goes into the output folder as JSON, CSV and Markdown, with figures of the scores and of every
    question.
    """
    from encoscope import results
    from encoscope.user_study import score_study
    from encoscope.user_study.export import FOLDER

    if not answers:
        raise UsageError("give the files that participants saved, or their folder")
    folder = out or study / "scores"
    if folder.resolve() == (study / FOLDER).resolve():
        raise UsageError(f"{folder} is what participants get: give another folder with --out")
    scores = score_study(study, answers, text_encoder=text_encoder, device=device, random_state=seed)
    scores.save(folder, "encoscope " + shlex.join(sys.argv[1:]))
    if json:
        say(results.dumps(scores.to_dict()))
    else:
        say("\n\n".join(report.to_text() for name, report in scores.tables.items() if name != "questions"))
        note(f"written: {folder} (single questions: study-questions.csv)")
    return 1 if scores.skipped else 0


def _parse_classes(text: str) -> int | tuple[str, ...]:
    """A number, or names with commas between them."""
    return int(text) if text.isascii() and text.isdigit() else tuple(names(text) or ())


def _parse_channels(text: str) -> int | tuple[str, ...]:
    """A number, or the channels of a layer as units."""
    if text.isascii() and text.isdigit():
        return int(text)
    layer, colon, rest = text.partition(":")
    if not (layer and colon and rest):
        raise UsageError(f"--channels takes a number or LAYER:CHANNEL,CHANNEL, not {text!r}")
    return tuple(f"{layer}:{channel.strip()}" for channel in rest.split(","))
