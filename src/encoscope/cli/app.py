"""The app: its commands, and how errors become a line on stderr and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError, MissingArgumentError

from encoscope._version import __version__
from encoscope.cli.console import note
from encoscope.errors import EncoscopeError

INTERRUPTED = 130
TRACEBACK = "ENCOSCOPE_TRACEBACK"

app = App(
    name="encoscope",
    version=__version__,
    help="An endoscope for vision encoders: what a frozen network treats alike, stands for and looks like.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(
    "encoscope.cli.segment:segment",
    name="segment",
    help="Segment images into the regions that an encoder treats alike (NAVE).",
)
app.command(
    "encoscope.cli.colors:colors",
    name="colors",
    help="Color images by what an encoder computes: alike features get a like color.",
)
app.command(
    "encoscope.cli.similar:similar",
    name="similar",
    help="Point at a place in an image: where an encoder sees its like, there and in others.",
)
app.command(
    "encoscope.cli.layers:layers",
    name="layers",
    help="List the layers of an encoder that have a spatial output.",
)
app.command(
    "encoscope.cli.classes:classes",
    name="classes",
    help="Show which class of a model each folder of images stands for.",
)
app.command(
    "encoscope.cli.compare:compare",
    name="compare",
    help="Show how two encoders differ on the same images.",
)
app.command(
    "encoscope.cli.audit:audit",
    name="audit",
    help="See whether an encoder relies on a shortcut cue, or on where images come from.",
)
app.command(
    "encoscope.cli.reproduce:reproduce",
    name="reproduce",
    help="Run one of the papers' tables or figures.",
)
app.command(
    "encoscope.cli.evaluate:app",
    name="evaluate",
    help="See how good segmentations are, beside baselines and controls.",
)
app.command(
    "encoscope.cli.probe:probe",
    name="probe",
    help="Run a dataset through a model once and keep the activations of a layer.",
)
app.command(
    "encoscope.cli.captions:captions",
    name="captions",
    help="Embed captions to describe features with, or use LAION's.",
)
app.command(
    "encoscope.cli.concepts:concepts",
    name="concepts",
    help="Find the concepts that a network composes a class of, and show each (CRAFT).",
)
app.command(
    "encoscope.cli.describe:describe",
    name="describe",
    help="Say in words what features stand for (FALCON).",
)
app.command(
    "encoscope.cli.groups:groups",
    name="groups",
    help="Find features that are highly activated together.",
)
app.command(
    "encoscope.cli.explain_failure:explain_failure",
    name="explain-failure",
    help="Say in words which features drove a prediction.",
)
app.command(
    "encoscope.cli.visualize:visualize",
    name="visualize",
    help="Show what units of an encoder respond to (VITAL).",
)
app.command(
    "encoscope.cli.circuit:circuit",
    name="circuit",
    help="Show the channels that a class rests on.",
)
app.command(
    "encoscope.cli.atlas:app",
    name="atlas",
    help="Build and serve pages on an encoder's features.",
)
app.command(
    "encoscope.cli.study:app",
    name="study",
    help="Ask people how well they understand visualizations of units.",
)
app.command(
    "encoscope.cli.zoo:app",
    name="zoo",
    help="List the trained networks that ship with encoscope.",
)
app.command(
    "encoscope.cli.completion:install_completion",
    name="--install-completion",
    help="Let your shell complete commands and flags.",
)


def run(tokens: Sequence[str]) -> int:
    """Run a command line.

    0 done, 1 failed or some inputs skipped, 2 wrong usage, 3 missing data or weights, 130 interrupted. A failure is one
    line on stderr; with the environment variable ENCOSCOPE_TRACEBACK set, it is raised instead.

    Args:
        tokens: The command line without the program's name.

    Returns:
        The exit code.
    """
    _route_messages()
    try:
        code = app(list(tokens), result_action="return_value", exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code or 0
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _report_error(error)
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED


def _report_error(error: Exception) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # closed by its reader, or on a full disk: Python would fail again on the rest when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
        return 1
    if isinstance(error, CycloptsError):
        command = " ".join(["encoscope", *(error.command_chain or ())])
        argument = error.argument if isinstance(error, MissingArgumentError) else None
        if argument is not None and not argument.tokens:
            note(f"error: {argument.name} is missing: {argument.parameter.help} (see: {command} --help)")
            return 2
        note(f"error: {_one_line(error)} (see: {command} --help)")
        return 2
    if isinstance(error, EncoscopeError):
        note(f"error: {_one_line(error)}")
        return error.exit_code
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        note(f"error: {path}{error.strerror or _one_line(error)}")
        return 1
    note(f"error: {type(error).__name__}: {_one_line(error)} (set {TRACEBACK}=1 to see where)")
    return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _route_messages() -> None:
    """Send our log messages to stderr in one form, and show other libraries' warnings only where Python is told to."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logger = logging.getLogger("encoscope")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
        logger.setLevel(logging.INFO)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())
