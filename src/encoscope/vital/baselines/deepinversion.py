"""DeepInversion (Yin et al. 2020): images of a class on which batch normalization has its statistics of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoscope.encoder import Encoder
from encoscope.encoder.capture import removing_hooks
from encoscope.encoder.lock import hold_module
from encoscope.errors import UsageError
from encoscope.units import Unit
from encoscope.vital.baselines.losses import (
    choose_input_size,
    compute_cross_entropy,
    compute_logits,
    require_classes,
)
from encoscope.vital.settings import DeepInversionSettings
from encoscope.vital.smoothness import compute_l2_norm, compute_total_variation
from encoscope.vital.synthesis.loop import Losses, Optimizer, Stage
from encoscope.vital.synthesis.parametrization import start_from_noise
from encoscope.vital.synthesis.plan import SynthesisPlan
from encoscope.vital.synthesis.transforms import Images, Roll

_FIRST_FACTOR = 10.0  # of the first normalization
_ROLL = 30 / 224  # of the image's side


class BatchStatistics:
    """Cross-entropy of each image's class, and the distance of the batch's statistics from those the network keeps.

    The distance belongs to the whole batch by definition, so an image depends on those beside it. Each image's loss
    has all of it, so that the sum over the batch is the published loss (a mean over the batch) times its size.

    Args:
        encoder: The encoder, a classifier.
        targets: The class of each unit of the run.
        statistics_weight: The weight of the distance.
        tv_weight: The weight of each image's total variation.
        l2_weight: The weight of each image's l2 norm.

    Raises:
        UsageError: For a network that keeps no statistics.

    Source: DeepInversion (Yin et al. 2020), equations 3 and 4.
    """

    def __init__(
        self,
        encoder: Encoder,
        targets: Sequence[int],
        *,
        statistics_weight: float = 0.05,
        tv_weight: float = 1e-4,
        l2_weight: float = 1e-5,
    ) -> None:
        self._layers = find_batch_norms(encoder.module)
        if not self._layers:
            raise UsageError(
                f"DeepInversion needs batch normalisation, and {encoder.source} has none that keeps statistics: use "
                "vital, fourier, maco or plugin"
            )
        self._encoder, self._targets = encoder, tuple(targets)
        self._weights = (statistics_weight, tv_weight, l2_weight)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the losses of the batch.

        Args:
            images: The images of all units.
            rows: Which units of the run.

        Returns:
            The losses of each image.
        """
        statistics_weight, tv_weight, l2_weight = self._weights
        with hold_module(self._encoder.module), recording_distances(self._layers) as distances:
            scores = compute_logits(self._encoder, images)
        classified = compute_cross_entropy(scores, self._targets[rows])
        factors = [_FIRST_FACTOR, *[1.0] * (len(distances) - 1)]
        weighted = torch.stack([factor * each for factor, each in zip(factors, distances, strict=True)])
        matched = (statistics_weight * weighted.sum()).expand(len(images))
        return Losses(
            classified + matched,
            tv_weight * compute_total_variation(images) + l2_weight * compute_l2_norm(images),
            {"cross-entropy": classified, "statistics": matched},
        )


def find_batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Find the batch normalizations of a network that keep running statistics.

    Args:
        module: The network.

    Returns:
        The layers, in the network's order.
    """
    return [child for child in module.modules() if isinstance(child, _BatchNorm) and child.running_mean is not None]


@contextmanager
def recording_distances(layers: Sequence[_BatchNorm]) -> Iterator[list[Float[Tensor, ""]]]:
    """Record the distance of each forward pass of some layers while the context is open.

    Args:
        layers: Batch normalizations.

    Yields:
        A list that grows by one distance for each pass, in the order of the passes.
    """
    distances: list[Tensor] = []

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(layer, _BatchNorm):
            distances.append(compute_distance(args[0], layer))

    with removing_hooks([]) as handles:
        handles += [layer.register_forward_pre_hook(keep) for layer in layers]
        yield distances


def compute_distance(inputs: Float[Tensor, "batch channels ..."], layer: _BatchNorm) -> Float[Tensor, ""]:
    """Compute ||var - running var||_2 + ||mean - running mean||_2 of the input of a batch normalization.

    Args:
        inputs: The layer's input; mean and (biased) variance of each channel are over batch and space.
        layer: The layer.

    Returns:
        The distance.

    Raises:
        UsageError: For a layer that keeps no statistics.

    Source: DeepInversion (Yin et al. 2020), equation 4.
    """
    if layer.running_mean is None or layer.running_var is None:
        raise UsageError("this batch normalization keeps no statistics")
    values = inputs.float().transpose(0, 1).flatten(1)
    variance, mean = torch.var_mean(values, 1, correction=0)
    return (variance - layer.running_var).norm() + (mean - layer.running_mean).norm()


def plan(encoder: Encoder, units: Sequence[Unit], settings: DeepInversionSettings, images: Any = None) -> SynthesisPlan:
    """Plan DeepInversion as VITAL's comparison has it: Adam, with VITAL's start, schedule and clamp.

    The roll is by up to 30 pixels of 224, in proportion for other sizes. All units of a batch are made together.

    Args:
        encoder: The encoder.
        units: The units.
        settings: The method's settings.
        images: Not used: this method needs no images.

    Returns:
        The plan.

    Raises:
        UsageError: For a unit that is no class, a network without batch normalization, and a size that the network does
            not take.

    Source: DeepInversion (Yin et al. 2020).
    """
    targets = require_classes(units, "DeepInversion")
    objective = BatchStatistics(
        encoder,
        targets,
        statistics_weight=settings.statistics_weight,
        tv_weight=settings.tv_weight,
        l2_weight=settings.l2_weight,
    )
    size = choose_input_size(encoder, settings.size, "DeepInversion")
    stage = Stage(
        start=lambda _, generators: start_from_noise(encoder.preprocess, size, generators, encoder.device),
        steps=settings.steps,
        optimizer=Optimizer(lr=settings.lr),
        transform=Roll(round(_ROLL * min(size))),
    )
    record = {"method": "deepinversion", **settings.as_dict(), "size": list(size)}
    return SynthesisPlan((stage,), objective, record, together=True)
