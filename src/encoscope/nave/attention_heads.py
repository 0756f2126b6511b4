"""The grouping "attn": each head of the last block is a cluster, and a pixel goes to the head that looks there most."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from encoscope.discovery.attention import read_attention_keys
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import Batch


def read_head_maps(encoder: Encoder, batch: Batch) -> Float[Tensor, "batch heads rows columns"]:
    """Read how much the class token attends to each patch, in every head of the last block.

    Args:
        encoder: A vision transformer with a class token.
        batch: From ``encoder.prepare``.

    Returns:
        ``[B, heads, rows, columns]``.

    Raises:
        UsageError: For a network without such attention.
    """
    read = read_attention_keys(encoder, batch)
    if read.attention is None or not read.prefix:
        lacking = "class token" if not read.prefix else "attention that queries and keys alone determine"
        raise UsageError(f'grouping="attn" goes by a class token\'s attention, and {encoder.source} has no {lacking}')
    return read.attention[:, :, 0, read.prefix :].unflatten(2, read.grid)


def assign_to_heads(
    attention: Float[Tensor, "batch heads rows columns"], grid: tuple[int, int], valid: tuple[int, int]
) -> Int[Tensor, "batch pixels"]:
    """Give each cell of a grid to the head with the largest attention there.

    Args:
        attention: From `read_head_maps`.
        grid: (rows, columns) that the attention is brought to, by bicubic interpolation.
        valid: The first (rows, columns) of the grid that hold image.

    Returns:
        ``[B, cells]``, the number of the head.
    """
    size = (int(attention.shape[2]), int(attention.shape[3]))
    if size != grid:
        attention = functional.interpolate(attention, size=grid, mode="bicubic", align_corners=False)
    return torch.argmax(attention[:, :, : valid[0], : valid[1]], dim=1).flatten(1)
