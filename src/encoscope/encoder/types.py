"""What an encoder hands out: layers, and feature maps in one layout whatever the network's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr

LayerKind: TypeAlias = Literal["map", "tokens"]
LayerRole: TypeAlias = Literal["stem", "stage", "block", "inner"]


@dataclass(frozen=True)
class LayerInfo:
    """A layer with a spatial output, as found by running the network once at its own input size.

    name: as in ``module.named_modules()``.
    kind: "map" (convolutional layout, NCHW or NHWC) or "tokens" (a sequence with a patch grid).
    channels: C of its activation. grid: (rows, columns) at the network's own input size.
    prefix: tokens before the patch tokens (class, distillation, registers); 0 for maps.
    role: "stage" (the last output at a resolution), "block" (a repeated block), "stem", or "inner" (all others).
    """

    name: str
    kind: LayerKind
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    role: LayerRole = "inner"


@concise_repr
@dataclass(frozen=True)
class Activation:
    """One layer's output for a batch: spatial maps, and the prefix tokens where the network has them."""

    maps: Float[Tensor, "batch channels height width"]
    prefix: Float[Tensor, "batch prefix channels"] | None = None


@concise_repr
@dataclass(frozen=True)
class Observation:
    """What one forward pass showed of a batch: some layers' outputs, and the features and logits if asked for."""

    activations: dict[str, Activation]
    features: Float[Tensor, "batch features"] | None = None
    logits: Float[Tensor, "batch classes"] | None = None
