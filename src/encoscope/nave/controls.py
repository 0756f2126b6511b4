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
from encoscope.nave.composite import from_vectors
from encoscope.nave.kmeans import kmeans
from encoscope.nave.segment import segment
from encoscope.nave.segmentation import Segmentation, by_size

Control: TypeAlias = Literal["untrained", "colour"]
CONTROLS: tuple[Control, ...] = get_args(Control)


def untrained_control(twin: Encoder, photo: LoadedImage, seg: Segmentation, **settings: Any) -> Segmentation:
    """The same settings, layers and number of clusters on an untrained twin of the encoder."""
    settings |= {"clusters": seg.n_clusters}
    found = segment(twin, photo, **settings)
    assert isinstance(found, Segmentation)  # one photo, one number of clusters
    return found


def color_control(photo: LoadedImage, seg: Segmentation) -> Segmentation:
    """K-means on colour and position alone, on the grid of ``seg``: no network takes part.

    Red, green, blue, row and column of each cell, each scaled to unit variance over the image.
    """
    rows, columns = seg.grid_labels.shape
    small = Image.fromarray(plots.displayable(photo.pixels)).resize((columns, rows), Image.Resampling.BOX)
    y, x = np.mgrid[:rows, :columns]
    values = np.concatenate([np.asarray(small, dtype=np.float64), np.stack([y, x], axis=2)], axis=2).reshape(-1, 5)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    found = kmeans(from_vectors(torch.from_numpy(values)), seg.n_clusters, seed=seg.seed)
    labels = by_size(found.labels[0].numpy()).astype(np.uint8).reshape(rows, columns)
    return seg.relabelled(labels, inertia=float(found.inertia[0]), settings={"control": "colour"})
