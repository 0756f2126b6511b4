"""Attribution by one more forward pass and a gradient: guided backprop and gradient times input."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from encoscope.encoder.capture import recording_outputs
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.modes import DetachedMode, GuidedMode


class GuidedBackprop(Attributor):
    """Guided backprop: the gradient of a unit's value, of which each rectifier passes on the positive part only.

    A layer's relevance is the guided gradient at its output, before a rectifier at the layer's end clips it.

    Source: Springenberg et al., Striving for Simplicity, 2015; for rectifiers other than ReLU an extension.
    """

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        mode = GuidedMode()
        gradients = _compute_gradients(self, pixels, mode)
        if not mode.count:
            raise UsageError(
                f"guided backprop needs ReLUs or their smooth forms, and {self.encoder.source} calls none before "
                f"{self.targets.distinct[0].text}: use method='gradient-input'"
            )
        return {name: gradient for name, (_, gradient) in gradients.items()}


class GradientInput(Attributor):
    """Gradient times input: the gradient of a unit's value times the activation, at each layer.

    This is an extension for networks that LRP does not support (DenseNet, ConvNeXt, ViT), for which the VITAL paper
    uses no relevance. The variances of layer, group and RMS norms and the weights of attention count as constants;
    batch norm is a fixed linear map. For a network without these layers it is the plain gradient times input.

    Source: Ali et al., ICML 2022, on which AttnLRP (Achtibat et al., ICML 2024) builds.
    """

    note = "relevance is gradient x input, an extension of this library"

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        gradients = _compute_gradients(self, pixels, DetachedMode())
        return {name: maps * gradient for name, (maps, gradient) in gradients.items()}


def _compute_gradients(attributor: Attributor, pixels: Tensor, mode: Any = None) -> dict[str, tuple[Tensor, Tensor]]:
    """For each layer its maps and the gradient of the units' values, both [B, C, H, W] and without a graph."""
    encoder = attributor.encoder
    locations = {name: encoder.locate(name) for name in attributor.layers}
    images = pixels.detach().requires_grad_()
    with mode or nullcontext(), recording_outputs(encoder.module, locations) as recorded:
        observation = encoder.observe(images, **attributor.targets.needs, gradients=True)
    edges = {name: output.edge for name, output in recorded.items() if output.edge is not None}
    with torch.enable_grad():
        objective = attributor.targets.compute_objective(observation)
    if not objective.requires_grad or not edges:
        raise EncoscopeError(
            f"{encoder.source} gives no gradient from {attributor.targets.distinct[0].text} to the layers: "
            "its forward pass interrupts the graph"
        )
    gradients = torch.autograd.grad(objective, list(edges.values()), allow_unused=True)
    canvas = (pixels.shape[2], pixels.shape[3])
    return {
        name: (
            encoder.as_activation(name, recorded[name].value.detach(), canvas).maps,
            encoder.as_activation(name, gradient, canvas).maps,
        )
        for name, gradient in zip(edges, gradients, strict=True)
        if gradient is not None
    }
