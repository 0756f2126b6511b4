"""Segments without a network: superpixels, and the controls that do not look at the photo at all.

A segment a region; which of them is the object is another question (see ``metrics.localize``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from encoscope import plots
from encoscope.discovery.result import DiscoveredObjects, objects_from_labels
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.images import LoadedImage


def slic(
    encoder: Encoder | None, photo: LoadedImage, *, n_segments: int = 5, compactness: float = 10.0, sigma: float = 0.0
) -> DiscoveredObjects:
    """SLIC superpixels (Achanta et al., 2012), about ``n_segments`` of them.

    The NAVE paper does not say how many it took; the default is its number of clusters. Set it to the number of regions
    of the segmentation it is compared with.
    """
    _check(n_segments)
    labels = _skimage("slic")(
        plots.to_rgb(photo.pixels), n_segments=n_segments, compactness=compactness, sigma=sigma, start_label=0
    )
    return objects_from_labels(labels.astype(np.int64))


def felzenszwalb(
    encoder: Encoder | None, photo: LoadedImage, *, scale: float = 300.0, sigma: float = 0.8, min_size: int = 20
) -> DiscoveredObjects:
    """Felzenszwalb and Huttenlocher's graph-based segments (2004), with the paper's k = 300 and sigma = 0.8.

    scale: the paper's k, for intensities up to 255. min_size: of a segment in pixels, which the paper leaves open.
    """
    labels = _skimage("felzenszwalb")(plots.to_rgb(photo.pixels), scale=scale, sigma=sigma, min_size=min_size)
    return objects_from_labels(labels.astype(np.int64))


def segment_randomly(
    encoder: Encoder | None, photo: LoadedImage, *, n_segments: int = 5, random_state: int = 0
) -> DiscoveredObjects:
    """Voronoi cells of points drawn evenly over the photo: what any segments of that number would score.

    The points depend on the seed and the photo's id, not on what else is looked at.
    """
    _check(n_segments)
    rng = np.random.default_rng([random_state, int(photo.id[:16], 16)])
    points = rng.random((n_segments, 2)) * (photo.height, photo.width)
    rows, columns = np.indices((photo.height, photo.width)) + 0.5
    pixels = np.stack([rows, columns], axis=-1)
    labels = KDTree(points).query(pixels)[1]
    return objects_from_labels(np.asarray(labels, dtype=np.int64))


def segment_by_grid(encoder: Encoder | None, photo: LoadedImage, *, n_segments: int = 5) -> DiscoveredObjects:
    """Rectangles: about ``n_segments`` of them, as square as that number allows."""
    _check(n_segments)
    rows = min(photo.height, max(1, round(np.sqrt(n_segments * photo.height / photo.width))))
    columns = min(photo.width, max(1, round(n_segments / rows)))
    y = np.arange(photo.height) * rows // photo.height
    x = np.arange(photo.width) * columns // photo.width
    return objects_from_labels(y[:, None] * columns + x[None])


def _skimage(name: str) -> Callable[..., Any]:
    try:
        from skimage import segmentation
    except ImportError as error:
        raise MissingError(f"{name} needs scikit-image: pip install 'encoscope[eval]'") from error
    return getattr(segmentation, name)


def _check(n_segments: int) -> None:
    if n_segments < 1:
        raise UsageError(f"n_segments is how many are asked for, at least 1, not {n_segments}")
