"""The result of a discovery method on one image, also as candidates for CorLoc."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from encoscope.concise_repr import concise_repr
from encoscope.metrics import Candidates
from encoscope.regions import Region, compute_inner_box, compute_outer_box


@concise_repr
@dataclass(frozen=True, eq=False)
class DiscoveredObjects:
    """The objects or segments that a method found in one image.

    Attributes:
        regions: The objects; a region's mask is a crop of the image, and its box has inclusive extremes.
        boxes: ``[x0, y0, x1, y1]`` of each object as the method defines it: boxes of patches (LOST and others) end at
            the outer edge of the last patch, as in their code; boxes of segments end at their last pixel, as NAVE's
            outer box.
        height: The image's height in pixels.
        width: The image's width in pixels.
    """

    regions: tuple[Region, ...]
    boxes: Float[np.ndarray, "objects 4"]
    height: int
    width: int

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.regions)

    @property
    def masks(self) -> Bool[np.ndarray, "objects height width"]:
        """The mask of each object, computed on each access: for many segments of a large image they are large."""
        shape = (self.height, self.width)
        masks = [region.mask(shape) for region in self.regions]
        return np.stack(masks) if masks else np.zeros((0, *shape), dtype=bool)

    @property
    def candidates(self) -> Candidates:
        """Boxes, inner boxes, areas and contact with the border, for the metrics of localization."""
        return make_candidates(self.regions, (self.height, self.width), self.boxes)


def objects_from_labels(labels: Integer[np.ndarray, "height width"]) -> DiscoveredObjects:
    """Turn a map of labels into objects.

    Args:
        labels: The label of each pixel.

    Returns:
        One object for each label, whether its pixels are connected or not: Felzenszwalb's segments may be connected
        over corners only.
    """
    _, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + 1
    regions = []
    for number, crop in enumerate(ndimage.find_objects(dense), start=1):
        if crop is not None:  # the numbers have no gaps, so none is
            regions.append(_make_region(number - 1, dense[crop] == number, crop[0].start, crop[1].start))
    return _make_objects(regions, labels.shape, None)


def objects_from_masks(
    masks: Sequence[Bool[np.ndarray, "height width"]],
    boxes: Sequence[Sequence[float]],
    shape: tuple[int, int],
) -> DiscoveredObjects:
    """Turn masks into objects.

    Args:
        masks: One mask for each object, connected or not. Empty masks are left out with their boxes.
        boxes: ``[x0, y0, x1, y1]`` of each object.
        shape: (height, width) of the image.

    Returns:
        The objects.
    """
    kept = [(mask, box) for mask, box in zip(masks, boxes, strict=True) if mask.any()]
    regions = []
    for number, (mask, _) in enumerate(kept):
        x0, y0, x1, y1 = compute_outer_box(mask)
        regions.append(_make_region(number, mask[y0 : y1 + 1, x0 : x1 + 1].copy(), y0, x0))
    return _make_objects(regions, shape, [box for _, box in kept])


def make_candidates(
    regions: Sequence[Region], shape: tuple[int, int], boxes: Float[np.ndarray, "regions 4"] | None = None
) -> Candidates:
    """Make candidates for the metrics of localization from regions.

    Args:
        regions: The regions.
        shape: (height, width) of the image.
        boxes: ``[x0, y0, x1, y1]`` of each region; None takes the regions' outer boxes.

    Returns:
        Boxes, inner boxes, areas and contact with the border.
    """
    return Candidates(
        outer=_to_array(region.outer_box for region in regions) if boxes is None else boxes,
        inner=_to_array(region.inner_box for region in regions),
        area=np.array([region.area for region in regions], dtype=np.int64),
        contact=np.array([_count_contact(region, shape) for region in regions], dtype=np.int64),
    )


def _make_region(number: int, crop: Bool[np.ndarray, "rows columns"], top: int, left: int) -> Region:
    """The region of a mask, from the mask's smallest crop and the position of that crop."""
    x0, y0, x1, y1 = compute_inner_box(crop)
    outer = (left, top, left + crop.shape[1] - 1, top + crop.shape[0] - 1)
    return Region(number, int(crop.sum()), outer, (x0 + left, y0 + top, x1 + left, y1 + top), crop)


def _make_objects(
    regions: Sequence[Region], shape: tuple[int, ...], boxes: Sequence[Sequence[float]] | None
) -> DiscoveredObjects:
    outer = _to_array((region.outer_box for region in regions) if boxes is None else boxes)
    return DiscoveredObjects(tuple(regions), outer, shape[0], shape[1])


def _count_contact(region: Region, shape: tuple[int, int]) -> int:
    """Pixels of a region on the image's border."""
    height, width = shape
    x0, y0, x1, y1 = region.outer_box
    border = np.zeros(region.crop.shape, dtype=bool)
    border[0] |= y0 == 0
    border[-1] |= y1 == height - 1
    border[:, 0] |= x0 == 0
    border[:, -1] |= x1 == width - 1
    return int((region.crop & border).sum())


def _to_array(boxes: Iterable[Sequence[float]]) -> Float[np.ndarray, "boxes 4"]:
    return np.array([tuple(box) for box in boxes], dtype=np.float64).reshape(-1, 4)
