"""Which layers NAVE reads when none are named."""

from __future__ import annotations

from collections.abc import Sequence

from encoscope.encoder import Encoder
from encoscope.errors import UsageError

STAGES = 3
"""The paper's choice for a convolutional network: the outputs of the last three stages (section 4.3)."""


def choose_layers(encoder: Encoder, layers: Sequence[str] | str | None = None) -> tuple[str, ...]:
    """Choose the layers to cluster.

    Args:
        encoder: The encoder.
        layers: Names, as a sequence or with commas; None takes the last three stages of a network that has stages (CNN,
            Swin, ...; section 4.3) and the last block of one that keeps its grid (ViT; section 4.2).

    Returns:
        The layers, in the network's order.

    Raises:
        UsageError: For an unknown or repeated layer, for a network without any spatial layer, and by default for one
            whose later tokens have a layout that could not be found.
    """
    if layers is None:
        return _default(encoder)
    names = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else list(layers)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"layer given twice: {', '.join(repeated)}")
    if not names or not all(names):
        raise UsageError(f"no layer name in {layers!r}")
    requested = {encoder.layer(name).name for name in names}
    return tuple(info.name for info in encoder.layers if info.name in requested)


def _default(encoder: Encoder) -> tuple[str, ...]:
    depths = encoder.depths
    if not depths:
        raise UsageError(f"{encoder.source} has no layer with a spatial output, so there is nothing to segment by")
    stages = encoder.layer(depths[-1]).role == "stage"
    return tuple(depths[-STAGES:] if stages else depths[-1:])
