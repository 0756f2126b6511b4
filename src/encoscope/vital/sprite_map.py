"""Many units on one sheet, laid out so that those whose references are alike lie near each other."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from encoscope.errors import UsageError
from encoscope.vital.visualization import Visualization

_FEW = 5  # units: fewer are laid out by their order


def make_sprite_map(visualizations: Sequence[Visualization], *, cell: int = 96) -> Image.Image:
    """Draw visualizations on a square grid, units with alike references near each other.

    The layout is a t-SNE of the references' mean activations in the last layer that was matched (cosine distance, with
    a fixed seed), of which each point is assigned to a cell of the grid, all together as near as they can be.

    Args:
        visualizations: The visualizations, such as those of all channels of a layer.
        cell: The side of each in pixels.

    Returns:
        The sheet.

    Raises:
        UsageError: For no visualization, for visualizations without references, and for those of several layers.

    Source: after the activation atlases of Carter et al. 2019, for units in place of activations.
    """
    if not visualizations:
        raise UsageError("nothing to draw: no visualizations were given")
    cells = arrange_units(visualizations)
    side = ceil(sqrt(len(visualizations)))
    sheet = Image.new("RGB", (side * cell, ceil(len(visualizations) / side) * cell), "white")
    for visualization, (row, column) in zip(visualizations, cells.tolist(), strict=True):
        thumbnail = visualization.picture.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(thumbnail, (column * cell, row * cell))
    return sheet


def arrange_units(visualizations: Sequence[Visualization]) -> Int[np.ndarray, "units 2"]:
    """Find each unit's cell on a square grid.

    Args:
        visualizations: The visualizations.

    Returns:
        (row, column) of each; no cell twice. The grid is as narrow as a square allows, and filled row by row.

    Raises:
        UsageError: For visualizations without references, and for those of several layers.
    """
    count = len(visualizations)
    side = ceil(sqrt(count))
    cells = np.stack(np.divmod(np.arange(count), side), 1)
    if count < _FEW:
        return cells
    profiles = [each.profile for each in visualizations]
    known = [profile for profile in profiles if profile is not None]
    if len(known) < count:
        raise UsageError("a map is laid out by the references of its units: some have none (other methods than VITAL)")
    if len({len(profile) for profile in known}) > 1:
        raise UsageError("a map shows units that are matched on the same layers: these are of several")
    from scipy.optimize import linear_sum_assignment

    points = _embed(np.stack(known))
    spread = (points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12)
    centers = cells / max(1, side - 1)
    costs = np.square(spread[:, None] - centers[None]).sum(2)
    _, chosen = linear_sum_assignment(costs)
    return cells[chosen]


def _embed(profiles: Float[np.ndarray, "units channels"]) -> Float[np.ndarray, "units 2"]:
    """Points in the plane, near each other for alike profiles."""
    from sklearn.manifold import TSNE

    centered = profiles.astype(np.float64) - profiles.mean(0)
    perplexity = min(15.0, (len(centered) - 1) / 3)
    return TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=0).fit_transform(centered)
