"""How long ``encoscope --help`` takes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.measure import interleaved


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    command = [sys.executable, "-c", "from encoscope.cli import main; main()", "--help"]
    seconds = interleaved({"help": lambda: subprocess.run(command, capture_output=True, check=True)}, 7)
    return [{"what": "encoscope --help, seconds", "ratio": seconds["help"], "target": "under 0.5", "seconds": seconds}]
