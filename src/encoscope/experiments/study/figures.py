"""Figures of a study: how often each score was given, and where the similarities lie (figures 6 and 37 to 39)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.experiments.study.answers import SCORES
from encoscope.experiments.study.key import TITLES
from encoscope.experiments.study.scoring import QUANTILES, Measured, Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDS = (0.08, 0.92)  # of the colour map that scores take their colours from


def figures(scored: Scored) -> dict[str, Image.Image]:
    """By file name: all parts beside each other, and each part question by question."""
    found = {"study-summary": _summary(scored)}
    for part in scored.parts:
        found[f"study-questions-{part.part}"] = _by_question(part)
    return found


def _summary(scored: Scored) -> Image.Image:
    """Figure 6: a panel for each part, a bar or violin for each method."""
    from matplotlib.figure import Figure

    count = len(scored.parts)
    figure = Figure(figsize=(4.4 * count, 3.6), dpi=130, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, count))
    for axes, part in zip(panels, scored.parts, strict=True):
        names = list(part.values)
        _drawn(axes, part, [part.pooled(name) for name in names], names, names)
        axes.set_title(TITLES[part.part], fontsize=11)
    figure.suptitle(f"{scored.participants} participants", fontsize=10)
    return _image(figure)


def _by_question(part: Measured) -> Image.Image:
    """Figures 37 to 39: a group for each question, a bar or violin for each method."""
    from matplotlib.figure import Figure

    names = list(part.values)
    rows = len(part.questions) * len(names)
    figure = Figure(figsize=(8, 1.4 + 0.27 * rows + 0.12 * len(part.questions)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    groups, methods, labels = [], [], []
    for column, question in enumerate(part.questions):
        for place, name in enumerate(names):
            values = part.values[name][:, column]
            groups.append(values[~np.isnan(values)])
            methods.append(name)
            labels.append(f"{question.label}   {name}" if place == 0 else name)
    _drawn(axes, part, groups, methods, labels, every=len(names))
    axes.set_title(TITLES[part.part], fontsize=11)
    return _image(figure)


def _drawn(
    axes: Axes, part: Measured, groups: list[np.ndarray], methods: list[str], labels: list[str], every: int = 0
) -> None:
    """Rows from above: stacked shares of scores, violins of similarities, or shares of right choices."""
    gap = 0.45
    places = [row + gap * (row // every) if every else float(row) for row in range(len(groups))]
    if part.part in ("words", "examples"):
        _stacked(axes, places, groups)
    elif part.part == "describe":
        _violins(axes, places, groups, methods, list(part.values))
    else:
        _bars(axes, places, groups, methods, list(part.values))
    axes.set_yticks(places, labels, fontsize=9)
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _stacked(axes: Axes, places: list[float], groups: list[np.ndarray]) -> None:
    from matplotlib import colormaps

    colours = colormaps["BrBG"](np.linspace(*_ENDS, len(SCORES)))
    left = np.zeros(len(groups))
    for score, colour in zip(SCORES, colours, strict=True):
        shares = np.array([(group == score).mean() if len(group) else 0 for group in groups])
        axes.barh(places, shares, left=left, height=0.8, color=colour, label=str(score))
        dark = score in (SCORES[0], SCORES[-1])
        for place, start, share in zip(places, left, shares, strict=True):
            if share >= 0.08:
                text = f"{share:.0%}"
                axes.text(
                    start + share / 2, place, text, ha="center", va="center", fontsize=7, color="w" if dark else "k"
                )
        left += shares
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of answers")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(
        title="score",
        ncols=5,
        fontsize=8,
        title_fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16 if len(places) < 8 else -0.4 / (0.27 * len(places))),
        handlelength=1,
        columnspacing=1,
    )


def _violins(axes: Axes, places: list[float], groups: list[np.ndarray], methods: list[str], order: list[str]) -> None:
    """With the median as a dot, the 5 % and 95 % quantiles as the ends of a line; few answers are dots alone."""
    colours = plots.palette(len(order)) / 255
    for place, group, method in zip(places, groups, methods, strict=True):
        colour = colours[order.index(method)]
        if not len(group):
            continue
        if len(group) > 2 and np.ptp(group) > 1e-9:
            shape: dict[str, Any] = axes.violinplot(
                group, [place], orientation="horizontal", widths=0.85, showextrema=False
            )
            for body in shape["bodies"]:
                body.set(facecolor=colour, alpha=0.45)
        else:
            axes.plot(group, [place] * len(group), ".", color=colour)
        low, high = np.quantile(group, QUANTILES)
        axes.plot([low, high], [place, place], color="0.2", linewidth=1.5, solid_capstyle="butt")
        axes.plot(np.median(group), place, "o", color="white", markeredgecolor="0.2", markersize=5)
    axes.set_xlabel("similarity to the hidden word")


def _bars(axes: Axes, places: list[float], groups: list[np.ndarray], methods: list[str], order: list[str]) -> None:
    colours = plots.palette(len(order)) / 255
    shares = [float(group.mean()) if len(group) else 0.0 for group in groups]
    axes.barh(places, shares, height=0.8, color=[colours[order.index(method)] for method in methods])
    axes.axvline(0.5, color="0.3", linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("right choices (dotted: chance)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _image(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
