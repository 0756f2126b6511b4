"""Feature visualization in Fourier space (Olah, Mordvintsev and Schubert 2017): parametrization and transforms.

Coefficients of a picture's real Fourier transform are optimised, each scaled by the inverse of its frequency, in
colours whose axes are uncorrelated in natural images; small moves, zooms and turns keep the picture from being a noise
that only one position makes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Preprocess
from encoscope.units import Unit
from encoscope.vital.baselines.losses import Maximize, number_of_steps, own_settings, picture_size
from encoscope.vital.baselines.registry import BaselineOptions, SynthesisPlan
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import normalize
from encoscope.vital.synthesis.random import Generators, draw_normal
from encoscope.vital.synthesis.schedule import constant
from encoscope.vital.synthesis.views import NoisyCrops, Wander, mid_gray

_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
_START = 0.01  # standard deviation of the first coefficients


def color_matrix() -> Float[Tensor, "3 3"]:
    """From uncorrelated colours to red, green, blue: the square root of their covariance by its largest column norm."""
    matrix = torch.tensor(_COLOURS)
    return matrix / matrix.norm(dim=0).max()


def correlate_colors(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Images of uncorrelated colours as red, green, blue; images of any other number of channels stay as they are."""
    if images.shape[1] != 3:
        return images
    return torch.einsum("ij,bjhw->bihw", color_matrix().to(images), images)


def decorrelate_colors(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The inverse of ``correlated``."""
    if images.shape[1] != 3:
        return images
    return torch.einsum("ij,bjhw->bihw", color_matrix().inverse().to(images), images)


def compute_frequency_scale(height: int, width: int) -> Float[Tensor, "height half"]:
    """1 / max(f, 1 / max(width, height)) for each coefficient of ``torch.fft.rfft2``, f in cycles a pixel."""
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    return 1 / torch.sqrt(down**2 + right**2).clamp(min=1 / max(width, height))


class FourierImage:
    """Pictures as scaled Fourier coefficients, decorrelated colours and a sigmoid; values stay inside (0, 1).

    A coefficient's real and imaginary part begin as N(0, 0.01 squared); the picture is the orthonormal inverse
    transform of the scaled coefficients divided by 4, its colours correlated, its sigmoid normalised for the network.
    size: (height, width) of the pictures.
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
        """The normalised pictures."""
        scaled = torch.view_as_complex(self._coefficients) * self._scale
        plain = torch.fft.irfft2(scaled, s=self._size, norm="ortho") / 4
        return normalize(torch.sigmoid(correlate_colors(plain)), self._preprocess)

    def clamp_(self) -> None:
        """Nothing: the sigmoid keeps the range."""


def plan(encoder: Encoder, units: Sequence[Unit], options: BaselineOptions) -> SynthesisPlan:
    """Fourier feature visualization: 512 steps of Adam, as much of the unit as there can be.

    Own settings: ``lr``, 0.05. ``views``: "wander", as published, or "crops", MACO's crops and noise, which VITAL's
    comparison gives it together with ``lr=1``; ``crops``, how many of them a step.

    Raises:
        UsageError: unknown views.
    """
    own = own_settings(options, {"lr": 0.05, "views": "wander", "crops": 1}, "fourier")
    if own["views"] not in ("wander", "crops"):
        raise UsageError(f"views are 'wander' or 'crops', not {own['views']!r}")
    size, window = picture_size(encoder, options), encoder.preprocess.size
    wander = own["views"] == "wander"
    steps = number_of_steps(options, 512)
    stage = Stage(
        start=lambda _, generators: FourierImage(encoder.preprocess, size, generators, encoder.device),
        steps=steps,
        optimizer=Optimizer(lr=own["lr"], betas=(0.9, 0.999)),
        schedule=constant,
        transform=Wander(window, mid_gray(encoder.preprocess)) if wander else NoisyCrops(window, own["crops"]),
    )
    if wander:
        del own["crops"]
    return SynthesisPlan(
        (stage,), Maximize(encoder, units), {"method": "fourier", "steps": steps, "size": list(size), **own}
    )
