"""Attribution by one more forward pass and a gradient: guided backprop, and gradient times input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import ModuleOutput, find_first_tensor, removing_hooks
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance.attributor import Attributor
from encoscope.relevance.modes import DetachedMode, GuidedMode


class GuidedBackprop(Attributor):
    """Guided backprop: the gradient of a unit's value, cut to its positive part at each ReLU it comes to.

    A layer's relevance is the guided gradient that gets to its output; a ReLU that ends the layer has not cut it yet.
    """

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        mode = GuidedMode()
        found = _gradients(self, pixels, mode)
        if not mode.count:
            raise UsageError(
                f"guided backprop works at ReLUs, and {self.encoder.source} passes none that can be seen before "
                f"{self.targets.distinct[0].text}: use method='gradient-input'"
            )
        return {name: gradient for name, (_, gradient) in found.items()}


class GradientInput(Attributor):
    """Gradient times input: the gradient of a unit's value times the activation, at each layer.

    For networks LRP does not reach (DenseNet, ConvNeXt, ViT), where the VITAL paper uses no relevance at all: this
    library's extension. The variances of layer, group and RMS norms and the weights of attention count as constants, as
    in conservative propagation through transformers (Ali et al., ICML 2022), which AttnLRP (Achtibat et al., ICML 2024)
    goes on from; batch norm is a fixed linear map anyway. For a network without such parts it is plain autograd's.
    """

    def _relevance(self, pixels: Tensor) -> Mapping[str, Tensor]:
        found = _gradients(self, pixels, DetachedMode())
        return {name: maps * gradient for name, (maps, gradient) in found.items()}


def _gradients(attributor: Attributor, pixels: Tensor, mode: Any = None) -> dict[str, tuple[Tensor, Tensor]]:
    """For each layer its maps and the gradient of the images' units, both [B, C, H, W] and without a graph."""
    encoder = attributor.encoder
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., ModuleOutput]:
        def hook(_module: nn.Module, _args: Any, output: ModuleOutput) -> ModuleOutput:
            tensor = find_first_tensor(output)
            if tensor is None:
                return None
            if output is not tensor:
                kept[name] = tensor
                return None
            # A view: a hook on the tensor itself, as of a ReLU that made it, belongs to what comes below the layer.
            # The network goes on with a copy of it, which it may change in place.
            kept[name] = tensor.view_as(tensor)
            return kept[name].clone()

        return hook

    images = pixels.detach().requires_grad_()
    with removing_hooks([]) as handles, mode or nullcontext():
        for name in attributor.layers:
            handles.append(encoder.module.get_submodule(name).register_forward_hook(keep(name)))
        seen = encoder.observe(images, **attributor.targets.needs, gradients=True)
    names = [name for name in attributor.layers if name in kept and kept[name].requires_grad]
    with torch.enable_grad():
        objective = attributor.targets.objective(seen)
    if not objective.requires_grad or not names:
        raise EncoscopeError(
            f"{encoder.source} gives no gradient from {attributor.targets.distinct[0].text} to the layers: "
            "its forward pass cuts the graph"
        )
    gradients = torch.autograd.grad(objective, [kept[name] for name in names], allow_unused=True)
    canvas = (pixels.shape[2], pixels.shape[3])
    return {
        name: (
            encoder.as_activation(name, kept[name].detach(), canvas).maps,
            encoder.as_activation(name, gradient, canvas).maps,
        )
        for name, gradient in zip(names, gradients, strict=True)
        if gradient is not None
    }
