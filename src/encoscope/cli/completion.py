"""``encoscope --install-completion``: let a shell complete commands and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from encoscope.cli.console import note, say
from encoscope.errors import UsageError


def install_completion(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell"] | None, Parameter(help="Default: the shell this is run from.")
    ] = None,
    output: Annotated[
        Path | None, Parameter(help="File to write, and leave the shell's startup file as it is.")
    ] = None,
) -> int:
    """Write the script by which a shell completes the commands and flags of encoscope.

    It goes where the shell looks for it, and a line that loads it goes into the shell's startup file (fish needs none).
    Install again after an update of encoscope.
    """
    from cyclopts.completion.detect import ShellDetectionError

    from encoscope.cli.app import app

    try:
        path = app.install_completion(shell=shell, output=output, add_to_startup=output is None)
    except ShellDetectionError as error:
        raise UsageError("which shell this is could not be told: give --shell bash, zsh, fish or powershell") from error
    say(str(path))
    note("open a new shell to use it" if output is None else "load this file from the startup file of your shell")
    return 0
