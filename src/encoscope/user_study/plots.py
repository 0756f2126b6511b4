"""Figures of a study: how often each score was given, and where the similarities lie (figures 6 and 37 to 39)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.evaluation.charts import render_figure
from encoscope.user_study.answer_key import TITLES
from encoscope.user_study.responses import SCORES
from encoscope.user_study.scoring import QUANTILES, PartResult, StudyScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colors: TypeAlias = Mapping[str, tuple[float, ...]]

_GAP = 0.95  # between questions, in rows: room for the question's name
_ENDS = (0.08, 0.92)  # of the color map that scores take their colors from


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of a panel: its height, its method, and the method's numbers."""

    y: float
    method: str
    values: np.ndarray


def plot_scores(scores: StudyScores) -> dict[str, Image.Image]:
    """Draw the figures of a study.

    Args:
        scores: Its statistics.

    Returns:
        By file name: all parts beside each other, and each part question by question.

    Source: VITAL, figures 6 and 37 to 39.
    """
    palette = (plots.palette(len(scores.key.methods)) / 255).tolist()
    colors = {name: tuple(color) for name, color in zip(scores.key.methods, palette, strict=True)}
    figures = {"study-summary": _plot_summary(scores, colors)}
    for part in scores.parts:
        figures[f"study-questions-{part.part}"] = _plot_questions(part, colors)
    return figures


def _plot_summary(scores: StudyScores, colors: Colors) -> Image.Image:
    """Figure 6: a panel for each part, a bar or violin for each method."""
    from matplotlib.figure import Figure

    count = len(scores.parts)
    figure = Figure(figsize=(4.4 * count, 3.6), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, count))
    for axes, part in zip(panels, scores.parts, strict=True):
        rows = [_Row(float(index), method, part.pool(method)) for index, method in enumerate(part.values)]
        _draw_rows(axes, part, rows, colors)
        axes.set_title(TITLES[part.part], fontsize=11)
    figure.suptitle(f"{scores.participants} participant{'s' * (scores.participants != 1)}", fontsize=10)
    return render_figure(figure)


def _plot_questions(part: PartResult, colors: Colors) -> Image.Image:
    """Figures 37 to 39: a group for each question, a bar or violin for each method."""
    from matplotlib.figure import Figure

    rows: list[_Row] = []
    y = 0.0
    headings: list[tuple[float, str]] = []
    for column, question in enumerate(part.questions):
        headings.append((y, question.label))
        for method, table in part.values.items():
            values = table[:, column]
            rows.append(_Row(y, method, values[~np.isnan(values)]))
            y += 1
        y += _GAP
    figure = Figure(figsize=(8, 1.5 + 0.27 * y), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _draw_rows(axes, part, rows, colors)
    for top, text in headings:
        style = {"fontsize": 9, "fontweight": "bold", "va": "bottom"}
        axes.text(0.005, top - 0.45, text, transform=axes.get_yaxis_transform(), **style)
    axes.set_ylim(rows[-1].y + 0.6, -0.6 - _GAP)
    axes.set_title(TITLES[part.part], fontsize=11)
    return render_figure(figure)


def _draw_rows(axes: Axes, part: PartResult, rows: Sequence[_Row], colors: Colors) -> None:
    """Rows from above: stacked shares of scores, violins of similarities, or shares of right choices."""
    if part.part in ("words", "examples"):
        _draw_stacks(axes, rows)
    elif part.part == "describe":
        _draw_violins(axes, rows, colors)
    else:
        _draw_bars(axes, rows, colors)
    axes.set_yticks([row.y for row in rows], [row.method for row in rows], fontsize=9)
    axes.set_ylim(rows[-1].y + 0.6, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_stacks(axes: Axes, rows: Sequence[_Row]) -> None:
    from matplotlib import colormaps

    heights = [row.y for row in rows]
    left = np.zeros(len(rows))
    for score, color in zip(SCORES, colormaps["BrBG"](np.linspace(*_ENDS, len(SCORES))), strict=True):
        shares = np.array([(row.values == score).mean() if len(row.values) else 0 for row in rows])
        axes.barh(heights, shares, 0.8, left, color=color, label=str(score), edgecolor="0.65", linewidth=0.4)
        ink = "white" if score in (SCORES[0], SCORES[-1]) else "black"
        for y, start, share in zip(heights, left, shares, strict=True):
            if share >= 0.08:
                axes.text(start + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=7, color=ink)
        left += shares
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of answers")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if figure is not None and not figure.legends:
        style = {"ncols": 5, "fontsize": 8, "title_fontsize": 8, "frameon": False, "handlelength": 1}
        figure.legend(handles, labels, title="score", loc="outside lower center", **style)


def _draw_violins(axes: Axes, rows: Sequence[_Row], colors: Colors) -> None:
    """With the median as a dot, the 5 % and 95 % quantiles as the ends of a line; few answers are dots alone."""
    for row in rows:
        if not len(row.values):
            continue
        color = colors[row.method]
        if len(row.values) > 2 and np.ptp(row.values) > 1e-9:
            style = {"orientation": "horizontal", "widths": 0.85, "showextrema": False}
            shape: dict[str, Any] = axes.violinplot(row.values, [row.y], **style)
            for body in shape["bodies"]:
                body.set(facecolor=color, alpha=0.45)
        else:
            axes.plot(row.values, [row.y] * len(row.values), ".", color=color)
        low, high = np.quantile(row.values, QUANTILES)
        axes.plot([low, high], [row.y] * 2, color="0.2", linewidth=1.5, solid_capstyle="butt")
        axes.plot(np.median(row.values), row.y, "o", color="white", markeredgecolor="0.2", markersize=5)
    axes.set_xlabel("similarity to the hidden word\n(dot: median, line: 5 % to 95 %)")


def _draw_bars(axes: Axes, rows: Sequence[_Row], colors: Colors) -> None:
    shares = [float(row.values.mean()) if len(row.values) else 0.0 for row in rows]
    axes.barh([row.y for row in rows], shares, height=0.8, color=[colors[row.method] for row in rows])
    axes.axvline(0.5, color="0.3", linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("right choices (dotted: chance)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
