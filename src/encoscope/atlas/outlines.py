"""The outline of what drives a unit: polygons around the high values of a map, smooth at any size."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from encoscope.atlas.records import Point

_CORNERS = 3


def trace_outline(cam: Float[np.ndarray, "rows columns"], threshold: float = 0.6) -> tuple[tuple[Point, ...], ...]:
    """Closed polygons around the cells that are above a share of the map's maximum.

    Args:
        cam: A map on a grid over the picture.
        threshold: Share of the map's maximum, 0 to 1; the default is that of FALCON's crops.

    Returns:
        The polygons, in shares of the picture; none for a map that is nowhere positive.
    """
    top = float(cam.max(initial=0))
    if not top > 0:
        return ()
    from contourpy import contour_generator

    rows, columns = cam.shape
    # a rim of zeros closes lines that would run into the border; values stand at the cells' centres
    values = np.pad(np.asarray(cam, dtype=np.float64) / top, 1)
    x, y = (np.arange(-1, cells + 1) + 0.5 for cells in (columns, rows))
    polygons = []
    for line in contour_generator(x, y, values).lines(threshold):
        corners = np.asarray(line, dtype=np.float64).reshape(-1, 2)
        if len(corners) > _CORNERS:
            shares = np.clip(corners / (columns, rows), 0, 1).round(3)
            polygons.append(tuple((float(across), float(down)) for across, down in shares))
    return tuple(polygons)
