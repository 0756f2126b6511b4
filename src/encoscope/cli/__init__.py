"""The command line: one thin module a verb, loaded when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The ``encoscope`` command."""
    from encoscope.cli.app import run

    sys.exit(run(sys.argv[1:]))
