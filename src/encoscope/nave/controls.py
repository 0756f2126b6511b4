"""Controls of a segmentation: the same clustering without the training, and without the network.

An explanation of an encoder is only as good as its difference from a control: what untrained weights, or the colors
themselves, group in the same way says nothing about what the encoder has learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch import nn

from encoscope import plots
from encoscope.encoder import Encoder, as_encoder, untrained_copy
from encoscope.errors import UsageError, explain_calls
from encoscope.images import LoadedImage, read_image
from encoscope.nave.composite import features_from_vectors
from encoscope.nave.inputs import ImageLike
from encoscope.nave.kmeans import kmeans
from encoscope.nave.segmentation import Segmentation, renumber_by_size
from encoscope.nave.settings import NaveSettings
from encoscope.nave.single_image import segment

Control: TypeAlias = Literal["untrained", "color"]
CONTROLS: tuple[Control, ...] = get_args(Control)


@explain_calls
def compute_controls(
    encoder: Encoder | nn.Module | str,
    image: ImageLike,
    names: Sequence[str] = CONTROLS,
    *,
    random_state: int = NaveSettings.random_state,
    **settings: Any,
) -> dict[str, Segmentation]:
    """Segment one image by an encoder's controls, with as many clusters as the encoder's own segmentation has.

    Args:
        encoder: An encoder, a module, or a source string.
        image: The image: a path, a PIL image, an array or a tensor.
        names: "untrained" (the same network with random weights), "color" (color and position alone), or both.
        random_state: The seed of the segmentation; the untrained weights are drawn from the next one.
        **settings: As for ``segment``, with one number of clusters.

    Returns:
        The controls' segmentations by name. `compute_agreement` compares them with the encoder's.

    Raises:
        UsageError: For an unknown name, and for settings that cannot be.

    Example:
        >>> controls = encoscope.controls("zoo:resnet-caltech101", "cat.jpg", n_clusters=5)  # doctest: +SKIP
        >>> controls["untrained"].overlay().save("cat.untrained.png")  # doctest: +SKIP
    """
    unknown = next((name for name in names if name not in CONTROLS), None)
    if unknown is not None:
        raise UsageError(f"a control is {' or '.join(CONTROLS)}, not {unknown!r}")
    encoder = as_encoder(encoder)
    loaded = image if isinstance(image, LoadedImage) else read_image(image, channels=encoder.preprocess.image_channels)
    segmentation = segment(encoder, loaded, random_state=random_state, **settings)
    controls = {}
    for name in names:
        if name == "color":
            controls[name] = color_control(loaded, segmentation)
        else:
            untrained = untrained_copy(encoder, random_state=random_state + 1)
            controls[name] = untrained_control(untrained, loaded, segmentation, random_state=random_state, **settings)
    return controls


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
    fit = kmeans(
        features_from_vectors(torch.from_numpy(values)), segmentation.n_clusters, random_state=segmentation.seed
    )
    labels = renumber_by_size(fit.labels[0].numpy()).astype(np.uint8).reshape(rows, columns)
    return segmentation.relabelled(labels, inertia=float(fit.inertia[0]), settings={"control": "color"})
