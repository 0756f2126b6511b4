"""Which pixel of the original image each pixel of a network's input shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from math import floor
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Integer

from encoscope.images.levels import Channels

GeometryKind: TypeAlias = Literal["model", "whole"]
Resizing: TypeAlias = Literal["short", "long", "squash", "none"]

_ALWAYS_RECORDED = 6  # the fields that every digest so far was computed from


@dataclass(frozen=True)
class Preprocess:
    """How a network takes its input: resized, cropped, rescaled, normalized; in this order.

    Attributes:
        size: (height, width) of the network's own input, pixels.
        mean: Mean of each channel of the input, for values in [0, 1].
        std: Standard deviation of each channel of the input, for values in [0, 1].
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming" (antialiased, as in Pillow).
        crop: Share of the resized image that the center crop keeps, in (0, 1]; 1 keeps all of the short side.
        channels: Input channels of the network.
        resize: To what the image is resized: "short" makes it cover ``resize_to``, "long" makes it fit inside, both
            with its aspect ratio; "squash" makes it exactly that; "none" leaves it as it is.
        resize_to: (height, width) for ``resize``; None is ``size`` divided by ``crop``, rounded down.
        window: Whether the middle of the resized image is cut to ``size``, or padded to it where the image is
            smaller; if not, the input is as large as the resized image.
        fill: Value, from 0 to 255, of each channel of what lies around an image smaller than the window.
        pad_to: (height, width) to which the normalized image is padded with zeros at the bottom and the right; None
            for no such padding.
        rounding: Of the crop's offset and of sides that are not whole numbers: "even" rounds as torchvision and timm
            do, "down" as transformers does.
        rescale: Factor for values from 0 to 255, before mean and std; mean and std are for what it gives.
        rescale_offset: Subtracted after ``rescale``.
        std_twice: Whether the result is divided by std once more.
        channel_order: "rgb", or "bgr" for a network whose first channel is blue.
        resize_floats: Whether values are rescaled before the image is resized, so that resizing does not round them.
        bands: The bands of an image that the network's channels are, numbered from 1; None for images of as many
            channels as the network has, or of grey or color.

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
    resize: Resizing = "short"
    resize_to: tuple[int, int] | None = None
    window: bool = True
    fill: tuple[int, ...] = (0,)
    pad_to: tuple[int, int] | None = None
    rounding: Literal["even", "down"] = "even"
    rescale: float = 1 / 255
    rescale_offset: float = 0.0
    std_twice: bool = False
    channel_order: Literal["rgb", "bgr"] = "rgb"
    resize_floats: bool = False
    bands: tuple[int, ...] | None = None

    @property
    def image_channels(self) -> Channels:
        """What ``read_image`` takes as ``channels`` to read an image for the network."""
        return self.channels if self.bands is None else self.bands

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and for the digest: the first six, and of the others what is not usual."""
        usual = {item.name: item.default for item in fields(self)[_ALWAYS_RECORDED:]}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

    @property
    def unit_mean(self) -> tuple[float, ...]:
        """The mean of each channel for values in [0, 1], whatever the scale that ``mean`` is for."""
        return tuple((value + self.rescale_offset) / (255 * self.rescale) for value in self.mean)

    @property
    def unit_std(self) -> tuple[float, ...]:
        """What values in [0, 1] are divided by after ``unit_mean`` was subtracted."""
        return tuple(value * (value if self.std_twice else 1) / (255 * self.rescale) for value in self.std)

    def resized_to(self, target: tuple[int, int]) -> tuple[int, int]:
        """Compute the (height, width) that ``resize`` aims at.

        Args:
            target: (height, width) of the input; ``size``, or another one.

        Returns:
            ``resize_to``, in proportion for another input than ``size``.
        """
        if self.resize_to is None:
            return floor(target[0] / self.crop), floor(target[1] / self.crop)
        if target == self.size:
            return self.resize_to
        rows, columns = (
            round(side * new / own) for side, new, own in zip(self.resize_to, target, self.size, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class Geometry:
    """How an image was resized, cropped and padded to a network's input canvas; all in pixels.

    Attributes:
        original: (height, width) of the original image.
        resized: (height, width) to which it was resized.
        offset: (top, left) of the window of the resized image that the canvas shows; negative where the image lies
            in the middle of a larger window.
        valid: (rows, columns) of the canvas that belong to the window; the rest, at the bottom and the right, is
            padding.
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
