"""List the layers of a network."""

from __future__ import annotations

from torch import nn

from encoscope.encoder.convert import as_encoder
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.types import LayerInfo
from encoscope.errors import explain_calls
from encoscope.zoo.registry import DEFAULT_MODEL


@explain_calls
def list_layers(encoder: Encoder | nn.Module | str = DEFAULT_MODEL, *, all: bool = False) -> list[LayerInfo]:
    """List the layers of an encoder that have a spatial output, in the network's order.

    Args:
        encoder: An encoder, a module, or a source string such as "timm:resnet50"; the default as in ``load``.
        all: All such layers, the inner ones of stages and blocks too.

    Returns:
        For each layer its name, channels, grid, kind, prefix tokens and role. The names are what ``layers`` takes in
        ``segment`` and other functions.

    Raises:
        UsageError: For an unknown source.
        MissingError: For weights that are not available.

    Example:
        >>> [layer.name for layer in encoscope.layers("timm:resnet10t@untrained")]  # doctest: +SKIP
        ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    return [layer for layer in as_encoder(encoder).layers if all or layer.role != "inner"]
