"""Read outputs of any layout (NCHW, NHWC, token sequences) as maps [B, C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from encoscope.encoder.placement import TokenOrder
from encoscope.encoder.types import Activation
from encoscope.errors import UsageError

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class TokenLayout:
    """Where the patch tokens of a sequence stand, as the user states it for a network on which it cannot be found.

    Attributes:
        grid: (rows, columns) of the patches at the network's own input size, in row-major order.
        prefix: Number of tokens before the patches: class token, prompts, registers. Tokens after them belong to no
            cell.
    """

    grid: Size
    prefix: int = 0

    def __post_init__(self) -> None:
        grid = self.grid
        if len(grid) != 2 or min(grid) < 1 or self.prefix < 0:
            raise UsageError(
                f"a token layout is a grid of (rows, columns), each 1 or more, and a prefix of 0 or more tokens; "
                f"not {grid!r} and {self.prefix!r}"
            )

    @classmethod
    def make(cls, layout: TokenLayout | tuple[Size, int]) -> TokenLayout:
        """Make a token layout of whatever an argument was.

        Args:
            layout: A token layout, or ((rows, columns), prefix).

        Returns:
            The token layout.

        Raises:
            UsageError: For anything else.
        """
        if isinstance(layout, TokenLayout):
            return layout
        try:
            (rows, columns), prefix = layout
            return cls((int(rows), int(columns)), int(prefix))
        except (TypeError, ValueError) as error:
            raise UsageError(f"a token layout is ((rows, columns), prefix), not {layout!r}") from error

    @property
    def least(self) -> int:
        """The fewest tokens of a sequence of this layout."""
        return self.prefix + self.grid[0] * self.grid[1]

    def as_dict(self) -> dict[str, object]:
        """Give the layout in the form in which results keep it.

        Returns:
            The grid as a list, and the prefix.
        """
        return {"grid": list(self.grid), "prefix": self.prefix}


@dataclass(frozen=True)
class Layout:
    """The layout of one layer's output.

    Attributes:
        form: "nchw", "nhwc" or "tokens".
        channels: Number of channels.
        grid: (rows, columns) of the map at the network's own input size.
        size: (height, width) of that input in pixels.
        prefix: Number of tokens that belong to no cell, wherever they stand.
        front: How many of these stand before the patch tokens; the others stand after them. None for all.
        order: The positions of the tokens, first those that belong to no cell, then those of the cells in row-major
            order; None if the cells' tokens stand in one row, in row-major order. It holds at the network's own input
            size only.
        batch_first: False for sequences ``[tokens, batch, channels]``.
        unwind: For networks that keep tokens in an order of their own: a function that takes ``[batch, tokens,
            channels]`` to ``[batch, rows, columns, channels]``.
    """

    form: Literal["nchw", "nhwc", "tokens"]
    channels: int
    grid: Size
    size: Size
    prefix: int = 0
    front: int | None = None
    order: tuple[int, ...] | None = None
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

    def order_at(self, canvas: Size, count: int) -> list[int] | None:
        """Find the positions of the tokens of a sequence.

        Args:
            canvas: (height, width) of the input in pixels.
            count: Number of tokens.

        Returns:
            First those that belong to no cell, then those of the cells in row-major order; None if the sequence does
            not have this layout.
        """
        if self.order is not None:
            return list(self.order) if canvas == self.size and count == len(self.order) else None
        rows, columns = self.grid_at(canvas)
        cells = rows * columns
        if count != self.prefix + cells:
            return None
        front = self.prefix if self.front is None else self.front
        positions = list(range(count))
        return positions[:front] + positions[front + cells :] + positions[front : front + cells]


def make_token_layout(channels: int, grid: Size, size: Size, order: TokenOrder, batch_first: bool) -> Layout:
    """Make the layout of a sequence whose patch tokens were found.

    Args:
        channels: Number of channels.
        grid: (rows, columns) of the patches.
        size: (height, width) of the network's own input in pixels.
        order: Which tokens are patches.
        batch_first: False for sequences ``[tokens, batch, channels]``.

    Returns:
        The layout.
    """
    layout = Layout("tokens", channels, grid, size, len(order.extra), batch_first=batch_first)
    first = order.patches[0]
    if order.patches == tuple(range(first, first + len(order.patches))):
        return replace(layout, front=first)
    return replace(layout, order=(*order.extra, *order.patches))


def find_map_layout(
    shape: tuple[int, ...], batch: int, size: Size, grids: Iterable[Size], lengths: Iterable[int]
) -> Layout | None:
    """Find the layout of a map from its shape.

    Args:
        shape: The output's shape.
        batch: Number of images in the trial run.
        size: (height, width) of the trial input in pixels.
        grids: The grids of maps that the network gave before.
        lengths: The lengths of sequences that the network gave before: ``[batch, heads, N, N]`` with such an N is an
            attention matrix, and no map.

    Returns:
        The layout; None if the output holds no map of more than one cell.
    """
    if len(shape) != 4 or shape[0] != batch:
        return None
    square = (shape[2], shape[3])
    attention = shape[2] in set(lengths) and square not in with_halvings(grids)
    if fits_aspect(square, size) and not attention:
        return Layout("nchw", shape[1], square, size)
    if fits_aspect((shape[1], shape[2]), size):
        return Layout("nhwc", shape[3], (shape[1], shape[2]), size)
    return None


def list_token_grids(count: int, size: Size, grids: Iterable[Size]) -> list[Size]:
    """List the patch grids that a sequence of tokens may have.

    Args:
        count: Number of tokens.
        size: (height, width) of the input in pixels.
        grids: The grids of maps that the network gave before.

    Returns:
        (rows, columns) of each grid of the input's aspect with at most so many cells: first those that the network gave
        before, and these halved; then all others of square patches. The larger come first.
    """
    known = with_halvings(grids)
    square = {
        (size[0] // patch, size[1] // patch) for patch in range(1, min(size) + 1) if not any(s % patch for s in size)
    }

    def select(candidates: set[Size]) -> list[Size]:
        fitting = [grid for grid in candidates if grid[0] * grid[1] <= count and fits_aspect(grid, size)]
        return sorted(fitting, key=lambda grid: -grid[0] * grid[1])

    return select(known) + select(square - known)


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
    order = layout.order_at(canvas, tokens.shape[1])
    if order is None:
        return None
    if order != list(range(len(order))):
        tokens = tokens[:, order]
    prefix, patches = tokens[:, : layout.prefix], tokens[:, layout.prefix :]
    rows, columns = layout.grid_at(canvas)
    cells = patches.unflatten(1, (rows, columns)) if layout.unwind is None else layout.unwind(patches)
    return Activation(cells.permute(0, 3, 1, 2), prefix if layout.prefix else None)


def write_maps(output: Tensor, layout: Layout, maps: Tensor, canvas: Size) -> Tensor | None:
    """Put other maps into a module's output; prefix tokens are kept.

    Args:
        output: The tensor in the network's own layout.
        layout: Its layout.
        maps: The maps, ``[batch, channels, height, width]``.
        canvas: (height, width) of the network's input in pixels.

    Returns:
        The new tensor in the network's own layout; None for a network whose tokens are put on the grid by a function of
        its own.
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
    order = layout.order_at(canvas, tokens.shape[1])
    if order is None:
        return None
    patches = torch.tensor(order[layout.prefix :], device=output.device)
    replaced = tokens.index_copy(1, patches, cells.flatten(1, 2))
    return replaced if layout.batch_first else replaced.transpose(0, 1)


def fits_aspect(grid: Size, size: Size) -> bool:
    """Tell whether a grid of several cells has the input's aspect.

    Args:
        grid: (rows, columns).
        size: (height, width) of the input in pixels.

    Returns:
        True if it has: exactly for a square input, else within one cell.
    """
    (rows, columns), (height, width) = grid, size
    if rows * columns <= 1 or rows > height or columns > width:
        return False
    if height == width:
        return rows == columns
    return abs(rows * width - columns * height) <= max(height, width)


def with_halvings(grids: Iterable[Size]) -> set[Size]:
    """Add the grids after steps of stride 2.

    Args:
        grids: (rows, columns) of each grid.

    Returns:
        The grids, and each halved until one cell is left; odd sides round up.
    """
    halvings: set[Size] = set()
    for rows, columns in grids:
        while (rows, columns) not in halvings:
            halvings.add((rows, columns))
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return halvings
