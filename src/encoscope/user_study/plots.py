"""Figures of a study: how often each score was given, and where the similarities lie (figures 6 and 37 to 39)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.evaluation.charts import image_of
from encoscope.user_study.answer_key import TITLES
from encoscope.user_study.responses import SCORES
from encoscope.user_study.scoring import QUANTILES, MeasuredShare, Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colours: TypeAlias = Mapping[str, tuple[float, ...]]

_GAP = 0.95  # between questions, in rows: room for the question's name
_ENDS = (0.08, 0.92)  # of the colour map that scores take their colours from


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of a panel: where it is, whose it is, and its numbers."""

    place: float
    method: str
    values: np.ndarray


def figures(scored: Scored) -> dict[str, Image.Image]:
    """By file name: all parts beside each other, and each part question by question."""
    colours = plots.palette(len(scored.key.methods)) / 255
    of = {name: tuple(colour) for name, colour in zip(scored.key.methods, colours.tolist(), strict=True)}
    found = {"study-summary": _summary(scored, of)}
    for part in scored.parts:
        found[f"study-questions-{part.part}"] = _by_question(part, of)
    return found


def _summary(scored: Scored, colours: Colours) -> Image.Image:
    """Figure 6: a panel for each part, a bar or violin for each method."""
    from matplotlib.figure import Figure

    count = len(scored.parts)
    figure = Figure(figsize=(4.4 * count, 3.6), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, count))
    for axes, part in zip(panels, scored.parts, strict=True):
        rows = [_Row(float(place), name, part.pooled(name)) for place, name in enumerate(part.values)]
        _drawn(axes, part, rows, colours)
        axes.set_title(TITLES[part.part], fontsize=11)
    figure.suptitle(f"{scored.participants} participant{'s' * (scored.participants != 1)}", fontsize=10)
    return image_of(figure)


def _by_question(part: MeasuredShare, colours: Colours) -> Image.Image:
    """Figures 37 to 39: a group for each question, a bar or violin for each method."""
    from matplotlib.figure import Figure

    rows: list[_Row] = []
    place = 0.0
    heads: list[tuple[float, str]] = []
    for column, question in enumerate(part.questions):
        heads.append((place, question.label))
        for name, values in part.values.items():
            found = values[:, column]
            rows.append(_Row(place, name, found[~np.isnan(found)]))
            place += 1
        place += _GAP
    figure = Figure(figsize=(8, 1.5 + 0.27 * place), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _drawn(axes, part, rows, colours)
    for top, text in heads:
        told = {"fontsize": 9, "fontweight": "bold", "va": "bottom"}
        axes.text(0.005, top - 0.45, text, transform=axes.get_yaxis_transform(), **told)
    axes.set_ylim(rows[-1].place + 0.6, -0.6 - _GAP)
    axes.set_title(TITLES[part.part], fontsize=11)
    return image_of(figure)


def _drawn(axes: Axes, part: MeasuredShare, rows: Sequence[_Row], colours: Colours) -> None:
    """Rows from above: stacked shares of scores, violins of similarities, or shares of right choices."""
    if part.part in ("words", "examples"):
        _stacked(axes, rows)
    elif part.part == "describe":
        _violins(axes, rows, colours)
    else:
        _bars(axes, rows, colours)
    axes.set_yticks([row.place for row in rows], [row.method for row in rows], fontsize=9)
    axes.set_ylim(rows[-1].place + 0.6, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _stacked(axes: Axes, rows: Sequence[_Row]) -> None:
    from matplotlib import colormaps

    places = [row.place for row in rows]
    left = np.zeros(len(rows))
    for score, colour in zip(SCORES, colormaps["BrBG"](np.linspace(*_ENDS, len(SCORES))), strict=True):
        shares = np.array([(row.values == score).mean() if len(row.values) else 0 for row in rows])
        axes.barh(places, shares, 0.8, left, color=colour, label=str(score), edgecolor="0.65", linewidth=0.4)
        ink = "white" if score in (SCORES[0], SCORES[-1]) else "black"
        for place, start, share in zip(places, left, shares, strict=True):
            if share >= 0.08:
                axes.text(start + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=7, color=ink)
        left += shares
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of answers")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    handles, labels = axes.get_legend_handles_labels()
    under = axes.get_figure(root=True)
    if under is not None and not under.legends:
        how = {"ncols": 5, "fontsize": 8, "title_fontsize": 8, "frameon": False, "handlelength": 1}
        under.legend(handles, labels, title="score", loc="outside lower center", **how)


def _violins(axes: Axes, rows: Sequence[_Row], colours: Colours) -> None:
    """With the median as a dot, the 5 % and 95 % quantiles as the ends of a line; few answers are dots alone."""
    for row in rows:
        if not len(row.values):
            continue
        colour = colours[row.method]
        if len(row.values) > 2 and np.ptp(row.values) > 1e-9:
            how = {"orientation": "horizontal", "widths": 0.85, "showextrema": False}
            shape: dict[str, Any] = axes.violinplot(row.values, [row.place], **how)
            for body in shape["bodies"]:
                body.set(facecolor=colour, alpha=0.45)
        else:
            axes.plot(row.values, [row.place] * len(row.values), ".", color=colour)
        low, high = np.quantile(row.values, QUANTILES)
        axes.plot([low, high], [row.place] * 2, color="0.2", linewidth=1.5, solid_capstyle="butt")
        axes.plot(np.median(row.values), row.place, "o", color="white", markeredgecolor="0.2", markersize=5)
    axes.set_xlabel("similarity to the hidden word\n(dot: median, line: 5 % to 95 %)")


def _bars(axes: Axes, rows: Sequence[_Row], colours: Colours) -> None:
    shares = [float(row.values.mean()) if len(row.values) else 0.0 for row in rows]
    axes.barh([row.place for row in rows], shares, height=0.8, color=[colours[row.method] for row in rows])
    axes.axvline(0.5, color="0.3", linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("right choices (dotted: chance)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
