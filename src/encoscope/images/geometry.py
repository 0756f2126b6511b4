"""Where each pixel of a network's input came from in the original image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Integer

GeometryKind: TypeAlias = Literal["model", "whole"]


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its input: resize, crop, normalise.

    size: (height, width) of the network's own input, pixels.
    mean, std: per channel, for values in [0, 1].
    interpolation: "bicubic", "bilinear", "nearest" or "lanczos" (antialiased, as Pillow does).
    crop: share of the resized image kept by the centre crop, in (0, 1]; 1 keeps all of the short side.
    channels: input channels of the network.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop: float = 1.0
    channels: int = 3

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and for the digest."""
        return asdict(self)


@dataclass(frozen=True)
class Geometry:
    """The way of one image into the network's input canvas.

    The original, ``original`` = (H, W) pixels, was resized to ``resized`` = (h, w); the canvas shows the window of
    the resized image that begins at ``offset`` = (top, left), and only its first ``valid`` = (rows, columns) hold
    image; the rest, at the bottom and the right, is padding. All in pixels.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    valid: tuple[int, int]
    canvas: tuple[int, int]

    def on_canvas(self, canvas: tuple[int, int]) -> Geometry:
        """The same image on a canvas padded further."""
        return replace(self, canvas=canvas)

    def valid_cells(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a grid over the canvas whose centre lies on image, not on padding (at least 1)."""
        rows = [
            max(1, min(cells, int(np.ceil(extent * cells / side - 0.5))))
            for cells, extent, side in zip(grid, self.valid, self.canvas, strict=True)
        ]
        return rows[0], rows[1]

    def cells_of_pixels(
        self, grid: tuple[int, int]
    ) -> tuple[Integer[np.ndarray, " height"], Integer[np.ndarray, " width"]]:
        """For each row and column of the original image, the nearest valid cell of a grid over the canvas."""
        cells = self.valid_cells(grid)
        axes = []
        for axis in (0, 1):
            centre = (np.arange(self.original[axis]) + 0.5) * self.resized[axis] / self.original[axis] - self.offset[
                axis
            ]
            axes.append(np.clip(np.floor(centre * grid[axis] / self.canvas[axis]).astype(np.int64), 0, cells[axis] - 1))
        return axes[0], axes[1]

    def to_original(
        self, cells: Integer[np.ndarray, "rows columns"], grid: tuple[int, int]
    ) -> Integer[np.ndarray, "height width"]:
        """Nearest-neighbour upsampling of values on the valid cells of a grid to the original image's pixels."""
        rows, columns = self.cells_of_pixels(grid)
        return cells[np.ix_(rows, columns)]
