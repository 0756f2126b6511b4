"""MACO (Fel et al. 2023): only a picture's phase is optimised, its magnitude spectrum is that of natural images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import LoadedImage, Preprocess, read_images
from encoscope.units import Unit
from encoscope.vital.baselines.fourier import correlate_colors, decorrelate_colors
from encoscope.vital.baselines.losses import Maximize, number_of_steps, own_settings, picture_size
from encoscope.vital.baselines.registry import BaselineOptions, SynthesisPlan
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import denormalize, normalize
from encoscope.vital.synthesis.random import Generators, draw_normal
from encoscope.vital.synthesis.schedule import constant
from encoscope.vital.synthesis.views import NoisyCrops


def compute_mean_magnitude(
    batches: Iterable[Float[Tensor, "_ channels _ _"]], preprocess: Preprocess, size: tuple[int, int]
) -> Float[Tensor, "channels rows half"]:
    """The mean magnitude of images' real Fourier coefficients, in decorrelated colours, summed batch by batch.

    batches: normalised images. size: (height, width) that the spectrum is for; images of another size are resized
    (bilinear, antialiased) to it, so that the spectrum is made at the size it is used at.

    Raises:
        UsageError: no image.
    """
    total, count = None, 0
    for batch in batches:
        images = denormalize(batch, preprocess)
        if images.shape[2:] != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        magnitude = torch.fft.rfft2(decorrelate_colors(images)).abs().double().sum(0)
        total, count = magnitude if total is None else total + magnitude, count + len(batch)
    if total is None:
        raise UsageError("MACO takes its magnitude spectrum from images: give references, or any photos")
    return (total / count).float()


class PhaseImage:
    """Pictures of one fixed magnitude spectrum, their phases free; values stay inside (0, 1).

    The inverse transform of magnitude and phase, standardised over the whole picture, its colours correlated, a
    sigmoid, normalised for the network. Phases begin as N(0, 1).
    magnitude: as ``mean_magnitude`` gives it, of pictures of ``size``.

    Raises:
        UsageError: a magnitude of another shape than the pictures' spectrum.
    """

    def __init__(
        self,
        magnitude: Float[Tensor, "channels height half"],
        preprocess: Preprocess,
        size: tuple[int, int],
        generators: Generators,
        device: torch.device | str = "cpu",
    ) -> None:
        wanted = (preprocess.channels, size[0], size[1] // 2 + 1)
        if magnitude.shape != wanted:
            raise UsageError(f"a magnitude spectrum of shape {tuple(magnitude.shape)} where {wanted} is needed")
        self._magnitude = magnitude.to(device)
        self._phase = draw_normal(generators, *wanted).to(device).requires_grad_()
        self._preprocess, self._size = preprocess, size

    def parameters(self) -> list[Tensor]:
        """The phases, [batch, channels, height, width // 2 + 1]."""
        return [self._phase]

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The normalised pictures."""
        coefficients = torch.polar(self._magnitude.expand_as(self._phase), self._phase)
        plain = torch.fft.irfft2(coefficients, s=self._size)
        centred = plain - plain.mean((1, 2, 3), keepdim=True)
        standard = centred / (centred.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-5)
        return normalize(torch.sigmoid(correlate_colors(standard)), self._preprocess)

    def clamp_(self) -> None:
        """Nothing: any phase is allowed."""


def plan(encoder: Encoder, units: Sequence[Unit], options: BaselineOptions) -> SynthesisPlan:
    """MACO as VITAL's comparison has it: 256 steps of Adam at learning rate 1, crops with sides of N(0.25, 0.1).

    Own settings: ``crops``, 32, views a step (the original's number; VITAL tells none). ``side``, 0.25, their mean
    side. ``optimizer``: "adam", or "nadam" as first published (there with crops that shrink as it goes on).
    ``magnitude``: the spectrum, [channels, height, width // 2 + 1], as ``mean_magnitude`` gives it; else it is taken
    from ``options.photos``, which are read once a plan.

    Raises:
        UsageError: neither a spectrum nor a readable photo to take it from, and settings out of range.
    """
    defaults = {"crops": 32, "side": 0.25, "optimizer": "adam", "magnitude": None}
    own = own_settings(options, defaults, "maco")
    size, steps = picture_size(encoder, options), number_of_steps(options, 256)
    if own["crops"] < 1 or not 0 < own["side"] <= 1 or own["optimizer"] not in ("adam", "nadam"):
        raise UsageError(f"MACO takes crops >= 1, a side in (0, 1] and optimizer adam or nadam, not {own}")
    magnitude = own.pop("magnitude")
    if magnitude is None:
        magnitude = compute_mean_magnitude(_batches(encoder, options.photos), encoder.preprocess, size)
    magnitude = torch.as_tensor(magnitude, dtype=torch.float32)
    stage = Stage(
        start=lambda _, generators: PhaseImage(magnitude, encoder.preprocess, size, generators, encoder.device),
        steps=steps,
        optimizer=Optimizer(lr=1.0, betas=(0.9, 0.999), kind=own["optimizer"]),
        schedule=constant,
        transform=NoisyCrops(encoder.preprocess.size, own["crops"], own["side"]),
    )
    digest = hashlib.sha256(magnitude.numpy().tobytes()).hexdigest()
    settings = {"method": "maco", "steps": steps, "size": list(size), **own, "magnitude": digest}
    return SynthesisPlan((stage,), Maximize(encoder, units), settings)


def _batches(encoder: Encoder, sources: Any) -> Iterator[Float[Tensor, "batch channels height width"]]:
    """Photos one by one, normalised; what cannot be read is left out."""
    for photo in read_images([] if sources is None else sources, channels=encoder.preprocess.channels):
        if isinstance(photo, LoadedImage):
            yield encoder.prepare(photo).pixels
