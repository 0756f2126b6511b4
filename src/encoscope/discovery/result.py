"""What a discovery method finds in one photo, and as candidates for CorLoc."""

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
    """The objects or segments found in a photo of ``height`` x ``width`` pixels.

    regions: with masks as crops, and boxes of inclusive extremes. boxes: ``[x0, y0, x1, y1]``, as the method defines
    them: those of patches (LOST and the like) end at the outer edge of the last patch, as their code does; those of
    segments at their last pixel, as NAVE's outer box.
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
        """A mask an object, made when asked for: many segments of a large photo take much memory."""
        shape = (self.height, self.width)
        masks = [region.mask(shape) for region in self.regions]
        return np.stack(masks) if masks else np.zeros((0, *shape), dtype=bool)

    @property
    def candidates(self) -> Candidates:
        """Boxes, inner boxes, areas and contact with the border, for ``metrics.localize``."""
        return make_candidates(self.regions, (self.height, self.width), self.boxes)


def objects_from_labels(labels: Integer[np.ndarray, "height width"]) -> DiscoveredObjects:
    """One object a label, as the method made it: Felzenszwalb's segments hang together over corners, too."""
    _, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + 1
    found = []
    for number, place in enumerate(ndimage.find_objects(dense), start=1):
        assert place is not None  # numbers without gaps
        found.append(_region(number - 1, dense[place] == number, place[0].start, place[1].start))
    return _discovery(found, labels.shape, None)


def objects_from_masks(
    masks: Sequence[Bool[np.ndarray, "height width"]],
    boxes: Sequence[Sequence[float]],
    shape: tuple[int, int],
) -> DiscoveredObjects:
    """One object a mask, whether it is in one piece or not; masks without a pixel are left out with their boxes."""
    kept = [(mask, box) for mask, box in zip(masks, boxes, strict=True) if mask.any()]
    found = []
    for number, (mask, _) in enumerate(kept):
        x0, y0, x1, y1 = compute_outer_box(mask)
        found.append(_region(number, mask[y0 : y1 + 1, x0 : x1 + 1].copy(), y0, x0))
    return _discovery(found, shape, [box for _, box in kept])


def make_candidates(
    found: Sequence[Region], shape: tuple[int, int], boxes: Float[np.ndarray, "regions 4"] | None = None
) -> Candidates:
    """Regions of an image of this (height, width) for ``metrics.localize``; boxes stand for the outer ones if given."""
    return Candidates(
        outer=_array(region.outer_box for region in found) if boxes is None else boxes,
        inner=_array(region.inner_box for region in found),
        area=np.array([region.area for region in found], dtype=np.int64),
        contact=np.array([_contact(region, shape) for region in found], dtype=np.int64),
    )


def _region(number: int, crop: Bool[np.ndarray, "rows columns"], top: int, left: int) -> Region:
    """A mask given by its smallest crop and where that lies."""
    x0, y0, x1, y1 = compute_inner_box(crop)
    outer = (left, top, left + crop.shape[1] - 1, top + crop.shape[0] - 1)
    return Region(number, int(crop.sum()), outer, (x0 + left, y0 + top, x1 + left, y1 + top), crop)


def _discovery(
    found: Sequence[Region], shape: tuple[int, ...], boxes: Sequence[Sequence[float]] | None
) -> DiscoveredObjects:
    outer = _array((region.outer_box for region in found) if boxes is None else boxes)
    return DiscoveredObjects(tuple(found), outer, shape[0], shape[1])


def _contact(region: Region, shape: tuple[int, int]) -> int:
    """Pixels of a region on the image's border."""
    height, width = shape
    x0, y0, x1, y1 = region.outer_box
    border = np.zeros(region.crop.shape, dtype=bool)
    border[0] |= y0 == 0
    border[-1] |= y1 == height - 1
    border[:, 0] |= x0 == 0
    border[:, -1] |= x1 == width - 1
    return int((region.crop & border).sum())


def _array(boxes: Iterable[Sequence[float]]) -> Float[np.ndarray, "boxes 4"]:
    return np.array([tuple(box) for box in boxes], dtype=np.float64).reshape(-1, 4)
