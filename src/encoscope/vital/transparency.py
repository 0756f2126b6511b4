"""Which parts of a picture were attended to while it was made (paper, section 3.4 and C.3)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_TOP = 0.98
_COLOURS = (0.01, 0.99)


def compute_transparency(attention: Float[Tensor, "channels height width"]) -> Float[np.ndarray, "height width"]:
    """Opacity, 0 to 1, from the gradient of the matching loss averaged over the steps.

    Absolute value, mean over channels, cut at the 98th percentile and divided by the maximum, as the authors do.
    """
    strength = attention.abs().mean(0)
    cut = strength.clamp(max=float(torch.quantile(strength, _TOP)))
    return (cut / cut.max().clamp(min=1e-30)).numpy()


def stretch_colors(picture: Float[Tensor, "channels height width"]) -> Float[np.ndarray, "height width channels"]:
    """A picture of values in [0, 1] for display: cut at its 1st and 99th percentile and spread to [0, 1].

    The percentiles are of all channels together, so that no colour is shifted; a flat picture stays as it is.
    """
    low, high = torch.quantile(picture.flatten(), torch.tensor(_COLOURS)).tolist()
    shown = (picture.clamp(low, high) - low) / (high - low) if high > low else picture
    return shown.permute(1, 2, 0).numpy()
