"""What a segmentation is worth: the same clustering without the training, and without the network.

An explanation of an encoder is only as good as its difference from a control: parts that untrained weights, or the
colours themselves, group in the same way say nothing about what the encoder has learned.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image

from encoscope import plots
from encoscope.encoder import Encoder
from encoscope.images import LoadedImage
from encoscope.nave.composite import features_from_vectors
from encoscope.nave.kmeans import kmeans
from encoscope.nave.segmentation import Segmentation, renumber_by_size
from encoscope.nave.single_image import segment

Control: TypeAlias = Literal["untrained", "color"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def untrained_control(
    untrained: Encoder, image: LoadedImage, segmentation: Segmentation, **settings: Any
) -> Segmentation:
    """Segment an image with an untrained copy of the encoder.

    Args:
        untrained: The untrained copy.
        image: The image.
        segmentation: What the trained encoder gave; the control has as many clusters.
        **settings: The settings that it was made with, as for ``segment``.

    Returns:
        The control.
    """
    settings |= {"n_clusters": segmentation.n_clusters}
    return segment(untrained, image, **settings)


def color_control(image: LoadedImage, segmentation: Segmentation) -> Segmentation:
    """Segment an image by k-means on color and position alone: no network takes part.

    Red, green, blue, row and column of each cell are scaled to unit variance over the image.

    Args:
        image: The image.
        segmentation: What the encoder gave; the control has its grid and its number of clusters.

    Returns:
        The control.
    """
    rows, columns = segmentation.grid_labels.shape
    small = Image.fromarray(plots.to_rgb(image.pixels)).resize((columns, rows), Image.Resampling.BOX)
    y, x = np.mgrid[:rows, :columns]
    values = np.concatenate([np.asarray(small, dtype=np.float64), np.stack([y, x], axis=2)], axis=2).reshape(-1, 5)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    fit = kmeans(features_from_vectors(torch.from_numpy(values)), segmentation.n_clusters, seed=segmentation.seed)
    labels = renumber_by_size(fit.labels[0].numpy()).astype(np.uint8).reshape(rows, columns)
    return segmentation.relabelled(labels, inertia=float(fit.inertia[0]), settings={"control": "color"})
