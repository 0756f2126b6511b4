"""Connected components of a label map."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Integer
from scipy import ndimage

from encoscope.concise_repr import concise_repr
from encoscope.errors import UsageError
from encoscope.regions.boxes import InnerBox, OuterBox, compute_inner_box


@concise_repr
@dataclass(frozen=True, eq=False)
class Region:
    """A connected component (4-connectivity) of a cluster.

    Attributes:
        cluster: The cluster's label.
        area: Number of pixels.
        outer_box: The box of the region's extremes, ``[x0, y0, x1, y1]`` in pixels of the label map.
        inner_box: The box about the region's median (see ``compute_inner_box``).
        crop: True for the region's pixels within its outer box.
    """

    cluster: int
    area: int
    outer_box: OuterBox
    inner_box: InnerBox
    crop: Bool[np.ndarray, "rows columns"] = field(repr=False)

    def mask(self, shape: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        """Write the region as a mask of the whole label map.

        Args:
            shape: (height, width) of the label map.

        Returns:
            True for the region's pixels.
        """
        full = np.zeros(shape, dtype=bool)
        x0, y0, x1, y1 = self.outer_box
        full[y0 : y1 + 1, x0 : x1 + 1] = self.crop
        return full


def find_regions(labels: Integer[np.ndarray, "height width"], *, min_area: int = 0, border: int = 0) -> list[Region]:
    """Find the connected components (4-connectivity) of every cluster.

    Args:
        labels: A cluster for each pixel; negative labels are no cluster.
        min_area: Components of this many pixels or fewer are left out; the default keeps all. NAVE's evaluation uses
            784.
        border: Pixels this close to the image's border are removed from each component that is kept. The rest of a
            component stays one region, even in several pieces; a component without any pixel left is dropped. The
            default removes none; NAVE's evaluation uses 14.

    Returns:
        The regions by cluster, then by size, the largest first.

    Raises:
        UsageError: ``min_area`` or ``border`` is negative.

    Example:
        >>> [(region.cluster, region.area) for region in find_regions(np.array([[0, 0, 1], [1, 0, 1]]))]
        [(0, 3), (1, 2), (1, 1)]
    """
    if min_area < 0 or border < 0:
        raise UsageError(f"min_area and border are pixels, at least 0, not {min_area} and {border}")
    regions = []
    for cluster in np.unique(labels[labels >= 0]):
        components = np.zeros(labels.shape, dtype=np.int32)
        ndimage.label(labels == cluster, output=components)
        areas = np.bincount(components.ravel())
        if border:
            for edge in (components[:border], components[-border:], components[:, :border], components[:, -border:]):
                edge[...] = 0
        for number, window in enumerate(ndimage.find_objects(components), start=1):
            if window is not None and areas[number] > min_area:
                regions.append(_make_region(int(cluster), components[window] == number, window))
    regions.sort(key=lambda region: (region.cluster, -region.area, region.outer_box[1], region.outer_box[0]))
    return regions


def _make_region(cluster: int, crop: np.ndarray, window: tuple[slice, slice]) -> Region:
    top, left = window[0].start, window[1].start
    x0, y0, x1, y1 = compute_inner_box(crop)
    outer = (left, top, window[1].stop - 1, window[0].stop - 1)
    inner = (x0 + left, y0 + top, x1 + left, y1 + top)
    return Region(cluster, int(np.count_nonzero(crop)), outer, inner, crop)
