"""The patch of an image in which a unit responds most, as the maps of the whole image show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from encoscope.probing.receptive_field import ReceptiveField

Windows: TypeAlias = tuple[Float[Tensor, " units"], Int64[Tensor, "units 2"]]
"""Of each unit the value of its best window, and the (top, left) corner of the patch around it."""


@dataclass(frozen=True)
class Window:
    """A patch in which a unit responds, as the maps of whole images show it.

    Attributes:
        file: The number of the image's file.
        value: The unit's mean over the patch's cells.
        corner: (top, left) of the patch, in the pixels in which patches are cut.
    """

    file: int
    value: float
    corner: tuple[int, int]


def find_windows(
    maps: Float[Tensor, "units rows columns"],
    field: ReceptiveField,
    *,
    side: int,
    size: tuple[int, int],
    canvas: tuple[int, int],
    shares: Float[Tensor, "units 2"] | None = None,
    peaks: bool = False,
) -> Windows:
    """Find the patch of an image in which each unit is largest, by the unit's mean over the cells that look into it.

    Args:
        maps: The map of each unit on the image, without cells on padding.
        field: Where the cells look.
        side: Side of the patches, in the pixels in which they are cut.
        size: (height, width) of the image in these pixels.
        canvas: (height, width) of the image in the pixels that the network saw; another where it was squashed.
        shares: Where in its patch each unit looks, as shares of the side from the top and from the left; None is the
            middle.
        peaks: Take the largest cell in place of the largest mean.

    Returns:
        For each unit the value of the best window, the first of equal ones row by row, and the corner of the patch
        around it, moved into the image.
    """
    zoom = [own / seen for own, seen in zip(size, canvas, strict=True)]
    cells = [
        1 if peaks else max(1, min(count, round(side / (step * factor))))
        for count, step, factor in zip(maps.shape[1:], field.stride, zoom, strict=True)
    ]
    pooled = F.avg_pool2d(maps[None], (cells[0], cells[1]), 1)[0]
    values, best = pooled.flatten(1).max(1)
    steps = torch.stack([best // pooled.shape[2], best % pooled.shape[2]], 1).double()
    middles = steps + torch.tensor([(count - 1) / 2 for count in cells], dtype=torch.float64)
    centers = torch.tensor(field.offset, dtype=torch.float64) + middles * torch.tensor(field.stride).double()
    shares = torch.full((len(maps), 2), 0.5, dtype=torch.float64) if shares is None else shares
    corners = (centers * torch.tensor(zoom, dtype=torch.float64) - side * shares).round().long()
    limits = torch.tensor([max(0, length - side) for length in size])
    return values, torch.minimum(corners.clamp(min=0), limits)
