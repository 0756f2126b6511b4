"""What a command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys


def note(message: str) -> None:
    """Write one line on stderr, above a progress bar if there is one.

    Args:
        message: The line, without the program's name.
    """
    line = f"encoscope: {message}"
    bars = sys.modules.get("tqdm")
    if bars is not None:
        bars.tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(line + "\n")


def say(text: str) -> None:
    """Write results on stdout. File names that are no valid text come out as the bytes they are.

    Args:
        text: One line or several; the last may lack its end.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
