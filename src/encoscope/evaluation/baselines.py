"""The methods that are compared, each from an image to its segments: NAVE, and what it is measured against.

Methods that segment a whole image (NAVE, superpixels, the controls) follow the same rules: components of at most
``min_area`` pixels are no candidates, and a frame of ``border`` pixels is taken away. Superpixels and controls are
asked for NAVE's own number of segments, image by image: more segments always improve the score of an oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from encoscope.discovery import METHODS as DISCOVERY
from encoscope.discovery import DiscoveredObjects, get_method, make_candidates
from encoscope.discovery.methods import get_base_name
from encoscope.discovery.result import objects_from_labels, objects_from_masks
from encoscope.discovery.sam import load_sam
from encoscope.encoder import Encoder, identify_encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.evaluation.settings import CorlocSettings
from encoscope.images import LoadedImage, resize_image
from encoscope.metrics import Candidates
from encoscope.nave import segment
from encoscope.nave.settings import NaveSettings
from encoscope.plots import to_rgb
from encoscope.regions import Region, compute_outer_box

METHODS = ("nave", *DISCOVERY)
MATCHED = ("slic", "felzenszwalb", "random", "grid")
"""Methods that take a number of segments, NAVE's unless told otherwise, and no network."""
ALONE = (*MATCHED, "sam")
"""Methods that take no encoder."""
CONTROL = "random"

_SMALL = 256  # short side in pixels at which the settings for a number of segments are searched
_TRIES = 6
_SLIVER = 0.0025  # of the image: smaller segments of Felzenszwalb's are merged into others


@dataclass(frozen=True, eq=False)
class BaselineSegments:
    """The segments that a method finds in an image.

    Attributes:
        labels: ``[height, width]``, the segment of each pixel, from 0; for methods that look for objects 0 is the rest
            of the image.
        regions: The candidates for an object.
        boxes: ``[regions, 4]``, their boxes where a method defines its own.
    """

    labels: Int64[np.ndarray, "height width"]
    regions: tuple[Region, ...]
    boxes: Float[np.ndarray, "regions 4"] | None = None

    @property
    def candidates(self) -> Candidates:
        """The regions as ``metrics.localize`` takes them."""
        return make_candidates(self.regions, (self.labels.shape[0], self.labels.shape[1]), self.boxes)

    @property
    def count(self) -> int:
        """Number of labels that occur."""
        return len(np.unique(self.labels))


@dataclass(frozen=True, eq=False)
class Baseline:
    """A method with all its settings, ready to be called on an image.

    Attributes:
        method: One of ``METHODS``, or "sam:WEIGHTS".
        encoder: The network; None for methods without one.
        n_clusters: NAVE's K; None where it has no meaning.
        options: Further settings of ``encoscope.segment`` or of the discovery method.
        size: As ``segment``'s; a network of one fixed size gets that.
        min_area: Regions of at most so many pixels are no candidates.
        border: Pixels along the image's border that are taken away from candidates.
        random_state: The seed.

    Raises:
        UsageError: an unknown method, a method without its encoder, or settings that it does not have.
    """

    method: str
    encoder: Encoder | None = None
    n_clusters: int | None = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int | str = CorlocSettings.size
    min_area: int = CorlocSettings.min_area
    border: int = CorlocSettings.border
    random_state: int = CorlocSettings.random_state

    def __post_init__(self) -> None:
        if get_base_name(self.method) not in METHODS:
            raise UsageError(
                f"unknown method {self.method!r}{suggest_nearest(self.method, METHODS)}; there are {', '.join(METHODS)}"
            )
        if self.encoder is None and get_base_name(self.method) not in ALONE:
            raise UsageError(f"{self.method} needs an encoder")
        if self.method == "nave":  # a wrong setting fails before the first image
            self._settings()
        else:
            get_method(self.method, **self._discovery_options(1))

    @property
    def matched(self) -> bool:
        """Whether it takes a number of segments."""
        return self.method in MATCHED

    @property
    def network(self) -> Encoder:
        """The encoder of a method that has one. Raises UsageError for another."""
        if self.encoder is None:
            raise UsageError(f"{self.method} has no encoder")
        return self.encoder

    @property
    def name(self) -> str:
        """The method for a table: of SAM's weights only the folder's own name."""
        return f"sam:{Path(self._weights).absolute().name}" if get_base_name(self.method) == "sam" else self.method

    @property
    def _weights(self) -> str:
        return self.method.partition(":")[2]

    def manifest(self) -> dict[str, Any]:
        """All that shapes its results but the image and, if matched, the number of segments."""
        rules: dict[str, Any] = {"method": self.method, "min_area": self.min_area, "border": self.border}
        if self.matched:
            sliver = {"sliver": _SLIVER} if self.method == "felzenszwalb" else {}
            return rules | {"options": dict(self.options), "seed": self.random_state} | sliver
        if get_base_name(self.method) == "sam":  # its weights by what they are: not where they lie, nor where they run
            device = self.options.get("device", "cpu")
            options = {name: value for name, value in self.options.items() if name != "device"}
            weights = load_sam(self._weights, device).digest
            return rules | {"method": "sam", "weights": weights, "options": options}
        rules |= identify_encoder(self.network)
        if self.method == "nave":
            settings = self._settings()
            return rules | settings.as_dict() | {"layers": list(settings.layers), "seed": settings.random_state}
        return rules | {"options": dict(self.options), "size": self.size}

    def __call__(self, image: LoadedImage, n_segments: int | None = None) -> BaselineSegments:
        """Segment an image.

        Args:
            image: The image.
            n_segments: How many segments, for a matched method.

        Returns:
            Its segments and candidates.
        """
        if self.method == "nave":
            segmentation = segment(self.network, image, **self.segment_options())
            regions = tuple(segmentation.regions(min_area=self.min_area, border=self.border))
            return BaselineSegments(segmentation.labels.astype(np.int64), regions)
        requested = max(1, n_segments or 1)
        if self.method in _SEARCHED:
            objects = _SEARCHED[self.method](image, requested, self._discovery_options(requested))
        else:
            objects = get_method(self.method, **self._discovery_options(requested))(self.encoder, image)
        if self.matched:
            return BaselineSegments(_label_pixels(objects), self._keep_candidates(objects).regions)
        return BaselineSegments(_label_pixels(objects) + 1, objects.regions, objects.boxes)

    def segment_options(self) -> dict[str, Any]:
        """Keyword arguments of ``encoscope.segment``, for NAVE."""
        size = self.size if self.network.resizable else "model"
        return {"n_clusters": self.n_clusters or 5, "size": size, "random_state": self.random_state, **self.options}

    def _settings(self) -> NaveSettings:
        return NaveSettings.of(self.network, **self.segment_options())

    def _discovery_options(self, n_segments: int) -> dict[str, Any]:
        """Keyword arguments of the discovery method."""
        if get_base_name(self.method) == "sam":
            return dict(self.options)
        if not self.matched:
            return {"size": "model" if self.size == "auto" else self.size, **self.options}
        if self.method == "felzenszwalb":  # takes a scale; segments that are no candidates would replace others
            return {"min_size": self.min_area + 1, **self.options}
        seed = {"random_state": self.random_state} if self.method == "random" else {}
        return {"n_segments": n_segments, **seed, **self.options}

    def _keep_candidates(self, objects: DiscoveredObjects) -> DiscoveredObjects:
        """The segments that are large enough, each whole, without the frame."""
        shape, masks = (objects.height, objects.width), []
        for region in objects.regions:
            if region.area > self.min_area:
                mask = region.mask(shape)
                if self.border:
                    for edge in (
                        mask[: self.border],
                        mask[-self.border :],
                        mask.T[: self.border],
                        mask.T[-self.border :],
                    ):
                        edge[...] = False
                masks.append(mask)
        masks = [mask for mask in masks if mask.any()]
        return objects_from_masks(masks, [compute_outer_box(mask) for mask in masks], shape)


