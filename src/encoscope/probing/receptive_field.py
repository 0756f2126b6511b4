"""Where in an image the cells of a layer's map look, from the strides, kernels and padding on the way to it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from encoscope.encoder import Encoder
from encoscope.encoder.capture import draw_random_pixels

Pair: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class ReceptiveField:
    """The centers of a map's cells on the network's input: cell i of an axis looks around ``offset + i * stride``.

    Attributes:
        stride: (rows, columns): pixels of the input from one cell to the next.
        offset: (rows, columns): the center of the first cell, in pixels from the edge; the middle of the first pixel
            is 0.5.

    Example:
        >>> ReceptiveField((16, 16), (8, 8)).center(0.5, 2)
        (16.0, 40)
    """

    stride: Pair
    offset: Pair

    def center(self, row: float, column: float) -> Pair:
        """Give the center of a cell, or of a window of cells.

        Args:
            row: The cell's row, from 0; that of a window's middle need not be whole.
            column: Its column.

        Returns:
            (row, column) in pixels.
        """
        return self.offset[0] + self.stride[0] * row, self.offset[1] + self.stride[1] * column


def compute_receptive_field(encoder: Encoder, layer: str) -> ReceptiveField:
    """Compute where the cells of a layer's map look.

    The operations of one forward pass are followed: convolutions, pooling, padding and resizing by their geometry, all
    others as long as they keep the map's sides. Where that fails (tokens, adaptive pooling, rearranged pixels), the
    cells are spread evenly over the input.

    Args:
        encoder: The network.
        layer: The layer.

    Returns:
        The field.
    """
    info, size = encoder.layer(layer), encoder.preprocess.size
    follower = _Follower()
    if info.kind == "map":
        like = next(encoder.module.parameters(), None)
        pixels = draw_random_pixels(1, encoder.preprocess.channels, size, like)
        with follower:
            follower.know(pixels, _Grid(size, (1.0, 1.0), (0.5, 0.5)))
            maps = encoder.activations(pixels, layer)[layer].maps
            grid = follower.find(maps)
        if grid is not None and grid.sides == info.grid:
            return ReceptiveField(grid.stride, grid.offset)
    (rows, columns), (height, width) = info.grid, size
    return ReceptiveField((height / rows, width / columns), (height / rows / 2, width / columns / 2))


@dataclass(frozen=True)
class _Grid:
    """The cells of a tensor: how many rows and columns, and where they are on the input."""

    sides: tuple[int, int]
    stride: Pair
    offset: Pair

    def move(self, sides: Sequence[int], step: Sequence[float], first: Sequence[float]) -> _Grid:
        """Another grid, whose cells are ``step`` of this one's apart, from cell ``first`` on."""
        stride = [own * factor for own, factor in zip(self.stride, step, strict=True)]
        offset = [start + own * cell for start, own, cell in zip(self.offset, self.stride, first, strict=True)]
        return _Grid((sides[0], sides[1]), (stride[0], stride[1]), (offset[0], offset[1]))


class _Follower(TorchFunctionMode):
    """Follows where the cells of tensors lie, through the torch functions that are called in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[weakref.ref[Tensor], _Grid]] = {}

    def know(self, tensor: Tensor, grid: _Grid) -> None:
        """Note where the cells of a tensor are."""
        self._known[id(tensor)] = (weakref.ref(tensor), grid)

    def find(self, tensor: Any) -> _Grid | None:
        """Where the cells of a tensor are; None where that is not known."""
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and note where the cells of its output are."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # .shape, .dtype, ..., which are read very often
            return func(*args, **kwargs)
        grids = [(tensor, self.find(tensor)) for tensor in _list_tensors((args, kwargs))]
        output = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            for result in _list_tensors(output):
                grid = _derive(name, args, kwargs, [each for _, each in grids], result)
                if grid is None:
                    self._known.pop(id(result), None)  # changed in place, or the id of a tensor that is gone
                else:
                    self.know(result, grid)
        return output


def _derive(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], grids: Sequence[_Grid | None], result: Tensor
) -> _Grid | None:
    """Where the cells of an operation's output are; None for what is not understood."""
    known = [grid for grid in grids if grid is not None]
    if not known:
        return None
    get = _Arguments(args, kwargs)
    sides = tuple(result.shape[-2:])
    if name in _MOVES and grids[0] is not None and result.ndim >= 3:
        step, first = _MOVES[name](get, grids[0], sides)
        return grids[0].move(sides, step, first)
    for grid in known:
        if all(list(result.shape).count(side) >= grid.sides.count(side) for side in grid.sides):
            return grid  # an operation on channels, or of each value by itself
    return None


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a call."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self, index: int, name: str, default: Any) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def pair(self, index: int, name: str, default: Any) -> tuple[int, int]:
        """A number for both axes, or one for each."""
        value = self(index, name, default)
        first, *rest = value if isinstance(value, Sequence) else (value,)
        return int(first), int(rest[0] if rest else first)


_Move: TypeAlias = Callable[[_Arguments, _Grid, Sequence[int]], tuple[Sequence[float], Sequence[float]]]


def _move_window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[float], dilation: Sequence[int]
) -> tuple[Sequence[float], Sequence[float]]:
    reach = [(side - 1) * spread / 2 for side, spread in zip(kernel, dilation, strict=True)]
    return stride, [half - added for half, added in zip(reach, padding, strict=True)]


def _move_convolution(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    kernel, dilation = tuple(get(1, "weight", None).shape[-2:]), get.pair(5, "dilation", 1)
    padding = get(4, "padding", 0)
    if padding == "same":
        before = [(side - 1) * spread // 2 for side, spread in zip(kernel, dilation, strict=True)]
    else:
        before = (0, 0) if padding == "valid" else get.pair(4, "padding", 0)
    return _move_window(kernel, get.pair(3, "stride", 1), before, dilation)


def _move_transposed(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    kernel, stride = get(1, "weight", None).shape[-2:], get.pair(3, "stride", 1)
    padding, dilation = get.pair(4, "padding", 0), get.pair(7, "dilation", 1)
    back = [
        (added - (side - 1) * spread / 2) / step
        for added, side, spread, step in zip(padding, kernel, dilation, stride, strict=True)
    ]
    return [1 / step for step in stride], back


def _move_pooling(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    kernel = get.pair(1, "kernel_size", 1)
    stride = get.pair(2, "stride", None) if get(2, "stride", None) else kernel
    return _move_window(kernel, stride, get.pair(3, "padding", 0), (1, 1))


def _move_max_pooling(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    kernel = get.pair(1, "kernel_size", 1)
    stride = get.pair(2, "stride", None) if get(2, "stride", None) else kernel
    return _move_window(kernel, stride, get.pair(3, "padding", 0), get.pair(4, "dilation", 1))


def _move_padding(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    left, _, top, *_ = (*get(1, "pad", ()), 0, 0, 0, 0)
    return (1, 1), (-top, -left)


def _move_resizing(get: _Arguments, grid: _Grid, sides: Sequence[int]) -> tuple[Sequence[float], Sequence[float]]:
    step = [before / after for before, after in zip(grid.sides, sides, strict=True)]
    return step, [(each - 1) / 2 for each in step]


_MOVES: Mapping[str, _Move] = {
    "conv2d": _move_convolution,
    "conv_transpose2d": _move_transposed,
    "avg_pool2d": _move_pooling,
    "max_pool2d": _move_max_pooling,
    "pad": _move_padding,
    "interpolate": _move_resizing,
}


def _list_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _list_tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _list_tensors(item)
