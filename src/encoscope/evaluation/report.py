"""What an experiment is requested to do, and its result: a table with notes and figures, written in several forms."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from encoscope import results
from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.progress import Progress


@dataclass(frozen=True)
class EvaluationRequest:
    """What a user requests of an experiment.

    Attributes:
        models: As on the command line; empty to leave the choice to the experiment.
        datasets: As on the command line; empty to leave the choice to the experiment.
        limit: At most so many images (or units) of each dataset.
        seed: Of everything random.
        load: Keyword arguments for ``encoscope.load``.
        options: The experiment's own settings, by name.
        fresh: Start over instead of resuming an interrupted run.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
    """

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = RANDOM_STATE
    load: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    progress: Progress = None

    def settings(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Put the options in place of an experiment's defaults.

        Args:
            defaults: All settings that the experiment has, with their defaults.

        Returns:
            All settings by name.

        Raises:
            UsageError: an option that is none of them, with the nearest name; text in a number's place.
        """
        wrong = next((name for name in self.options if name not in defaults), None)
        if wrong is not None:
            known = f"there are {', '.join(defaults)}" if defaults else "this experiment has none"
            raise UsageError(f"no setting {wrong!r}{suggest_nearest(wrong, defaults)}: {known}")
        for name, value in self.options.items():
            kind = type(defaults[name])
            if kind in (int, float) and not isinstance(value, int if kind is int else int | float):
                raise UsageError(f"{name} is a {'whole ' if kind is int else ''}number, not {value!r}")
        return {**defaults, **self.options}


@dataclass(frozen=True)
class Report:
    """The table of a finished experiment.

    Attributes:
        name: Of the experiment, and of the files.
        title: Of the table.
        rows: One mapping a row, with the same keys, in the order of the columns; values are text, numbers, intervals or
            None.
        notes: What a reader must know to read the table rightly (stand-ins, settings that a paper leaves open).
        figures: By file name without suffix.
        settings: All that shaped the numbers.
        seed: Of everything random.
        skipped: Images that were left out.
        further: Other tables, by name, below the first.
    """

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    figures: Mapping[str, Image.Image] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = RANDOM_STATE
    skipped: Sequence[SkippedImage] = ()
    further: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Write the table in columns for a terminal, title above and notes below."""
        lines = [self.title, "", *_aligned(_cells(self.rows))]
        for name, rows in self.further.items():
            lines += ["", name, "", *_aligned(_cells(rows))]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def to_markdown(self, command: str | None = None) -> str:
        """Write the table in Markdown.

        Args:
            command: The command that made it, to be named below the title.

        Returns:
            The page.
        """
        origin = [f"Made by `{command}`.", ""] if command else []
        lines = [f"# {self.title}", "", *origin, *_piped(_cells(self.rows)), ""]
        for name, rows in self.further.items():
            lines += [f"## {name[:1].upper()}{name[1:]}", "", *_piped(_cells(rows)), ""]
        return "\n".join([*lines, *(f"- {note}" for note in self.notes), ""])

    def to_dict(self) -> results.Document:
        """Give the result document: an entry a row; an interval is ``{"value", "low", "high", "level"}``."""
        rows, *others = (
            [{key: _plain(value) for key, value in row.items()} for row in table]
            for table in (self.rows, *self.further.values())
        )
        settings = {**self.settings, "experiment": self.name, "notes": list(self.notes)}
        document = results.envelope(
            "results", rows, model=None, settings=settings, seed=self.seed, skipped=self.skipped
        )
        return document | {"further": dict(zip(self.further, others, strict=True))} if others else document

    def to_table(self) -> dict[str, Any]:
        """Give title, rows and what shaped them as plain values; ``from_table`` reads them."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.rows]
        return {"title": self.title, "rows": rows, "settings": dict(self.settings)}

    @classmethod
    def from_table(
        cls,
        name: str,
        table: Mapping[str, Any],
        *,
        notes: Sequence[str] = (),
        random_state: int = RANDOM_STATE,
        skipped: Sequence[SkippedImage] = (),
    ) -> Report:
        """Make a report of what ``to_table`` gave.

        Args:
            name: The experiment's name.
            table: Title, rows and settings.
            notes: What a reader must know.
            random_state: Of everything random.
            skipped: Images that were left out.

        Returns:
            The report, without figures.
        """
        rows = [{key: _read_value(value) for key, value in row.items()} for row in table["rows"]]
        return cls(name, table["title"], rows, notes, {}, table["settings"], random_state, skipped)

    def save(self, folder: str | os.PathLike[str], command: str | None = None) -> Path:
        """Write NAME.json, NAME.csv, NAME-TABLE.csv of further tables, the figures, and NAME.md.

        Args:
            folder: Where; it is made if it is absent.
            command: The command that made it, for NAME.md.

        Returns:
            The path of NAME.md.
        """
        folder = Path(folder)
        results.write(folder / f"{self.name}.json", self.to_dict())
        for more, rows in {"": self.rows, **{f"-{name}": rows for name, rows in self.further.items()}}.items():
            with (
                results.atomic_write(folder / f"{self.name}{more}.csv") as temporary,
                temporary.open("w", newline="") as file,
            ):
                writer = csv.writer(file)
                columns = _columns(rows)
                writer.writerow([name for key, interval in columns for name in _headings(key, interval)])
                for row in rows:
                    writer.writerow([value for key, interval in columns for value in _values(row.get(key), interval)])
        page = folder / f"{self.name}.md"
        with results.atomic_write(page) as temporary:
            temporary.write_text(self.to_markdown(command), encoding="utf-8")
        for name, figure in self.figures.items():
            with results.atomic_write(folder / f"{name}.jpg") as temporary:
                figure.convert("RGB").save(temporary, quality=88, optimize=True)
        return page


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """Each column's name, and whether it holds intervals."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    return [(name, any(isinstance(row.get(name), Interval) for row in rows)) for name in names]


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    names = [name for name, _ in _columns(rows)] or ["(nothing)"]
    return [names, *([_shown(row.get(name)) for name in names] for row in rows)]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _piped(cells: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [["" if cell == "-" else cell.replace("|", "\\|") for cell in row] for row in cells]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Interval) else value


def _read_value(value: Any) -> Any:
    return Interval.from_dict(value) if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value) else value


def _headings(key: str, interval: bool) -> list[str]:
    return [key, f"{key} low", f"{key} high"] if interval else [key]


def _values(value: Any, interval: bool) -> list[Any]:
    if isinstance(value, Interval):
        return [value.value, value.low, value.high]
    return ["" if value is None else value, *([""] * 2 if interval else [])]