def search_slic(image: LoadedImage, n_segments: int, options: Mapping[str, Any]) -> DiscoveredObjects:
    """Make about so many superpixels with SLIC, which makes fewer than requested: more are requested of it.

    How many more is searched on a small copy.

    Args:
        image: The image.
        n_segments: How many superpixels.
        options: Further settings of the discovery method "slic".

    Returns:
        The superpixels.
    """
    (small, _), requested = _shrink(image), n_segments
    for _ in range(_TRIES // 2):
        count = len(DISCOVERY["slic"](None, small, **{**options, "n_segments": requested}))
        if count >= n_segments:
            break
        requested = max(requested + 1, round(requested * n_segments / count))
    return DISCOVERY["slic"](None, image, **{**options, "n_segments": requested})


def search_felzenszwalb(image: LoadedImage, n_segments: int, options: Mapping[str, Any]) -> DiscoveredObjects:
    """Make about so many segments with Felzenszwalb's method, which takes a scale instead of a number.

    The scale that comes nearest is searched by bisection on a small copy. Labels come back to the image's own pixels by
    nearest neighbor.

    Args:
        image: The image.
        n_segments: How many segments.
        options: Further settings of the discovery method "felzenszwalb"; with ``scale`` nothing is searched.

    Returns:
        The segments.
    """
    if "scale" in options:
        return DISCOVERY["felzenszwalb"](None, image, **options)
    small, shrink = _shrink(image)
    smallest = max(options["min_size"], _SLIVER * image.height * image.width)
    options = {**options, "min_size": max(1, round(smallest * shrink**2))}
    low, high = 1.0, 6.0  # decimal logarithms of the scale
    attempts: list[DiscoveredObjects] = []
    for _ in range(_TRIES):
        middle = (low + high) / 2
        attempts.append(DISCOVERY["felzenszwalb"](None, small, scale=10**middle, **options))
        if len(attempts[-1]) == n_segments:
            break
        low, high = (middle, high) if len(attempts[-1]) > n_segments else (low, middle)
    best = min(attempts, key=lambda objects: abs(len(objects) - n_segments))  # the first of equals
    rows = np.arange(image.height) * best.height // image.height
    columns = np.arange(image.width) * best.width // image.width
    return objects_from_labels(_label_pixels(best)[np.ix_(rows, columns)])


def _shrink(image: LoadedImage) -> tuple[LoadedImage, float]:
    """A copy that takes a fraction of the time, and its sides over the image's."""
    shrink = min(1.0, _SMALL / min(image.height, image.width))
    side = (max(1, round(image.height * shrink)), max(1, round(image.width * shrink)))
    return replace(image, pixels=resize_image(to_rgb(image.pixels), side, "box")), shrink


def _label_pixels(objects: DiscoveredObjects) -> Int64[np.ndarray, "height width"]:
    """The number of the object at each pixel, the smallest where several are; -1 where there is none."""
    labels = np.full((objects.height, objects.width), -1, dtype=np.int64)
    order = sorted(range(len(objects)), key=lambda index: -objects.regions[index].area)
    for index in order:
        x0, y0, x1, y1 = objects.regions[index].outer_box
        labels[y0 : y1 + 1, x0 : x1 + 1][objects.regions[index].crop] = index
    return labels


_SEARCHED: Mapping[str, Callable[[LoadedImage, int, Mapping[str, Any]], DiscoveredObjects]] = {
    "slic": search_slic,
    "felzenszwalb": search_felzenszwalb,
}
"""Methods that make another number of segments than requested."""
