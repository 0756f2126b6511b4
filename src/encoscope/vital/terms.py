"""What can be added to VITAL's objective: variants of a unit that differ, and a photo that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.vital.matching import Values, flatten_values


@runtime_checkable
class ObjectiveTerm(Protocol):
    """An additional loss of each image."""

    name: str
    """What the record calls it."""

    def __call__(self, values: Mapping[str, Values], images: Tensor, indices: Sequence[int]) -> Float[Tensor, " batch"]:
        """Compute the loss of each image.

        Args:
            values: The activations that are matched, without relevance, by layer.
            images: The images that the network saw, or of a photo beside each what ``Beside`` gave for it.
            indices: Which targets of the run the images belong to.

        Returns:
            The losses.
        """
        ...


class GramDiversity:
    """How much each image's Gram matrix is like those of the other images of the batch, all variants of one unit.

    Args:
        layer: The layer; its channels are centered over the positions.
        weight: The weight of the mean cosine similarity.

    Source: the diversity term of Olah, Mordvintsev and Schubert, Feature Visualization, 2017.
    """

    name = "diversity"

    def __init__(self, layer: str, weight: float) -> None:
        self._layer, self._weight = layer, weight

    def __call__(self, values: Mapping[str, Values], images: Tensor, indices: Sequence[int]) -> Float[Tensor, " batch"]:
        """Compute each image's mean cosine similarity with the others, times the weight."""
        maps = values[self._layer]
        if len(maps) < 2:
            return maps.new_zeros(len(maps))
        centered = maps - maps.mean(2, keepdim=True)
        grams = torch.nn.functional.normalize((centered @ centered.transpose(1, 2)).flatten(1), dim=1)
        similarity = grams @ grams.T
        others = similarity.sum(1) - similarity.diagonal()
        return self._weight * others / (len(maps) - 1)


class KeepImage:
    """How far each image's activations are from those of the photo that it began as, divided by its strength.

    In each layer the mean square difference counts as a share of the photo's own variance over its positions.

    Args:
        encoder: The encoder.
        layers: The layers.
        strengths: For each target of the run how much its unit counts beside the photo.

    Source: after the regularizer of feature accentuation (Hamblin et al. 2024), which keeps one layer's activations.
    """

    name = "photo"

    def __init__(self, encoder: Encoder, layers: Sequence[str], strengths: Sequence[float]) -> None:
        self._encoder, self._layers, self._strengths = encoder, tuple(layers), tuple(strengths)

    def __call__(self, values: Mapping[str, Values], images: Tensor, indices: Sequence[int]) -> Float[Tensor, " batch"]:
        """Compute each image's distance to the photo."""
        seen = self._encoder.observe(images, self._layers).activations
        shares = []
        for layer in self._layers:
            original = flatten_values(seen[layer])
            variance = (original - original.mean(2, keepdim=True)).square().mean((1, 2))
            difference = (values[layer] - original).square().mean((1, 2))
            shares.append(difference / variance.clamp(min=torch.finfo(variance.dtype).tiny))
        strengths = torch.tensor([self._strengths[index] for index in indices]).to(shares[0])
        return torch.stack(shares).mean(0) / strengths


def choose_kept_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """Choose the layers whose activations a photo keeps: the first half of those that are matched, at least one.

    Args:
        layers: The layers that are matched, in the network's order.

    Returns:
        The layers.

    Example:
        >>> choose_kept_layers(["stem", "layer1", "layer2", "layer3", "layer4"])
        ('stem', 'layer1')
    """
    return tuple(layers[: max(1, len(layers) // 2)])
