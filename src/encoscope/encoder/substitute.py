"""Replace the maps of a layer and compute the rest of the network from them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from encoscope.encoder import layouts
from encoscope.encoder.capture import ModuleOutput, list_tensors, removing_hooks
from encoscope.encoder.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError


def substitute_maps(
    encoder: Encoder,
    pixels: Float[Tensor, "batch channels height width"],
    layer: str,
    maps: Float[Tensor, "batch layerchannels rows columns"],
) -> Float[Tensor, "batch classes"]:
    """Compute the logits of images after replacing the maps of a layer.

    The layer's prefix tokens stay as the network computes them from the images.

    Args:
        encoder: An encoder with a classification head.
        pixels: The normalized images.
        layer: The layer's name.
        maps: The maps that replace the layer's own, of the same shape.

    Returns:
        The logits.

    Raises:
        UsageError: For maps of another shape than the layer's, for a layer whose tokens the network keeps in an order
            of its own, and for a network without a classification head.
    """
    spatial_layer = encoder._discovery.layers[encoder.layer(layer).name]
    canvas = (pixels.shape[2], pixels.shape[3])
    calls = 0

    def hook(_module: nn.Module, _inputs: Any, output: ModuleOutput) -> ModuleOutput:
        nonlocal calls
        calls += 1
        tensor = spatial_layer.location.find_tensor(output)
        if calls != spatial_layer.location.calls or tensor is None:
            return None
        own = layouts.read_activation(tensor, spatial_layer.layout, canvas)
        if own is None or own.maps.shape != maps.shape:
            shape = "none" if own is None else tuple(own.maps.shape)
            raise UsageError(
                f"maps of shape {tuple(maps.shape)} cannot replace those of layer {layer!r}, whose shape is {shape}"
            )
        replacement = layouts.write_maps(tensor, spatial_layer.layout, maps, canvas)
        if replacement is None:
            raise UsageError(f"layer {layer!r} keeps its tokens in an order of its own: choose another layer")
        return _replace_tensor(output, tensor, replacement)

    with removing_hooks([]) as handles:
        handles.append(encoder.module.get_submodule(spatial_layer.location.module).register_forward_hook(hook))
        logits = encoder.logits(pixels)
    if calls < spatial_layer.location.calls:
        raise EncoscopeError(f"layer {layer!r} was called less often than in the trial run")
    return logits


def _replace_tensor(output: ModuleOutput, old: Tensor, new: Tensor) -> ModuleOutput:
    """The same output with one of its tensors replaced."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        other: Any = copy.copy(output)  # its own class: a model output of transformers, not a plain dict
        for name, value in output.items():
            if _holds(value, old):
                other[name] = _replace_tensor(value, old, new)
        return other
    if isinstance(output, (tuple, list)):
        items = [_replace_tensor(item, old, new) if _holds(item, old) else item for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        other = copy.copy(output)
        for field in dataclasses.fields(output):
            value = getattr(output, field.name)
            if _holds(value, old):
                object.__setattr__(other, field.name, _replace_tensor(value, old, new))  # frozen ones, too
        return other
    return output


def _holds(output: ModuleOutput, tensor: Tensor) -> bool:
    return any(each is tensor for each in list_tensors(output))
