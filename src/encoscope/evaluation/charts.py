"""Charts of results, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from encoscope.metrics import Interval
from encoscope.plots import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class BarRow:
    """A row of bars.

    Attributes:
        name: What stands beside it.
        values: A value for each series, by the series' name; None where there is none.
    """

    name: str
    values: Mapping[str, Interval | float | None]


def plot_bars(
    rows: Sequence[BarRow], label: str, *, limits: tuple[float, float] | None = None, chance: float | None = None
) -> Figure:
    """Plot bars, a group for each row and a color for each series, with their intervals.

    Args:
        rows: The groups, from top to bottom.
        label: Of the axis.
        limits: Of the axis; by default those of the values.
        chance: A value that is marked with a dashed line.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    series = list(dict.fromkeys(name for row in rows for name, value in row.values.items() if value is not None))
    colors = palette(max(1, len(series))) / 255
    figure = Figure(figsize=(9, 0.8 + len(rows) * (0.2 + 0.2 * max(1, len(series)))), dpi=110, layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(series))
    for number, (name, color) in enumerate(zip(series, colors, strict=False)):
        present = [(index, row.values[name]) for index, row in enumerate(rows) if row.values.get(name) is not None]
        heights = [index - 0.4 + (number + 0.5) * height for index, _ in present]
        values = [value.value if isinstance(value, Interval) else float(value or 0) for _, value in present]
        ends = [(value.low, value.high) if isinstance(value, Interval) else None for _, value in present]
        axes.barh(heights, values, height, color=color, label=name)
        for y, value, end in zip(heights, values, ends, strict=True):
            if end is not None:
                axes.plot(end, (y, y), color="black", linewidth=1)
            furthest = value if end is None else max(value, end[1])
            where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.2f}", (furthest, y), fontsize=7, **where)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=9)
    if limits is not None:
        axes.set_xlim(*limits)
    if chance is not None:
        axes.axvline(chance, color="grey", linewidth=1, linestyle="--")
    if len(series) > 1:
        figure.legend(loc="outside upper right", ncols=len(series), fontsize=8, frameon=False)
    return figure


def draw_bars(
    rows: Sequence[BarRow], label: str, *, limits: tuple[float, float] | None = None, chance: float | None = None
) -> Image.Image:
    """Draw the figure of ``plot_bars``.

    Args:
        rows: The groups, from top to bottom.
        label: Of the axis.
        limits: Of the axis; by default those of the values.
        chance: A value that is marked with a dashed line.

    Returns:
        The figure as a picture.
    """
    return render_figure(plot_bars(rows, label, limits=limits, chance=chance))


def render_figure(figure: Figure) -> Image.Image:
    """Draw a figure without a window.

    Args:
        figure: A matplotlib figure.

    Returns:
        The figure as a picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
