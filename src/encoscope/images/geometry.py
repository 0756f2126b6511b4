"""Which pixel of the original image each pixel of a network's input shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Integer

GeometryKind: TypeAlias = Literal["model", "whole"]


@dataclass(frozen=True)
class Preprocess:
    """How a network takes its input: resized, cropped, normalized.

    Attributes:
        size: (height, width) of the network's own input, pixels.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel, for values in [0, 1].
        interpolation: "bicubic", "bilinear", "nearest" or "lanczos" (antialiased, as in Pillow).
        crop: Share of the resized image that the center crop keeps, in (0, 1]; 1 keeps all of the short side.
        channels: Input channels of the network.

    Example:
        >>> Preprocess(size=(32, 32), crop=0.875).as_dict()["crop"]
        0.875
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop: float = 1.0
    channels: int = 3

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and for the digest."""
        return asdict(self)


@dataclass(frozen=True)
class Geometry:
    """How an image was resized, cropped and padded to a network's input canvas; all in pixels.

    Attributes:
        original: (height, width) of the original image.
        resized: (height, width) to which it was resized.
        offset: (top, left) of the window of the resized image that the canvas shows.
        valid: (rows, columns) of the canvas that show the image; the rest, at the bottom and the right, is padding.
        canvas: (height, width) of the canvas.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    valid: tuple[int, int]
    canvas: tuple[int, int]

    def on_canvas(self, canvas: tuple[int, int]) -> Geometry:
        """Describe the same image on a larger canvas.

        Args:
            canvas: (height, width) with more padding.

        Returns:
            The geometry on this canvas.
        """
        return replace(self, canvas=canvas)

    def valid_cells(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Count the rows and columns of a grid whose centers lie on the image, not on padding.

        Args:
            grid: (rows, columns) of a grid over the whole canvas.

        Returns:
            (rows, columns), at least 1 each.

        Example:
            >>> Geometry((10, 20), (10, 20), (0, 0), (10, 20), (20, 20)).valid_cells((4, 4))
            (2, 4)
        """
        rows = [
            max(1, min(cells, int(np.ceil(extent * cells / side - 0.5))))
            for cells, extent, side in zip(grid, self.valid, self.canvas, strict=True)
        ]
        return rows[0], rows[1]

    def cells_of_pixels(
        self, grid: tuple[int, int]
    ) -> tuple[Integer[np.ndarray, " height"], Integer[np.ndarray, " width"]]:
        """Find for each row and column of the original image the nearest valid cell of a grid.

        Args:
            grid: (rows, columns) of a grid over the whole canvas.

        Returns:
            The grid's row for each row of the image, and its column for each column.
        """
        cells = self.valid_cells(grid)
        axes = []
        for axis in (0, 1):
            center = (np.arange(self.original[axis]) + 0.5) * self.resized[axis] / self.original[axis] - self.offset[
                axis
            ]
            axes.append(np.clip(np.floor(center * grid[axis] / self.canvas[axis]).astype(np.int64), 0, cells[axis] - 1))
        return axes[0], axes[1]

    def interpolate(
        self, values: Float[np.ndarray, "rows columns channels"], grid: tuple[int, int]
    ) -> Float[np.ndarray, "height width channels"]:
        """Upsample numbers on the cells of a grid to the original image's pixels, bilinearly.

        Args:
            values: Numbers for each valid cell.
            grid: (rows, columns) of the grid over the whole canvas.

        Returns:
            Numbers for each pixel of the original image; beyond the outermost cells' centers, those cells' own.
        """
        for axis in (0, 1):
            center = (np.arange(self.original[axis]) + 0.5) * self.resized[axis] / self.original[axis]
            position = (center - self.offset[axis]) * grid[axis] / self.canvas[axis] - 0.5
            position = np.clip(position, 0, values.shape[axis] - 1)
            lower = np.minimum(position.astype(np.int64), max(values.shape[axis] - 2, 0))
            upper = np.minimum(lower + 1, values.shape[axis] - 1)
            share = np.expand_dims(position - lower, tuple(other for other in range(3) if other != axis))
            values = values.take(lower, axis) * (1 - share) + values.take(upper, axis) * share
        return values

    def to_original(
        self, cells: Integer[np.ndarray, "rows columns"], grid: tuple[int, int]
    ) -> Integer[np.ndarray, "height width"]:
        """Upsample values on the cells of a grid to the original image's pixels, by the nearest cell.

        Args:
            cells: A value for each valid cell.
            grid: (rows, columns) of the grid over the whole canvas.

        Returns:
            A value for each pixel of the original image.
        """
        rows, columns = self.cells_of_pixels(grid)
        return cells[np.ix_(rows, columns)]
