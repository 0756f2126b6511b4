"""Replace the maps of a layer and compute the rest of the network from them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from encoscope.encoder import layouts
from encoscope.encoder.capture import watching_outputs
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
    replaced = False
    _ = encoder.outputs  # found by a run of its own

    def watch(_name: str, call: int, tensor: Tensor) -> Tensor | None:
        nonlocal replaced
        if call != spatial_layer.location.calls:
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
        replaced = True
        return replacement

    with watching_outputs(encoder.module, {layer: spatial_layer.location}, watch):
        logits = encoder.logits(pixels)
    if not replaced:
        raise EncoscopeError(f"layer {layer!r} was called less often than in the trial run")
    return logits
