"""Segments without a network: superpixels, and controls that do not depend on the image's content.

Each segment is a region; the metrics of localization choose the object among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from encoscope import plots
from encoscope.defaults import RANDOM_STATE
from encoscope.discovery.result import DiscoveredObjects, objects_from_labels
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, UsageError
from encoscope.images import LoadedImage


def slic(
    encoder: Encoder | None, image: LoadedImage, *, n_segments: int = 5, compactness: float = 10.0, sigma: float = 0.0
) -> DiscoveredObjects:
    """Compute SLIC superpixels.

    Args:
        encoder: Not used.
        image: The image.
        n_segments: About how many superpixels. The NAVE paper does not state its number; the default is NAVE's number
            of clusters. For a comparison, use the number of regions of the other segmentation.
        compactness: Weight of distances in space against distances in color, as for scikit-image.
        sigma: Standard deviation of the smoothing before, in pixels.

    Returns:
        One object for each superpixel.

    Raises:
        UsageError: If ``n_segments`` is less than 1.
        MissingError: If scikit-image is not installed.

    Source: SLIC (Achanta et al., 2012).
    """
    _check_n_segments(n_segments)
    labels = _import_segmentation("slic")(
        plots.to_rgb(image.pixels), n_segments=n_segments, compactness=compactness, sigma=sigma, start_label=0
    )
    return objects_from_labels(labels.astype(np.int64))


def felzenszwalb(
    encoder: Encoder | None, image: LoadedImage, *, scale: float = 300.0, sigma: float = 0.8, min_size: int = 20
) -> DiscoveredObjects:
    """Compute Felzenszwalb and Huttenlocher's graph-based segments.

    Args:
        encoder: Not used.
        image: The image.
        scale: The paper's k, for intensities up to 255 (the paper's 300).
        sigma: Standard deviation of the smoothing before, in pixels (the paper's 0.8).
        min_size: The smallest segment in pixels, which the paper does not state.

    Returns:
        One object for each segment.

    Raises:
        MissingError: If scikit-image is not installed.

    Source: Felzenszwalb and Huttenlocher, 2004.
    """
    labels = _import_segmentation("felzenszwalb")(
        plots.to_rgb(image.pixels), scale=scale, sigma=sigma, min_size=min_size
    )
    return objects_from_labels(labels.astype(np.int64))


def segment_randomly(
    encoder: Encoder | None, image: LoadedImage, *, n_segments: int = 5, random_state: int = RANDOM_STATE
) -> DiscoveredObjects:
    """Divide an image into the Voronoi cells of random points: a control for the number of segments alone.

    Args:
        encoder: Not used.
        image: The image.
        n_segments: Number of points, which are drawn uniformly over the image.
        random_state: Seed. The points depend on it and on the image's id only.

    Returns:
        One object for each cell.

    Raises:
        UsageError: If ``n_segments`` is less than 1.
    """
    _check_n_segments(n_segments)
    rng = np.random.default_rng([random_state, int(image.id[:16], 16)])
    points = rng.random((n_segments, 2)) * (image.height, image.width)
    rows, columns = np.indices((image.height, image.width)) + 0.5
    pixels = np.stack([rows, columns], axis=-1)
    labels = KDTree(points).query(pixels)[1]
    return objects_from_labels(np.asarray(labels, dtype=np.int64))


def segment_by_grid(encoder: Encoder | None, image: LoadedImage, *, n_segments: int = 5) -> DiscoveredObjects:
    """Divide an image into a grid of rectangles.

    Args:
        encoder: Not used.
        image: The image.
        n_segments: About how many rectangles; they are as square as that number allows.

    Returns:
        One object for each rectangle.

    Raises:
        UsageError: If ``n_segments`` is less than 1.
    """
    _check_n_segments(n_segments)
    rows = min(image.height, max(1, round(np.sqrt(n_segments * image.height / image.width))))
    columns = min(image.width, max(1, round(n_segments / rows)))
    y = np.arange(image.height) * rows // image.height
    x = np.arange(image.width) * columns // image.width
    return objects_from_labels(y[:, None] * columns + x[None])


def _import_segmentation(name: str) -> Callable[..., Any]:
    try:
        from skimage import segmentation
    except ImportError as error:
        raise MissingError(f"{name} needs scikit-image: pip install 'encoscope[eval]'") from error
    return getattr(segmentation, name)


def _check_n_segments(n_segments: int) -> None:
    if n_segments < 1:
        raise UsageError(f"n_segments is a number of segments, at least 1, not {n_segments}")
