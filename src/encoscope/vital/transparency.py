"""Which pixels of a visualization were attended to while it was made (VITAL, sections 3.4 and C.3)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_CUT_QUANTILE = 0.98
_COLOR_QUANTILES = (0.01, 0.99)


def compute_transparency(attention: Float[Tensor, "channels height width"]) -> Float[np.ndarray, "height width"]:
    """Turn the gradients of the loss into opacity.

    Mean over channels, cut at the 98th percentile and divided by the maximum, as the authors do. Where the paper is
    silent it is their code: the absolute gradient of the whole loss in each step.

    Args:
        attention: The absolute gradient at the image, averaged over the steps.

    Returns:
        The opacity of each pixel, 0 to 1.

    Source: VITAL, section 3.4, and the authors' code.
    """
    strength = attention.mean(0)
    cut = strength.clamp(max=float(torch.quantile(strength, _CUT_QUANTILE)))
    return (cut / cut.max().clamp(min=1e-30)).numpy()


def stretch_colors(image: Float[Tensor, "channels height width"]) -> Float[np.ndarray, "height width channels"]:
    """Spread an image's values to [0, 1] for display, cut at their 1st and 99th percentile.

    The percentiles are of all channels together, so that no color is shifted.

    Args:
        image: Values in [0, 1].

    Returns:
        Values in [0, 1]; an image of one value stays as it is.
    """
    low, high = torch.quantile(image.flatten(), torch.tensor(_COLOR_QUANTILES)).tolist()
    shown = (image.clamp(low, high) - low) / (high - low) if high > low else image
    return shown.permute(1, 2, 0).numpy()
