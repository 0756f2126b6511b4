"""Which layers NAVE reads when none are named, and how large it shows images to the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from encoscope.encoder import Encoder, LayerInfo
from encoscope.errors import UsageError

STAGES = 3
"""The paper's choice for a convolutional network: the outputs of the last three stages (section 4.3)."""
TIMES, MOST_TIMES = 2, 3
"""How many times its own size a network sees, where it takes any (``encoscope reproduce nave-defaults``): in general,
and at most."""
CELLS, FINE_CELLS = 24, 56
"""Cells along the short side that a network's only grid should have at that size, and that are clustered."""
_PIXELS = 4  # along a side of a cell, at least
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


def list_blocks(encoder: Encoder) -> list[LayerInfo]:
    """List the blocks of a network, or its depths if it has no blocks.

    Args:
        encoder: The encoder.

    Returns:
        The layers, in the network's order. The last block of a stage is given by the stage's own name, which includes
        a norm and an activation that follow it.

    Raises:
        UsageError: As ``Encoder.depths``.
    """
    depths = encoder.depths
    blocks = [info for info in encoder.layers if info.role == "block"]
    if len(blocks) < 2:
        return [encoder.layer(name) for name in depths]
    for name in depths:
        inside = [index for index, block in enumerate(blocks) if block.name.startswith(f"{name}.")]
        if inside:
            blocks[inside[-1]] = encoder.layer(name)
    return blocks


def choose_blocks_of_two_grids(encoder: Encoder) -> tuple[str, ...]:
    """Choose the last block but one, and the last block before it on a finer grid.

    Args:
        encoder: The encoder.

    Returns:
        The layers, in the network's order; where no grid is finer, the block half as deep takes part instead.
    """
    blocks = list_blocks(encoder)
    chosen = blocks[max(0, len(blocks) - 2)]
    before = blocks[: max(1, len(blocks) - 2)]
    finer = [info for info in before if info.grid > chosen.grid] or before[: max(1, len(before) // 2)]
    return (finer[-1].name, chosen.name)


def choose_color_layers(encoder: Encoder, layers: Sequence[str] | str | None, preset: str | None) -> tuple[str, ...]:
    """Choose the layers whose features are colored: by default as `choose_blocks_of_two_grids`.

    In three components, the features of earlier layers are edges and textures, and those of the last block are coarse.

    Args:
        encoder: The encoder.
        layers: As for `choose_layers`.
        preset: As for `choose_layers`; "paper" and "authors" take the layers of that.

    Returns:
        The layers, in the network's order.

    Raises:
        UsageError: As `choose_layers`.
    """
    if layers or preset not in (None, "default"):
        return choose_layers(encoder, layers or None, preset=preset)
    choose_layers(encoder)  # what has no layer to segment by has none to color
    return choose_layers(encoder, list(dict.fromkeys(choose_blocks_of_two_grids(encoder))))


def choose_size(encoder: Encoder) -> int | str:
    """Choose how large the network sees an image: twice its own size.

    Args:
        encoder: The encoder.

    Returns:
        The short side in pixels; "model" for a network that takes its own size alone. Three times its own for one that
        keeps its grid (ViT) and has fewer than 24 cells along it otherwise.
    """
    if not encoder.resizable:
        return "model"
    cells = _count_cells(encoder)
    times = TIMES if cells is None else min(MOST_TIMES, max(TIMES, math.ceil(CELLS / cells)))
    return times * min(encoder.preprocess.size)


def choose_resolution(encoder: Encoder, size: int | str) -> int | str:
    """Choose the grid that is clustered: the first layer's, finer for a network that keeps its grid.

    Args:
        encoder: The encoder.
        size: The short side that the network sees, "model" or "native".

    Returns:
        56 cells along the short side for a network that keeps its grid (ViT), if that has fewer, but no cells below 4
        pixels; "first-layer" for others.
    """
    cells = _count_cells(encoder)
    if cells is None or size == "native":
        return "first-layer"
    own = min(encoder.preprocess.size)
    side = own if isinstance(size, str) else size
    fine = min(FINE_CELLS, side // _PIXELS)
    return fine if fine > cells * side / own else "first-layer"


def _count_cells(encoder: Encoder) -> int | None:
    """Cells along the short side of a network's only grid at its own size; None for a network of several grids."""
    blocks = [info for info in encoder.layers if info.role == "block"]
    grids = {info.grid for info in blocks}
    return min(blocks[0].grid) if len(grids) == 1 and len(blocks) > 1 else None


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
