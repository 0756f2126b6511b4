"""The rest of a network from a layer on: what it answers when that layer's maps are others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from encoscope.encoder import layouts
from encoscope.encoder.capture import ModuleOutput, find_first_tensor, removing_hooks
from encoscope.encoder.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError


def substitute_maps(
    encoder: Encoder,
    pixels: Float[Tensor, "batch channels height width"],
    layer: str,
    maps: Float[Tensor, "batch layerchannels rows columns"],
) -> Float[Tensor, "batch classes"]:
    """The logits of normalised images when a layer puts out these maps instead of its own.

    Prefix tokens stay as the images make them. Raises UsageError for maps of another shape than the layer's and for
    tokens that the network keeps in an order of its own.
    """
    found = encoder._discovery.layers[encoder.layer(layer).name]
    canvas = (pixels.shape[2], pixels.shape[3])
    calls = 0

    def hook(_module: nn.Module, _inputs: Any, output: ModuleOutput) -> ModuleOutput:
        nonlocal calls
        calls += 1
        tensor = find_first_tensor(output)
        if calls < found.calls or tensor is None:
            return None
        own = layouts.read_activation(tensor, found.layout, canvas)
        if own is None or own.maps.shape != maps.shape:
            shape = "none" if own is None else tuple(own.maps.shape)
            raise UsageError(f"maps of shape {tuple(maps.shape)} cannot replace those of layer {layer!r}: {shape}")
        written = layouts.write_maps(tensor, found.layout, maps)
        if written is None:
            raise UsageError(f"layer {layer!r} keeps its tokens in an order of its own: choose another layer")
        return _with(output, tensor, written)

    with removing_hooks([]) as handles:
        handles.append(encoder.module.get_submodule(layer).register_forward_hook(hook))
        logits = encoder.logits(pixels)
    if calls < found.calls:
        raise EncoscopeError(f"layer {layer!r} was not called as often as in the trial run")
    return logits


def _with(output: ModuleOutput, old: Tensor, new: Tensor) -> ModuleOutput:
    """The same output with one of its tensors exchanged."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        other: Any = copy.copy(output)  # its own class: a model output of transformers, not a plain dict
        for name, value in output.items():
            if find_first_tensor(value) is old:
                other[name] = _with(value, old, new)
        return other
    if isinstance(output, (tuple, list)):
        items = [_with(item, old, new) if find_first_tensor(item) is old else item for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    return output
