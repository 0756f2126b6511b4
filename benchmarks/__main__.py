"""Run the benchmarks, print their table, and keep it: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import machine

NAMES = ("grouping", "forward", "joint", "probing", "scan", "describe", "visualize", "references", "atlas", "start")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure what was asked for; figures of the others stay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all if left out")
    chosen = parser.parse_args().names or NAMES
    RESULTS.mkdir(exist_ok=True)
    for name in chosen:
        if name not in NAMES:
            parser.error(f"unknown benchmark {name!r}: {', '.join(NAMES)}")
        rows = importlib.import_module(f"benchmarks.{name}").run()
        for row in rows:
            sys.stdout.write(line(row) + "\n")
            sys.stdout.flush()
        document = {"command": f"make bench ARGS={name}", "machine": machine(), "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "README.md").write_text(table())


def line(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    details = {**row.get("seconds", {}), **row.get("megabytes", {})}
    unit = "MB" if "megabytes" in row else "s"
    shown = ", ".join(f"{name} {value:.4g} {unit}" for name, value in details.items())
    return f"{row['ratio']:8.3g}  {row['what']} ({row['target']})" + (f"; {shown}" if shown else "")


def table() -> str:
    """All kept figures as Markdown."""
    lines = [
        "# Benchmarks",
        "",
        "Ratios of medians, both sides measured in turn in one run. `make bench` makes this page.",
    ]
    for name in NAMES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        document = json.loads(file.read_text())
        on = document["machine"]
        lines += ["", f"## {name}: `{document['command']}`", ""]
        lines += [f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads, torch {on['torch']}", ""]
        lines += ["| measured | target | what | details |", "|---|---|---|---|"]
        for row in document["rows"]:
            details = {**row.get("seconds", {}), **row.get("megabytes", {})}
            unit = "MB" if "megabytes" in row else "s"
            shown = ", ".join(f"{key} {value:.4g} {unit}" for key, value in details.items())
            lines.append(f"| {row['ratio']:.3g} | {row['target']} | {row['what']} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
