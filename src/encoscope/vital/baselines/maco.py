"""MACO (Fel et al. 2023): only an image's phase is optimized; its magnitude spectrum is that of natural images."""

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
from encoscope.store.passes import Mean, Shard, run_pass
from encoscope.units import Unit
from encoscope.vital.baselines.fourier import correlate_colors, decorrelate_colors
from encoscope.vital.baselines.losses import Maximize, choose_size
from encoscope.vital.settings import MacoSettings
from encoscope.vital.synthesis.loop import Optimizer, Stage
from encoscope.vital.synthesis.parametrization import denormalize, normalize
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.synthesis.random import Generators, draw_normal
from encoscope.vital.synthesis.schedule import constant
from encoscope.vital.synthesis.views import NoisyCrops


def compute_mean_magnitude(
    batches: Iterable[Float[Tensor, "_ channels _ _"]], preprocess: Preprocess, size: tuple[int, int]
) -> Float[Tensor, "channels rows half"]:
    """Compute the mean magnitude of images' real Fourier coefficients, in decorrelated colors.

    Args:
        batches: Normalized images, summed batch by batch.
        preprocess: The network's preprocessing.
        size: (height, width) that the spectrum is for; images of another size are resized (bilinear, antialiased).

    Returns:
        The magnitudes, [channels, height, width // 2 + 1].

    Raises:
        UsageError: When there is no image.
    """

    def read_magnitudes(shard: Shard) -> Iterator[tuple[Tensor, int]]:
        for batch in shard.select(batches):
            images = denormalize(batch, preprocess)
            if images.shape[2:] != size:
                images = functional.interpolate(images, size, mode="bilinear", antialias=True)
            yield torch.fft.rfft2(decorrelate_colors(images)).abs().double().sum(0), len(batch)

    mean = run_pass(read_magnitudes, Mean())
    if not mean.count:
        raise UsageError("MACO takes its magnitude spectrum from images: give references, or any images")
    return mean.finalize().float()


class PhaseImage:
    """Images of one fixed magnitude spectrum with free phases; values stay inside (0, 1).

    The inverse transform of magnitude and phase, standardized over the whole image, its colors correlated, a sigmoid,
    normalized for the network. Phases begin as N(0, 1).

    Args:
        magnitude: The spectrum, as ``compute_mean_magnitude`` gives it, of images of ``size``.
        preprocess: The network's preprocessing.
        size: (height, width) of the images.
        generators: The generator of each image.
        device: Where the phases are.

    Raises:
        UsageError: For a spectrum of another shape than that of the images.
    """

    def __init__(
        self,
        magnitude: Float[Tensor, "channels height half"],
        preprocess: Preprocess,
        size: tuple[int, int],
        generators: Generators,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (preprocess.channels, size[0], size[1] // 2 + 1)
        if magnitude.shape != shape:
            raise UsageError(f"a magnitude spectrum of shape {tuple(magnitude.shape)} where {shape} is needed")
        self._magnitude = magnitude.to(device)
        self._phase = draw_normal(generators, *shape).to(device).requires_grad_()
        self._preprocess, self._size = preprocess, size

    def parameters(self) -> list[Tensor]:
        """The phases, [batch, channels, height, width // 2 + 1]."""
        return [self._phase]

    def image(self) -> Float[Tensor, "batch channels height width"]:
        """The normalized images."""
        coefficients = torch.polar(self._magnitude.expand_as(self._phase), self._phase)
        plain = torch.fft.irfft2(coefficients, s=self._size)
        centered = plain - plain.mean((1, 2, 3), keepdim=True)
        standard = centered / (centered.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-5)
        return normalize(torch.sigmoid(correlate_colors(standard)), self._preprocess)

    def clamp_(self) -> None:
        """Do nothing: any phase is allowed."""


def plan(encoder: Encoder, units: Sequence[Unit], settings: MacoSettings, images: Any = None) -> SynthesisPlan:
    """Plan MACO as VITAL's comparison has it: Adam at learning rate 1, crops with sides of N(0.25, 0.1).

    Args:
        encoder: The encoder.
        units: The units.
        settings: The method's settings.
        images: Where the magnitude spectrum is taken from if the settings have none: paths, folders, dataset strings.

    Returns:
        The plan.

    Raises:
        UsageError: Without a spectrum and without a readable image, and for a size that is too small.

    Source: MACO (Fel et al. 2023), which has NAdam and crops that shrink during the run.
    """
    size = choose_size(encoder, settings.size)
    magnitude = settings.magnitude
    if magnitude is None:
        magnitude = compute_mean_magnitude(_batches(encoder, images), encoder.preprocess, size)
    magnitude = torch.as_tensor(magnitude, dtype=torch.float32)
    stage = Stage(
        start=lambda _, generators: PhaseImage(magnitude, encoder.preprocess, size, generators, encoder.device),
        steps=settings.steps,
        optimizer=Optimizer(lr=1.0, betas=(0.9, 0.999), kind=settings.optimizer),
        schedule=constant,
        transform=NoisyCrops(encoder.preprocess.size, settings.n_views, settings.crop_side),
    )
    digest = hashlib.sha256(magnitude.numpy().tobytes()).hexdigest()
    record = {"method": "maco", **settings.as_dict(), "size": list(size), "magnitude": digest}
    return SynthesisPlan((stage,), Maximize(encoder, units), record)


def _batches(encoder: Encoder, sources: Any) -> Iterator[Float[Tensor, "batch channels height width"]]:
    """Images one by one, normalized; what cannot be read is left out."""
    for image in read_images([] if sources is None else sources, channels=encoder.preprocess.image_channels):
        if isinstance(image, LoadedImage):
            yield encoder.prepare(image).pixels
