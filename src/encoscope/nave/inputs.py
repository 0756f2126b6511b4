"""What users give as images: one, or several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from encoscope.images import LoadedImage, is_dataset

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor | LoadedImage


def is_single(images: Any) -> bool:
    """Tell one image from several.

    Args:
        images: What a user gave as images.

    Returns:
        Whether this is one image, not a folder, a dataset string or a collection.
    """
    if isinstance(images, str | os.PathLike):
        return not Path(images).is_dir() and not is_dataset(images)
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim < 4
    return isinstance(images, LoadedImage | Image.Image)
