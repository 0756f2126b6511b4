"""Read outputs of any layout (NCHW, NHWC, token sequences) as maps [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from encoscope.encoder.types import Activation

Size: TypeAlias = tuple[int, int]
MAX_PREFIX = 16
"""The most tokens before the patch tokens: a class token, a distillation token, registers."""


@dataclass(frozen=True)
class Layout:
    """The layout of one module's output.

    Attributes:
        form: "nchw", "nhwc" or "tokens".
        channels: Number of channels.
        grid: (rows, columns) of the map at the network's own input size.
        size: (height, width) of that input in pixels.
        prefix: Number of tokens before the patch tokens.
        batch_first: False for sequences ``[tokens, batch, channels]``.
        unwind: For networks that keep tokens in an order of their own: a function that takes ``[batch, tokens,
            channels]`` to ``[batch, rows, columns, channels]``.
    """

    form: Literal["nchw", "nhwc", "tokens"]
    channels: int
    grid: Size
    size: Size
    prefix: int = 0
    batch_first: bool = True
    unwind: Callable[[Tensor], Tensor] | None = None

    def grid_at(self, canvas: Size) -> Size:
        """Compute the token grid for an input of another size.

        Args:
            canvas: (height, width) of the input in pixels.

        Returns:
            (rows, columns).
        """
        rows, columns = (
            max(1, side * cells // own) for side, cells, own in zip(canvas, self.grid, self.size, strict=True)
        )
        return rows, columns


def find_layout(
    shape: tuple[int, ...], batch: int, size: Size, grids: Iterable[Size], lengths: Iterable[int]
) -> Layout | None:
    """Find the layout of an output from its shape.

    Args:
        shape: The output's shape.
        batch: Number of images in the trial run.
        size: (height, width) of the trial input in pixels.
        grids: The grids of maps that the network gave before. A token grid is one of them, or one of them halved.
        lengths: The lengths of token sequences that the network gave before: ``[batch, heads, N, N]`` with such an N
            is an attention matrix, and no map.

    Returns:
        The layout; None if the output holds no map of more than one cell.
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
    """Find the patch grid of a sequence of tokens.

    Args:
        count: Number of tokens.
        size: (height, width) of the input in pixels.
        grids: The grids of maps that the network gave before; if there are none, any grid of square patches counts.

    Returns:
        (rows, columns) of the largest grid that has the input's aspect and leaves at most 16 prefix tokens; None if
        there is none.
    """
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
    """Read a module's output as an Activation.

    Args:
        output: The tensor in the network's own layout.
        layout: Its layout.
        canvas: (height, width) of the network's input in pixels.

    Returns:
        Maps ``[batch, channels, height, width]`` and prefix tokens; None if the tensor does not have the layout.
    """
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
    """Put other maps into a module's output; prefix tokens are kept.

    Args:
        output: The tensor in the network's own layout.
        layout: Its layout.
        maps: The maps, ``[batch, channels, height, width]``.

    Returns:
        The new tensor in the network's own layout; None for a network that keeps its tokens in an order of its own.
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
    replaced = torch.cat([tokens[:, : layout.prefix], cells.flatten(1, 2)], 1)
    return replaced if layout.batch_first else replaced.transpose(0, 1)


def _fits(grid: Size, size: Size) -> bool:
    """Whether a grid of several cells has the input's aspect: exactly for a square input, else within one cell."""
    (rows, columns), (height, width) = grid, size
    if rows * columns <= 1 or rows > height or columns > width:
        return False
    if height == width:
        return rows == columns
    return abs(rows * width - columns * height) <= max(height, width)


def _with_halvings(grids: Iterable[Size]) -> set[Size]:
    """The grids, and the grids after steps of stride 2 (odd sides round up)."""
    halvings: set[Size] = set()
    for rows, columns in grids:
        while (rows, columns) not in halvings:
            halvings.add((rows, columns))
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return halvings
