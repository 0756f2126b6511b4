"""Pictures of the audit's calibration: what it flags in each network, and its figures of all networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from encoscope.evaluation.charts import render_figure
from encoscope.plots import palette
from encoscope.reproduce.audit_calibration.metrics import LeftOut

_WIDE = 0.16  # of a strip: how far its dots are spread


def dimmed(
    picture: UInt8[np.ndarray, "height width 3"], inside: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture, dark outside of a region."""
    return np.where(inside[:, :, None], picture, picture // 4)


def strips(
    marked: Mapping[str, Float[np.ndarray, " pairs"]],
    unmarked: Mapping[str, Float[np.ndarray, " pairs"]],
    kinds: Sequence[str],
    judged: Mapping[str, LeftOut],
) -> Image.Image:
    """A panel a figure: a dot a network, and for each kind of mark the threshold that the other kinds gave it."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = tuple(dict.fromkeys(kinds))
    colours = dict(zip(names, palette(len(names)) / 255, strict=True))
    columns = min(4, len(judged))
    rows = -(-len(judged) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows + 0.5), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    spread = np.linspace(-_WIDE, _WIDE, len(kinds))
    for axes, (name, found) in zip(panels, judged.items(), strict=False):
        for place, values in enumerate((unmarked[name], marked[name])):
            axes.scatter(place + spread, values, c=[colours[kind] for kind in kinds], s=26, linewidths=0)
        for kind, threshold in zip(found.kinds, found.thresholds, strict=True):
            axes.axhline(threshold, color=colours[kind], linewidth=0.8, linestyle="--")
        axes.set_xlim(-0.5, 1.5)
        axes.set_xticks((0, 1), ("without", "with the mark"))
        axes.set_title(f"{name}\nAUC {found.auc.value:.2f} [{found.auc.low:.2f}, {found.auc.high:.2f}]", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[len(judged) :]:
        axes.set_axis_off()
    handles = [Line2D([], [], color=colours[name], marker="o", linestyle="none", label=name) for name in names]
    handles.append(Line2D([], [], color="grey", linestyle="--", label="the threshold from the other kinds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    return render_figure(figure)
