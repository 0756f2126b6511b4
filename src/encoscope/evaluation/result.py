"""The result of an evaluation: its table, and the same as a result document, files and a chart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoscope import results
from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.charts import BarRow, plot_bars
from encoscope.evaluation.report import Report
from encoscope.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Evaluation:
    """What ``corloc``, ``overlap``, ``stability`` and ``faithfulness`` give. ``print`` shows the table with its notes.

    Attributes:
        report: The table, with title and notes.
        entries: Its rows for the result document.
        model: The encoder's source and digest.
        settings: All that shaped the values.
    """

    report: Report
    entries: Sequence[Mapping[str, Any]]
    model: Mapping[str, Any]
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
        return cls(report, tuple(entries), {"source": encoder.source, "digest": encoder.digest}, dict(settings))

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The table's rows, in order; measures are ``Interval``s."""
        return self.report.rows

    def __str__(self) -> str:
        return self.report.to_text()

    def to_dict(self) -> results.Document:
        """Give the result document."""
        return results.envelope(
            self.report.name,
            self.entries,
            model=self.model,
            settings=dict(self.settings) | {"notes": list(self.report.notes)},
            seed=self.report.seed,
            skipped=self.report.skipped,
        )

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
