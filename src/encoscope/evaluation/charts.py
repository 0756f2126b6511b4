"""Charts of results, drawn with matplotlib and handed on as pictures."""

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
    """A row of bars: its name, and a value for each series; None where there is none."""

    name: str
    values: Mapping[str, Interval | float | None]


def bars(
    rows: Sequence[BarRow], label: str, *, limits: tuple[float, float] | None = None, chance: float | None = None
) -> Image.Image:
    """Bars, a group for each row and a colour for each series, with their intervals.

    label: of the axis. limits: of the axis. chance: a value that is marked with a dashed line.
    """
    from matplotlib.figure import Figure

    series = list(dict.fromkeys(name for row in rows for name, value in row.values.items() if value is not None))
    colours = palette(max(1, len(series))) / 255
    figure = Figure(figsize=(9, 0.8 + len(rows) * (0.2 + 0.2 * max(1, len(series)))), dpi=110, layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(series))
    for number, (name, colour) in enumerate(zip(series, colours, strict=False)):
        there = [(place, row.values[name]) for place, row in enumerate(rows) if row.values.get(name) is not None]
        places = [place - 0.4 + (number + 0.5) * height for place, _ in there]
        values = [value.value if isinstance(value, Interval) else float(value or 0) for _, value in there]
        ends = [(value.low, value.high) if isinstance(value, Interval) else None for _, value in there]
        axes.barh(places, values, height, color=colour, label=name)
        for place, value, end in zip(places, values, ends, strict=True):
            if end is not None:
                axes.plot(end, (place, place), color="black", linewidth=1)
            furthest = value if end is None else max(value, end[1])
            where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.2f}", (furthest, place), fontsize=7, **where)
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
    return image_of(figure)


def image_of(figure: Figure) -> Image.Image:
    """A figure as a picture, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
