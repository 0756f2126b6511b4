"""``encoscope reproduce``: the papers' tables and figures by name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from encoscope.cli.checks import check_run
from encoscope.cli.console import note, say
from encoscope.cli.flags import Common


def reproduce(
    name: Annotated[str, Parameter(help='The experiment, such as nave-fig6; "list" shows all.')],
    /,
    *,
    model: Annotated[
        list[str] | None,
        Parameter(help="The encoder, for experiments that leave it open, or NAME=MODEL for a row; may be repeated."),
    ] = None,
    dataset: Annotated[
        list[str] | None, Parameter(help="A folder, or a dataset such as coco:IMAGES#JSON; may be repeated.")
    ] = None,
    limit: Annotated[
        int | None, Parameter(help="Take only this many images, classes or units, the first ones.")
    ] = None,
    out: Annotated[Path, Parameter(help="Folder for the table and the figures.")] = Path("reproduced"),
    set_: Annotated[
        list[str] | None,
        Parameter(name="--set", help="A setting the paper leaves open, as NAME=VALUE; may be repeated."),
    ] = None,
    fresh: Annotated[bool, Parameter(help="Start over instead of resuming an interrupted run.")] = False,
    common: Common | None = None,
) -> int:
    """Run one of the papers' tables or figures on models and data at hand.

    NAME.json, NAME.csv, NAME.md and figures go into the output folder. Run again after an interruption, it resumes.
    """
    from encoscope.reproduce import EXPERIMENTS, run_experiment

    common = common or Common()
    if name == "list":
        width = max(map(len, EXPERIMENTS))
        for key, listed in EXPERIMENTS.items():
            say(f"{key.ljust(width)}  {listed.title}" + (f" (data: {listed.datasets})" if listed.datasets else ""))
        return 0

    check_run(common, out=out, limit=limit)

    from encoscope import results

    report = run_experiment(
        name,
        models=model or (),
        datasets=dataset or (),
        limit=limit,
        options=dict(_parse_setting(text) for text in set_ or ()),
        random_state=common.seed,
        load=common.loading(),
        fresh=fresh,
        progress=common.progress,
    )
    page = report.save(out, "encoscope " + shlex.join(sys.argv[1:]))
    if common.json:
        say(results.dumps(report.to_dict()))
    else:
        say(report.to_text())
        note(f"written: {page}")
    return 0


def _parse_setting(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, numbers as numbers."""
    from encoscope.errors import UsageError

    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--set takes NAME=VALUE, not {text!r}")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
