"""Which layers NAVE reads when none are named, and how large it shows images to the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from encoscope.encoder import Encoder
from encoscope.errors import UsageError

STAGES = 3
"""The paper's choice for a convolutional network: the outputs of the last three stages (section 4.3)."""
TIMES = 2
"""How many times its own size a network sees, where it takes any (``encoscope reproduce nave-defaults``)."""
_DINOV2_PATCH = 14  # pixels


def choose_layers(
    encoder: Encoder, layers: Sequence[str] | str | None = None, *, preset: str | None = None
) -> tuple[str, ...]:
    """Choose the layers to cluster.

    Args:
        encoder: The encoder.
        layers: Names, as a sequence or with commas; None goes by the preset.
        preset: "default", None or "paper": the last three stages of a network that has stages (CNN, Swin, ...; section
            4.3), and the last block of one that keeps its grid (ViT; section 4.2). "authors": the same, but a
            transformer's tokens after the last norm where its patches are 14 pixels (DINOv2).

    Returns:
        The layers, in the network's order.

    Raises:
        UsageError: For an unknown or repeated layer, for a network without any spatial layer, and by default for one
            whose later tokens have a layout that could not be found.
    """
    if layers is None:
        return _choose_by_preset(encoder, preset or "default")
    if not isinstance(layers, Iterable):
        raise UsageError(f"layers are names, such as 'layer3,layer4', not {layers!r}")
    names = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else list(layers)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"layer given twice: {', '.join(repeated)}")
    if not names or not all(names):
        raise UsageError(f"no layer name in {layers!r}")
    requested = {encoder.layer(name).name for name in names}
    return tuple(info.name for info in encoder.layers if info.name in requested)


def choose_size(encoder: Encoder) -> int | str:
    """Choose how large the network sees an image: twice its own size.

    Args:
        encoder: The encoder.

    Returns:
        The short side in pixels; "model" for a network that takes its own size alone.
    """
    return TIMES * min(encoder.preprocess.size) if encoder.resizable else "model"


def choose_authors_settings(encoder: Encoder) -> dict[str, Any]:
    """Choose what the authors' code does for some networks alone.

    Args:
        encoder: The encoder.

    Returns:
        Settings by name; none for most networks. Tokens of 14-pixel patches (DINOv2) are upsampled twofold.
    """
    return {"resolution": "double"} if _find_normalized_tokens(encoder) else {}


def _choose_by_preset(encoder: Encoder, preset: str) -> tuple[str, ...]:
    depths = encoder.depths
    if not depths:
        raise UsageError(f"{encoder.source} has no layer with a spatial output, so there is nothing to segment by")
    if encoder.layer(depths[-1]).role == "stage":
        return tuple(depths[-STAGES:])
    normalized = _find_normalized_tokens(encoder) if preset == "authors" else None
    return (normalized or depths[-1],)


def _find_normalized_tokens(encoder: Encoder) -> str | None:
    """The last layer of tokens after the last block, of a transformer of 14-pixel patches; None for other networks."""
    names = [info.name for info in encoder.layers]
    blocks = [info for info in encoder.layers if info.role == "block"]
    if not blocks or encoder.stride != _DINOV2_PATCH or blocks[-1].grid != blocks[0].grid:
        return None
    later = encoder.layers[names.index(blocks[-1].name) + 1 :]
    tokens = [info.name for info in later if info.kind == "tokens" and info.channels == blocks[-1].channels]
    return tokens[-1] if tokens else None
