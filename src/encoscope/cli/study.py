"""``encoscope study``: ask people how well they understand visualizations of units, and evaluate their answers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Group, Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags, method_flags, read_changes
from encoscope.counting import count_noun
from encoscope.defaults import DEVICE, RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.user_study.settings import TEXT_ENCODER, StudySettings

app = App(name="study", help="Ask people how well they understand visualizations of units.", help_format="plaintext")

_questions = Group("Questions", sort_key=2)
_visualizations = Group("Visualizations", sort_key=3)

if TYPE_CHECKING:
    StudyFlags = MethodFlags
else:
    StudyFlags = method_flags(
        StudySettings,
        _questions,
        without=("preset",),
        groups=dict.fromkeys(("visualizations", "steps", "n_references", "n_candidates"), _visualizations),
    )


@app.command
def build(
    *,
    model: Annotated[str, Parameter(help='A classifier with class names, such as "timm:resnet50".')] = DEFAULT_MODEL,
    references: Annotated[str, Parameter(help="Real images with labels: caltech101:ROOT#train, or a folder.")],
    out: Annotated[Path, Parameter(help="Folder of the study.")],
    settings: StudyFlags | None = None,
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
    changes = read_changes(StudySettings, settings)
    check_run(common, out=out, sources=[references, changes.get("visualizations")])

    from encoscope import results
    from encoscope.user_study import build_study
    from encoscope.user_study.export import CODES, FOLDER

    key = build_study(
        common.defer(model),
        references,
        out,
        **changes,
        random_state=common.seed,
        fresh=fresh,
        progress=common.progress,
    )
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
    ] = TEXT_ENCODER,
    out: Annotated[
        Path | None, Parameter(help="Folder for tables and figures. Default: scores in the study's folder.")
    ] = None,
    device: Annotated[str, Parameter(help='"cpu", "cuda", ...; "auto" is a GPU if there is one.')] = DEVICE,
    seed: Annotated[int, Parameter(help="Seed of the bootstrap.")] = RANDOM_STATE,
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
    check_run(Common(seed=seed, device=device), out=folder, sources=[study, *answers])
    scores = score_study(study, answers, text_encoder=text_encoder, device=device, random_state=seed)
    scores.save(folder, "encoscope " + shlex.join(sys.argv[1:]))
    if json:
        say(results.dumps(scores.to_dict()))
    else:
        say("\n\n".join(report.to_text() for name, report in scores.tables.items() if name != "questions"))
        note(f"written: {folder} (single questions: study-questions.csv)")
    return 1 if scores.skipped else 0
