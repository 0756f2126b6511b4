"""Feature visualization in Fourier space (Olah, Mordvintsev and Schubert 2017): parametrization and transforms.

Coefficients of an image's real Fourier transform are optimized, each scaled by the inverse of its frequency, in colors
whose axes are uncorrelated in natural images. Small shifts, zooms and turns keep the image from becoming noise that
excites the unit at one exact position only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.images import Preprocess
from encoscope.units import Unit
from encoscope.vital.baselines.losses import Maximize, choose_size
from encoscope.vital.settings import FourierSettings
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import normalize
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.synthesis.random import Generators, draw_normal
from encoscope.vital.synthesis.schedule import constant
from encoscope.vital.synthesis.views import NoisyCrops, Wander, mid_gray

_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
_START = 0.01  # standard deviation of the first coefficients


def color_matrix() -> Float[Tensor, "3 3"]:
    """Compute the matrix from uncorrelated colors to red, green, blue.

    Returns:
        The square root of the colors' covariance, divided by its largest column norm.
    """
    matrix = torch.tensor(_COLORS)
    return matrix / matrix.norm(dim=0).max()


def correlate_colors(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Turn uncorrelated colors into red, green, blue.

    Args:
        images: The images.

    Returns:
        The images; those of any other number of channels than three stay as they are.
    """
    if images.shape[1] != 3:
        return images
    return torch.einsum("ij,bjhw->bihw", color_matrix().to(images), images)


def decorrelate_colors(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Undo ``correlate_colors``.

    Args:
        images: The images.

    Returns:
        The images; those of any other number of channels than three stay as they are.
    """
    if images.shape[1] != 3:
        return images
    return torch.einsum("ij,bjhw->bihw", color_matrix().inverse().to(images), images)


def compute_frequency_scale(height: int, width: int) -> Float[Tensor, "height half"]:
    """Compute 1 / max(f, 1 / max(width, height)) for each coefficient of ``torch.fft.rfft2``.

    Args:
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        The scale of each coefficient; f is its frequency in cycles per pixel.
    """
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return 1 / torch.sqrt(down**2 + right**2).clamp(min=1 / max(width, height))


class FourierImage:
    """Images as scaled Fourier coefficients, decorrelated colors and a sigmoid; values stay inside (0, 1).

    A coefficient's real and imaginary part begin as N(0, 0.01 squared). The image is the orthonormal inverse transform
    of the scaled coefficients divided by 4, its colors correlated, its sigmoid normalized for the network.

    Args:
        preprocess: The network's preprocessing.
        size: (height, width) of the images.
        generators: The generator of each image.
        device: Where the coefficients are.

    Source: Olah, Mordvintsev and Schubert 2017.
    """

    def __init__(
        self, preprocess: Preprocess, size: tuple[int, int], generators: Generators, device: torch.device | str = "cpu"
    ) -> None:
        height, width = size
        start = _START * draw_normal(generators, preprocess.channels, height, width // 2 + 1, 2)
        self._coefficients = start.to(device).requires_grad_()
        self._scale = compute_frequency_scale(height, width).to(device)
        self._preprocess, self._size = preprocess, size

    def parameters(self) -> list[Tensor]:
        """Real and imaginary parts, [batch, channels, height, width // 2 + 1, 2]."""
        return [self._coefficients]

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The normalized images."""
        scaled = torch.view_as_complex(self._coefficients) * self._scale
        plain = torch.fft.irfft2(scaled, s=self._size, norm="ortho") / 4
        return normalize(torch.sigmoid(correlate_colors(plain)), self._preprocess)

    def clamp_(self) -> None:
        """Do nothing: the sigmoid keeps the range."""


def plan(encoder: Encoder, units: Sequence[Unit], settings: FourierSettings, images: Any = None) -> SynthesisPlan:
    """Plan Fourier feature visualization: Adam maximizes the unit.

    Args:
        encoder: The encoder.
        units: The units.
        settings: The method's settings.
        images: Not used: this method needs no images.

    Returns:
        The plan.

    Raises:
        UsageError: For a size that is too small.

    Source: Olah, Mordvintsev and Schubert 2017; MACO's crops together with a learning rate of 1 are VITAL's comparison.
    """
    size, window = choose_size(encoder, settings.size), encoder.preprocess.size
    wander = settings.views == "wander"
    stage = Stage(
        start=lambda _, generators: FourierImage(encoder.preprocess, size, generators, encoder.device),
        steps=settings.steps,
        optimizer=Optimizer(lr=settings.lr, betas=(0.9, 0.999)),
        schedule=constant,
        transform=Wander(window, mid_gray(encoder.preprocess)) if wander else NoisyCrops(window, settings.n_views),
    )
    record = {"method": "fourier", **settings.as_dict(), "size": list(size)}
    return SynthesisPlan((stage,), Maximize(encoder, units), record)
