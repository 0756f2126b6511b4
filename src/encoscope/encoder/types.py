"""What an encoder returns: layers, and feature maps in one layout whatever the network's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr

LayerKind: TypeAlias = Literal["map", "tokens"]
LayerRole: TypeAlias = Literal["stem", "stage", "block", "inner"]
ClassOrder: TypeAlias = Literal["numeric", "text", "index", "none"]

CLASS_ORDERS: tuple[str, ...] = get_args(ClassOrder)
"""How labels that are no class names stand for classes: in this order, by the number in them, or not at all."""


@dataclass(frozen=True)
class LayerInfo:
    """A layer with a spatial output, as one run of the network at its own input size showed it.

    Attributes:
        name: Its name in ``module.named_modules()``; ``NAME#i`` for the map in the i-th tensor that a module gives, if
            it gives several maps; ``NAME#relu`` for what the function ``relu`` gives, which the network applies to it.
        kind: "map" (convolutional layout, NCHW or NHWC) or "tokens" (a sequence with a patch grid).
        channels: Number of channels of its activation.
        grid: (rows, columns) of its map at the network's own input size.
        prefix: Number of tokens that belong to no cell of the grid (class, distillation, registers, prompts), wherever
            in the sequence they stand; 0 for maps.
        role: "stage" (the last output at a resolution, after its norm and activation), "block" (a repeated block),
            "stem", or "inner" (all others).
        followed_by: The function after which alone the network uses this output, if that is a norm or an activation
            that is a function and no module ("relu"): the layer ``NAME#relu`` is read after it. Empty if there is none.
    """

    name: str
    kind: LayerKind
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    role: LayerRole = "inner"
    followed_by: str = ""


@concise_repr
@dataclass(frozen=True)
class Activation:
    """One layer's output for a batch.

    Attributes:
        maps: The spatial map of each channel, ``[batch, channels, height, width]``.
        prefix: The tokens that belong to no cell of the map, in the sequence's order, ``[batch, prefix, channels]``;
            None if the layer has none.
    """

    maps: Float[Tensor, "batch channels height width"]
    prefix: Float[Tensor, "batch prefix channels"] | None = None


@concise_repr
@dataclass(frozen=True)
class Observation:
    """The results of one forward pass of a batch.

    Attributes:
        activations: The requested layers' outputs by name, in the network's order.
        features: The pooled features, ``[batch, features]``; None if they were not requested.
        logits: The logits, ``[batch, classes]``; None if they were not requested.
    """

    activations: dict[str, Activation]
    features: Float[Tensor, "batch features"] | None = None
    logits: Float[Tensor, "batch classes"] | None = None


def join_observations(parts: Sequence[Observation]) -> Observation:
    """Join the observations of consecutive pieces of a batch.

    Args:
        parts: The observations, of the same layers.

    Returns:
        The observation of the whole batch.
    """
    if len(parts) == 1:
        return parts[0]
    activations = {}
    for name in parts[0].activations:
        several = [part.activations[name] for part in parts]
        activations[name] = Activation(
            torch.cat([part.maps for part in several]), _cat([part.prefix for part in several])
        )
    return Observation(activations, _cat([part.features for part in parts]), _cat([part.logits for part in parts]))


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
