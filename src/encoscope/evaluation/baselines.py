"""The methods that are compared, each from a photo to its parts: NAVE, and what it is measured against.

Whatever parts a whole photo (NAVE, superpixels, the controls) goes by the same rules: components of at most
``min_area`` pixels are no candidates, and a frame of ``border`` pixels is taken away. Superpixels and controls come at
NAVE's own number of parts, image by image: more parts always make an oracle look better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from encoscope.discovery import METHODS as DISCOVERY
from encoscope.discovery import DiscoveredObjects, get_method
from encoscope.discovery import make_candidates as candidates_of
from encoscope.discovery.methods import get_base_name
from encoscope.discovery.result import objects_from_labels, objects_from_masks
from encoscope.discovery.sam import load_sam
from encoscope.encoder import Encoder
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import LoadedImage, resize_image
from encoscope.metrics import Candidates
from encoscope.nave import segment
from encoscope.nave.settings import NaveSettings
from encoscope.plots import to_rgb
from encoscope.regions import Region, compute_outer_box

METHODS = ("nave", *DISCOVERY)
MATCHED = ("slic", "felzenszwalb", "random", "grid")
"""Methods that take a number of parts, NAVE's unless told otherwise, and no network."""
ALONE = (*MATCHED, "sam")
"""Methods that take no encoder."""
CONTROL = "random"
MIN_AREA, BORDER = 784, 14
"""Of NAVE's evaluation: components of more than 784 pixels, without a frame of 14 (one patch)."""

_SMALL = 256  # short side in pixels at which the settings for a number of parts are looked for
_TRIES = 6
_SLIVER = 0.0025  # of the photo: smaller segments of Felzenszwalb's would count as parts, and be none


@dataclass(frozen=True, eq=False)
class Parts:
    """What a method makes of a photo.

    labels: the part of each pixel, from 0; for methods that look for objects 0 is the rest of the photo. regions, with
    boxes where a method defines its own: the candidates for an object.
    """

    labels: Int64[np.ndarray, "height width"]
    regions: tuple[Region, ...]
    boxes: Float[np.ndarray, "regions 4"] | None = None

    @property
    def candidates(self) -> Candidates:
        """The regions as ``metrics.localize`` takes them."""
        return candidates_of(self.regions, (self.labels.shape[0], self.labels.shape[1]), self.boxes)

    @property
    def count(self) -> int:
        """Number of labels that occur."""
        return len(np.unique(self.labels))


@dataclass(frozen=True, eq=False)
class Baseline:
    """A method with all its settings, ready to be called on a photo.

    method: one of METHODS, or "sam:WEIGHTS". encoder: None for methods without one. clusters: NAVE's K; None where it
    means nothing. options: further settings of ``encoscope.segment`` or of the discovery method. size: as
    ``segment``'s; a network of one fixed size gets that. min_area, border: which parts count as candidates, in pixels.
    """

    method: str
    encoder: Encoder | None = None
    clusters: int | None = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int | str = "native"
    min_area: int = MIN_AREA
    border: int = BORDER
    seed: int = 0

    def __post_init__(self) -> None:
        if get_base_name(self.method) not in METHODS:
            raise UsageError(
                f"unknown method {self.method!r}{suggest_nearest(self.method, METHODS)}; there are {', '.join(METHODS)}"
            )
        if self.encoder is None and get_base_name(self.method) not in ALONE:
            raise UsageError(f"{self.method} needs an encoder")
        if self.method == "nave":  # a wrong setting fails before the first photo
            self._settings()
        else:
            get_method(self.method, **self._finding(1))

    @property
    def matched(self) -> bool:
        """Whether it takes a number of parts."""
        return self.method in MATCHED

    @property
    def name(self) -> str:
        """The method for a table: of SAM's weights only the folder's own name."""
        return f"sam:{Path(self._weights).absolute().name}" if get_base_name(self.method) == "sam" else self.method

    @property
    def _weights(self) -> str:
        return self.method.partition(":")[2]

    def manifest(self) -> dict[str, Any]:
        """All that shapes its results but the photo and, if matched, the number of parts."""
        made: dict[str, Any] = {"method": self.method, "min_area": self.min_area, "border": self.border}
        if self.matched:
            sliver = {"sliver": _SLIVER} if self.method == "felzenszwalb" else {}
            return made | {"options": dict(self.options), "seed": self.seed} | sliver
        if get_base_name(self.method) == "sam":  # its weights by what they are: not where they lie, nor where they run
            device = self.options.get("device", "cpu")
            options = {name: value for name, value in self.options.items() if name != "device"}
            weights = load_sam(self._weights, device).digest
            return made | {"method": "sam", "weights": weights, "options": options}
        assert self.encoder is not None
        made |= {"encoder": self.encoder.digest, "precision": self.encoder.precision}
        if self.method == "nave":
            settings = self._settings()
            return made | settings.as_dict() | {"layers": list(settings.layers), "seed": settings.random_state}
        return made | {"options": dict(self.options), "size": self.size}

    def __call__(self, photo: LoadedImage, parts: int | None = None) -> Parts:
        """The parts of a photo. parts: how many, for a matched method."""
        if self.method == "nave":
            assert self.encoder is not None
            parted = segment(self.encoder, photo, **self.segmenting())
            kept = tuple(parted.regions(min_area=self.min_area, border=self.border))
            return Parts(parted.labels.astype(np.int64), kept)
        asked = max(1, parts or 1)
        if self.method in _SEARCHED:
            found = _SEARCHED[self.method](photo, asked, self._finding(asked))
        else:
            found = get_method(self.method, **self._finding(asked))(self.encoder, photo)
        if self.matched:
            return Parts(_labels(found), self._ruled(found).regions)
        return Parts(_labels(found) + 1, found.regions, found.boxes)

    def _settings(self) -> NaveSettings:
        assert self.encoder is not None
        return NaveSettings.of(self.encoder, **self.segmenting())

    def segmenting(self) -> dict[str, Any]:
        """Keyword arguments of ``encoscope.segment``, for NAVE."""
        assert self.encoder is not None
        size = self.size if self.encoder.resizable else "model"
        return {"n_clusters": self.clusters or 5, "size": size, "random_state": self.seed, **self.options}

    def _finding(self, parts: int) -> dict[str, Any]:
        """Keyword arguments of the discovery method."""
        if get_base_name(self.method) == "sam":
            return dict(self.options)
        if not self.matched:
            return {"size": self.size, **self.options}
        if self.method == "felzenszwalb":  # takes a scale; parts that are no candidates would take others' places
            return {"min_size": self.min_area + 1, **self.options}
        seed = {"random_state": self.seed} if self.method == "random" else {}
        return {"n_segments": parts, **seed, **self.options}

    def _ruled(self, found: DiscoveredObjects) -> DiscoveredObjects:
        """The parts that are large enough, each whole, without the frame."""
        shape, masks = (found.height, found.width), []
        for region in found.regions:
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


