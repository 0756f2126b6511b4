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


def dim_outside(
    image: UInt8[np.ndarray, "height width 3"], inside: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Darken an image outside of a region.

    Args:
        image: the image, values from 0 to 255.
        inside: the region.

    Returns:
        The darkened image.
    """
    return np.where(inside[:, :, None], image, image // 4)


def draw_strips(
    with_cue: Mapping[str, Float[np.ndarray, " pairs"]],
    without: Mapping[str, Float[np.ndarray, " pairs"]],
    kinds: Sequence[str],
    judged: Mapping[str, LeftOut],
) -> Image.Image:
    """Draw a panel for each figure: a dot for each network, and each kind's threshold from the other kinds.

    Args:
        with_cue: by figure, the values of the networks with a cue.
        without: by figure, the values of the networks without.
        kinds: kind of cue of each pair.
        judged: by figure, how it told networks apart.

    Returns:
        The chart.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = tuple(dict.fromkeys(kinds))
    colors = dict(zip(names, palette(len(names)) / 255, strict=True))
    columns = min(4, len(judged))
    rows = -(-len(judged) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows + 0.5), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    spread = np.linspace(-_WIDE, _WIDE, len(kinds))
    for axes, (name, result) in zip(panels, judged.items(), strict=False):
        for position, values in enumerate((without[name], with_cue[name])):
            axes.scatter(position + spread, values, c=[colors[kind] for kind in kinds], s=26, linewidths=0)
        for kind, threshold in zip(result.kinds, result.thresholds, strict=True):
            axes.axhline(threshold, color=colors[kind], linewidth=0.8, linestyle="--")
        axes.set_xlim(-0.5, 1.5)
        axes.set_xticks((0, 1), ("without", "with the mark"))
        axes.set_title(f"{name}\nAUC {result.auc.value:.2f} [{result.auc.low:.2f}, {result.auc.high:.2f}]", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in panels[len(judged) :]:
        axes.set_axis_off()
    handles = [Line2D([], [], color=colors[name], marker="o", linestyle="none", label=name) for name in names]
    handles.append(Line2D([], [], color="grey", linestyle="--", label="the threshold from the other kinds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    return render_figure(figure)
