"""The result of an evaluation: its table, and the same as a result document, files and a chart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, MissingError, UsageError, suggest_nearest
from encoscope.evaluation.charts import BarRow, plot_bars
from encoscope.evaluation.report import Report
from encoscope.images import SkippedImage
from encoscope.metrics import Interval
from encoscope.results import Document, ModelRecord, Result, record_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAMES = ("corloc", "overlap", "stability", "faithfulness")
"""The names of evaluations, which are those of their files."""


@dataclass(frozen=True)
class Evaluation(Result):
    """What ``corloc``, ``overlap``, ``stability`` and ``faithfulness`` give. ``print`` shows the table with its notes.

    Attributes:
        report: The table, with title and notes.
        entries: Its rows for the result document.
        model: The encoder, with NAVE's layers.
        settings: All that shaped the values.
    """

    report: Report
    entries: Sequence[Mapping[str, Any]]
    model: ModelRecord
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls, report: Report, entries: Sequence[Mapping[str, Any]], encoder: Encoder, settings: Mapping[str, Any]
    ) -> Evaluation:
        """Put a report together with the encoder that was evaluated.

        Args:
            report: The table.
            entries: Its rows for the result document.
            encoder: The encoder.
            settings: All that shaped the values.

        Returns:
            The result.
        """
        return cls(report, tuple(entries), record_model(encoder, settings["layers"]), dict(settings))

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The table's rows, in order; measures are ``Interval``s."""
        return self.report.rows

    def __str__(self) -> str:
        return self.report.to_text()

    def to_dict(self) -> Document:
        """Give the result document; "table" holds the rows as they are printed."""
        document = results.envelope(
            self.report.name,
            self.entries,
            model=self.model.as_dict(),
            settings=dict(self.settings) | {"notes": list(self.report.notes)},
            seed=self.report.seed,
            skipped=self.report.skipped,
        )
        return document | {"table": self.report.to_table()}

    def save(self, path: str | os.PathLike[str], command: str | None = None) -> Path:
        """Write NAME.json (the result document), NAME.csv and NAME.md into a folder; NAME is the evaluation's.

        Args:
            path: The folder; it is made if it is absent.
            command: The command that made it, for NAME.md.

        Returns:
            The folder.
        """
        folder = Path(path)
        self.report.save(folder, command)
        results.write(folder / f"{self.report.name}.json", self.to_dict())
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read back what ``save`` wrote.

        Args:
            path: The folder; where it holds several evaluations, the file NAME.json of one.

        Returns:
            The evaluation.

        Raises:
            MissingError: When there is none.
            EncoscopeError: When it is another kind of result, or a folder of several evaluations.
        """
        file = _find_document(Path(path))
        document = results.read(file, file.stem)
        if "table" not in document:
            raise EncoscopeError(f"{file} was not written by Evaluation.save: it has no table")
        settings = dict(document["settings"])
        report = Report.from_table(
            file.stem,
            document["table"],
            notes=settings.pop("notes"),
            random_state=document["seed"],
            skipped=[SkippedImage(item["path"], item["reason"]) for item in document["skipped"]],
        )
        return cls(report, tuple(document["results"]), ModelRecord.from_dict(document["model"]), settings)

    def plot(self, measure: str | None = None) -> Figure:
        """Plot a measure of every row as bars with their intervals.

        Args:
            measure: A column of intervals; by default the first.

        Returns:
            A matplotlib figure.

        Raises:
            UsageError: there is no such column.
        """
        names = list(
            dict.fromkeys(
                name
                for row in self.rows
                for name, value in row.items()
                if isinstance(value, Interval) and name != "difference"
            )
        )
        chosen = measure or next(iter(names), "")
        if chosen not in names:
            raise UsageError(f"no measure {chosen!r}{suggest_nearest(chosen, names)}: there are {', '.join(names)}")
        bars = []
        for row in self.rows:
            parts = [str(row[name]) for name in ("dataset", "method", "select") if name in row]
            parts += [] if row.get("clusters") is None else [f"K = {row['clusters']}"]
            bars.append(BarRow(", ".join(parts), {chosen: row[chosen]}))
        return plot_bars(bars, chosen)


def _find_document(path: Path) -> Path:
    """The document of an evaluation in a folder; a file is its own."""
    if not path.is_dir():
        return path
    files = [path / f"{name}.json" for name in NAMES if (path / f"{name}.json").is_file()]
    if not files:
        raise MissingError(f"no evaluation in {path}: there is none of {', '.join(f'{name}.json' for name in NAMES)}")
    if len(files) > 1:
        raise EncoscopeError(f"{path} holds several evaluations: give the file of one, such as {files[0]}")
    return files[0]