def slic(photo: LoadedImage, parts: int, options: Mapping[str, Any]) -> DiscoveredObjects:
    """SLIC, about ``parts`` superpixels: it makes fewer than it is asked for, so it is asked for more.

    How many more is found on a small copy.
    """
    (small, _), asked = _shrunk(photo), parts
    for _ in range(_TRIES // 2):
        made = len(DISCOVERY["slic"](None, small, **{**options, "n_segments": asked}))
        if made >= parts:
            break
        asked = max(asked + 1, round(asked * parts / made))
    return DISCOVERY["slic"](None, photo, **{**options, "n_segments": asked})


def felzenszwalb(photo: LoadedImage, parts: int, options: Mapping[str, Any]) -> DiscoveredObjects:
    """Felzenszwalb's segments, about ``parts`` of them: the scale that comes nearest, by bisection on a small copy.

    The method takes a scale, not a number. Labels come back to the photo's own pixels by nearest neighbour.
    """
    if "scale" in options:
        return DISCOVERY["felzenszwalb"](None, photo, **options)
    small, shrink = _shrunk(photo)
    least = max(options["min_size"], _SLIVER * photo.height * photo.width)
    options = {**options, "min_size": max(1, round(least * shrink**2))}
    low, high, best = 1.0, 6.0, None  # decimal logarithms of the scale
    for _ in range(_TRIES):
        middle = (low + high) / 2
        found = DISCOVERY["felzenszwalb"](None, small, scale=10**middle, **options)
        if best is None or abs(len(found) - parts) < abs(len(best) - parts):
            best = found
        if len(found) == parts:
            break
        low, high = (middle, high) if len(found) > parts else (low, middle)
    assert best is not None
    rows = np.arange(photo.height) * best.height // photo.height
    columns = np.arange(photo.width) * best.width // photo.width
    return objects_from_labels(_labels(best)[np.ix_(rows, columns)])


def _shrunk(photo: LoadedImage) -> tuple[LoadedImage, float]:
    """A copy that takes a fraction of the time, and its sides over the photo's."""
    shrink = min(1.0, _SMALL / min(photo.height, photo.width))
    side = (max(1, round(photo.height * shrink)), max(1, round(photo.width * shrink)))
    return replace(photo, pixels=resize_image(to_rgb(photo.pixels), side, "box")), shrink


def _labels(found: DiscoveredObjects) -> Int64[np.ndarray, "height width"]:
    """The number of the object at each pixel, the smallest where several are; -1 where there is none."""
    labels = np.full((found.height, found.width), -1, dtype=np.int64)
    order = sorted(range(len(found)), key=lambda index: -found.regions[index].area)
    for index in order:
        x0, y0, x1, y1 = found.regions[index].outer_box
        labels[y0 : y1 + 1, x0 : x1 + 1][found.regions[index].crop] = index
    return labels


_SEARCHED: Mapping[str, Callable[[LoadedImage, int, Mapping[str, Any]], DiscoveredObjects]] = {
    "slic": slic,
    "felzenszwalb": felzenszwalb,
}
"""Methods that do not give the number of parts they are asked for."""
