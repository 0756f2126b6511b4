"""The outline of what drives a unit: polygons around the high part of a map, smooth at any size."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from encoscope.atlas.records import Point

_CORNERS = 3


def outline(cam: Float[np.ndarray, "rows columns"], threshold: float = 0.6) -> tuple[tuple[Point, ...], ...]:
    """Closed polygons around the cells above ``threshold`` times the map's maximum, in shares of the picture.

    None for a map that is nowhere positive.
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
        assert isinstance(line, np.ndarray)
        if len(line) > _CORNERS:
            shares = np.clip(line / (columns, rows), 0, 1).round(3)
            polygons.append(tuple((float(across), float(down)) for across, down in shares))
    return tuple(polygons)
