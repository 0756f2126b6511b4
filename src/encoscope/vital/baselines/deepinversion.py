"""DeepInversion (Yin et al. 2020): a class's picture under which batch normalisation sees what it saw in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoscope.encoder import Encoder
from encoscope.encoder.capture import removing_hooks
from encoscope.errors import UsageError
from encoscope.units import Unit
from encoscope.vital.baselines.losses import (
    compute_cross_entropy,
    compute_logits,
    number_of_steps,
    own_settings,
    own_size,
    require_classes,
)
from encoscope.vital.baselines.registry import BaselineOptions, SynthesisPlan
from encoscope.vital.objective import compute_l2_norm, compute_total_variation
from encoscope.vital.synthesis.loop import Losses, Optimizer, Stage
from encoscope.vital.synthesis.parametrization import start_from_noise
from encoscope.vital.synthesis.transforms import Images, Roll

_FIRST = 10.0  # the first normalisation counts so many times
_ROLL = 30 / 224  # of the picture's side


class BatchStatistics:
    """Cross-entropy of each image's class, and how far the batch's statistics are from those that the network keeps.

    The second part is of the whole batch by definition: an image does depend on those beside it, and each is charged
    all of it, so that the sum over the batch is the published loss (a mean over the batch) times its size.
    statistics, tv, norm: factors of that part, of total variation and of the l2 norm (both of each image by itself).

    Raises:
        UsageError: a network that keeps no statistics.
    """

    def __init__(
        self,
        encoder: Encoder,
        targets: Sequence[int],
        *,
        statistics: float = 0.05,
        tv: float = 1e-4,
        norm: float = 1e-5,
    ) -> None:
        self._layers = find_batch_norms(encoder.module)
        if not self._layers:
            raise UsageError(
                f"DeepInversion needs batch normalisation, and {encoder.source} has none that keeps statistics: use "
                "vital, fourier, maco or plugin"
            )
        self._encoder, self._targets = encoder, tuple(targets)
        self._factors = (statistics, tv, norm)

    def __call__(self, images: Images, rows: slice) -> Losses:
        """The losses of the batch."""
        statistics, tv, norm = self._factors
        with recording_distances(self._layers) as distances:
            scores = compute_logits(self._encoder, images)
        classified = compute_cross_entropy(scores, self._targets[rows])
        factors = [_FIRST, *[1.0] * (len(distances) - 1)]
        weighted = torch.stack([factor * found for factor, found in zip(factors, distances, strict=True)])
        matched = (statistics * weighted.sum()).expand(len(images))
        return Losses(
            classified + matched,
            tv * compute_total_variation(images) + norm * compute_l2_norm(images),
            {"cross-entropy": classified, "statistics": matched},
        )


def find_batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch normalisations of a network that keep running statistics."""
    return [child for child in module.modules() if isinstance(child, _BatchNorm) and child.running_mean is not None]


@contextmanager
def recording_distances(layers: Sequence[_BatchNorm]) -> Iterator[list[Float[Tensor, ""]]]:
    """While open, each layer's forward pass adds its distance to the list, in the order of the passes."""
    distances: list[Tensor] = []

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        distances.append(compute_distance(args[0], layer))

    with removing_hooks([]) as handles:
        handles += [layer.register_forward_pre_hook(keep) for layer in layers]
        yield distances


def compute_distance(inputs: Float[Tensor, "batch channels ..."], layer: _BatchNorm) -> Float[Tensor, ""]:
    """||var - running var||_2 + ||mean - running mean||_2 of what goes into a layer, over batch and space, per channel.

    The variance is the biased one.
    """
    assert layer.running_mean is not None
    assert layer.running_var is not None
    values = inputs.float().transpose(0, 1).flatten(1)
    variance, mean = torch.var_mean(values, 1, correction=0)
    return (variance - layer.running_var).norm() + (mean - layer.running_mean).norm()


def plan(encoder: Encoder, units: Sequence[Unit], options: BaselineOptions) -> SynthesisPlan:
    """DeepInversion as VITAL's comparison has it: 2,000 steps of Adam at 0.05, VITAL's start, schedule and clamp.

    The roll is by up to 30 pixels of 224, in proportion for other sizes. All units of a batch are made together.
    Own settings: ``lr``, 0.05; ``statistics``, 0.05, the factor of the distance (0.01 in the original's documentation);
    ``tv``, 1e-4, and ``l2``, 1e-5.

    Raises:
        UsageError: a unit that is no class, a network without batch normalisation, a size the network does not take.
    """
    own = own_settings(options, {"lr": 0.05, "statistics": 0.05, "tv": 1e-4, "l2": 1e-5}, "deepinversion")
    targets = require_classes(units, "DeepInversion")
    objective = BatchStatistics(encoder, targets, statistics=own["statistics"], tv=own["tv"], norm=own["l2"])
    size, steps = own_size(encoder, options, "DeepInversion"), number_of_steps(options, 2000)
    stage = Stage(
        start=lambda _, generators: start_from_noise(encoder.preprocess, size, generators, encoder.device),
        steps=steps,
        optimizer=Optimizer(lr=own["lr"]),
        transform=Roll(round(_ROLL * min(size))),
    )
    settings = {"method": "deepinversion", "steps": steps, "size": list(size), **own}
    return SynthesisPlan((stage,), objective, settings, together=True)
