"""Any network's output layout (NCHW, NHWC, token sequences) read as maps [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from encoscope.encoder.types import Activation

Size: TypeAlias = tuple[int, int]
MAX_PREFIX = 16  # tokens before the patch tokens: a class token, distillation, up to a few registers


@dataclass(frozen=True)
class Layout:
    """How one module's output holds its spatial map.

    form: "nchw", "nhwc" or "tokens". grid: (rows, columns) at the network's own input size ``size``.
    prefix: tokens before the patch tokens. batch_first: False for sequences [N, B, C].
    unwind: for networks that keep tokens in an order of their own, [B, N, C] -> [B, rows, columns, C].
    """

    form: Literal["nchw", "nhwc", "tokens"]
    channels: int
    grid: Size
    size: Size
    prefix: int = 0
    batch_first: bool = True
    unwind: Callable[[Tensor], Tensor] | None = None

    def grid_at(self, canvas: Size) -> Size:
        """Rows and columns of the token grid on a canvas of another size."""
        rows, columns = (
            max(1, side * cells // own) for side, cells, own in zip(canvas, self.grid, self.size, strict=True)
        )
        return rows, columns


def find_layout(
    shape: tuple[int, ...], batch: int, size: Size, grids: Iterable[Size], lengths: Iterable[int]
) -> Layout | None:
    """The layout of an output of this shape, or None when it holds no map of more than one cell.

    batch: images in the trial input of ``size`` pixels. grids: map grids already seen in this network (a token
    grid is one of them, or one of them halved). lengths: token sequence lengths seen: [B, heads, N, N] of such a
    length is an attention matrix, no map.
    """
    if len(shape) == 4 and shape[0] == batch:
        square = (shape[2], shape[3])
        attention = shape[2] in set(lengths) and square not in _with_halvings(grids)
        if _fits(square, size) and not attention:
            return Layout("nchw", shape[1], square, size)
        if _fits((shape[1], shape[2]), size):
            return Layout("nhwc", shape[3], (shape[1], shape[2]), size)
    if len(shape) == 3:
        batch_first = shape[0] == batch
        if not batch_first and shape[1] != batch:
            return None
        count = shape[1] if batch_first else shape[0]
        grid = find_token_grid(count, size, grids)
        if grid is not None:
            return Layout("tokens", shape[2], grid, size, count - grid[0] * grid[1], batch_first)
    return None


def find_token_grid(count: int, size: Size, grids: Iterable[Size]) -> Size | None:
    """The patch grid of a sequence of ``count`` tokens: the largest that fits and leaves at most 16 prefix tokens."""
    known = set(grids)
    if known:
        candidates = _with_halvings(known)
    else:  # no convolution made the patches: any grid of square patches
        candidates = {
            (size[0] // patch, size[1] // patch)
            for patch in range(1, min(size) + 1)
            if not any(s % patch for s in size)
        }
    fitting = [grid for grid in candidates if 0 <= count - grid[0] * grid[1] <= MAX_PREFIX and _fits(grid, size)]
    return max(fitting, key=lambda grid: grid[0] * grid[1], default=None)


def read_activation(output: Tensor, layout: Layout, canvas: Size) -> Activation | None:
    """A module's output for images on ``canvas`` as an Activation; None when it does not hold the layout's map."""
    if layout.form != "tokens":
        if output.ndim != 4:
            return None
        return Activation(output if layout.form == "nchw" else output.permute(0, 3, 1, 2))
    if output.ndim != 3:
        return None
    tokens = output if layout.batch_first else output.transpose(0, 1)
    prefix, patches = tokens[:, : layout.prefix], tokens[:, layout.prefix :]
    rows, columns = layout.grid_at(canvas)
    if patches.shape[1] != rows * columns:
        return None
    cells = patches.unflatten(1, (rows, columns)) if layout.unwind is None else layout.unwind(patches)
    return Activation(cells.permute(0, 3, 1, 2), prefix if layout.prefix else None)


def write_maps(output: Tensor, layout: Layout, maps: Tensor) -> Tensor | None:
    """A module's output with other maps [B, C, H, W] in place of its own, prefix tokens kept.

    None where that cannot be: for tokens in an order of the network's own.
    """
    maps = maps.to(output.device, output.dtype)
    if layout.form == "nchw":
        return maps
    cells = maps.permute(0, 2, 3, 1)
    if layout.form == "nhwc":
        return cells
    if layout.unwind is not None:
        return None
    tokens = output if layout.batch_first else output.transpose(0, 1)
    written = torch.cat([tokens[:, : layout.prefix], cells.flatten(1, 2)], 1)
    return written if layout.batch_first else written.transpose(0, 1)


def _fits(grid: Size, size: Size) -> bool:
    """Whether a grid of several cells has the aspect of the input: exactly for square inputs, to a cell for oblong."""
    (rows, columns), (height, width) = grid, size
    if rows * columns <= 1 or rows > height or columns > width:
        return False
    if height == width:
        return rows == columns
    return abs(rows * width - columns * height) <= max(height, width)


def _with_halvings(grids: Iterable[Size]) -> set[Size]:
    """The grids, and what stride-2 steps make of them (odd sides round up)."""
    found: set[Size] = set()
    for rows, columns in grids:
        while (rows, columns) not in found:
            found.add((rows, columns))
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return found
