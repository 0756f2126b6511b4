"""Places in an image as a user points at them: pixels, boxes, segments; each becomes weights of the cells of a grid."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Integer
from PIL import Image

from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.images import Geometry
from encoscope.nave.segmentation import Segmentation

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class QueryTargets:
    """What was pointed at, in pixels of the original image.

    Attributes:
        at: (x, y), column and row, of each point that is asked for.
        not_at: (x, y) of each point that is not.
        box: (x0, y0, x1, y1), both corners inside; None for none.
        segment: A cluster of a segmentation; None for none.
    """

    at: tuple[Point, ...] = ()
    not_at: tuple[Point, ...] = ()
    box: Box | None = None
    segment: int | None = None

    def __post_init__(self) -> None:
        if not self.at and self.box is None and self.segment is None:
            raise UsageError("point at a place: give at (x,y), a box, or a segment")

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain: dict[str, Any] = {"at": [list(point) for point in self.at]}
        plain["not_at"] = [list(point) for point in self.not_at]
        return plain | {"box": None if self.box is None else list(self.box), "segment": self.segment}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> QueryTargets:
        """Read what ``as_dict`` gave.

        Args:
            plain: Plain values.

        Returns:
            The places.
        """
        at, not_at = (tuple((x, y) for x, y in plain[name]) for name in ("at", "not_at"))
        x0, y0, x1, y1 = plain["box"] or (0, 0, 0, 0)
        return cls(at, not_at, (x0, y0, x1, y1) if plain["box"] else None, plain["segment"])

    def __str__(self) -> str:
        parts = [f"{x:g},{y:g}" for x, y in self.at]
        if self.box is not None:
            parts.append("box {:g},{:g},{:g},{:g}".format(*self.box))
        if self.segment is not None:
            parts.append(f"segment {self.segment}")
        parts += [f"not {x:g},{y:g}" for x, y in self.not_at]
        return "; ".join(parts)


def parse_points(name: str, points: Any) -> tuple[Point, ...]:
    """Read one point or several.

    Args:
        name: What messages call them.
        points: None, (x, y), or a sequence of such pairs.

    Returns:
        The points.

    Raises:
        UsageError: For anything else, and for numbers that are not finite.
    """
    if points is None:
        return ()
    if isinstance(points, str | bytes) or not isinstance(points, Iterable):
        raise UsageError(f"{name} is a point (x, y) or a list of them, not {points!r}")
    listed = list(points)
    if len(listed) == 2 and all(_is_number(value) for value in listed):
        listed = [listed]
    pairs = []
    for point in listed:
        x, y = _read_numbers(name, point, 2, "a point (x, y), in pixels of the image")
        pairs.append((x, y))
    return tuple(pairs)


def parse_box(box: Any) -> Box | None:
    """Read a box.

    Args:
        box: None, or (x0, y0, x1, y1).

    Returns:
        The box.

    Raises:
        UsageError: For anything else, for numbers that are not finite, and for an empty box.
    """
    if box is None:
        return None
    x0, y0, x1, y1 = _read_numbers("box", box, 4, "x0, y0, x1, y1, in pixels of the image")
    if math.floor(x1) < math.floor(x0) or math.floor(y1) < math.floor(y0):
        raise UsageError(f"the box {x0:g},{y0:g},{x1:g},{y1:g} is empty: x0 <= x1 and y0 <= y1 are its corners")
    return x0, y0, x1, y1


def mask_targets(
    targets: QueryTargets, size: tuple[int, int], labels: Integer[np.ndarray, "_height _width"] | None = None
) -> tuple[list[Bool[np.ndarray, "height width"]], list[Bool[np.ndarray, "height width"]]]:
    """Give the pixels of each place.

    Args:
        targets: The places.
        size: (height, width) of the image.
        labels: The segmentation that the segment is of.

    Returns:
        A mask for each place that is asked for, and one for each that is not.

    Raises:
        UsageError: For a place that is not in the image, and labels of another size or without the segment.
    """
    positives = [_mask_box(targets.at[index] * 2, size) for index in range(len(targets.at))]
    if targets.box is not None:
        positives.append(_mask_box(targets.box, size))
    if targets.segment is not None:
        if labels is None or labels.shape != size:
            shape = None if labels is None else f"{labels.shape[1]} x {labels.shape[0]}"
            raise UsageError(
                f"the labels are {shape}, but the image is {size[1]} x {size[0]}: give labels of this image"
            )
        inside = labels == targets.segment
        if not inside.any():
            known = ", ".join(map(str, np.unique(labels)[:20].tolist()))
            raise UsageError(f"there is no segment {targets.segment} in this segmentation: it has {known}")
        positives.append(inside)
    return positives, [_mask_box(point * 2, size) for point in targets.not_at]


def read_labels(labels: Any) -> Integer[np.ndarray, "height width"]:
    """Read a segmentation that was made before.

    Args:
        labels: A Segmentation, the folder that it was saved in, an image whose grey values are labels (as ``segment``
            writes it), or an array.

    Returns:
        The label of each pixel.

    Raises:
        MissingError: When there is no such file.
        EncoscopeError: When it cannot be read.
        UsageError: For anything else.
    """
    if isinstance(labels, Segmentation):
        return labels.labels
    if isinstance(labels, str | os.PathLike):
        path = Path(labels)
        if path.is_dir():
            return Segmentation.load(path).labels
        try:
            with Image.open(path) as image:
                if image.mode not in ("L", "P", "1", "I", "I;16"):
                    raise UsageError(f"{path} is no image of labels: it has colors, not one number a pixel")
                return np.array(image).astype(np.int64)
        except FileNotFoundError as error:
            raise MissingError(f"no such file: {path}") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise EncoscopeError(f"cannot read labels from {path}: {' '.join(str(error).split())}") from error
    array = np.asarray(labels)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise UsageError(
            f"labels are whole numbers of shape [height, width], not {array.dtype} of shape {list(array.shape)}"
        )
    return array


def weigh_cells(
    mask: Bool[np.ndarray, "height width"], geometry: Geometry, grid: tuple[int, int]
) -> Float[np.ndarray, "rows columns"]:
    """Count for each cell of a grid the pixels of a place that it stands for.

    Args:
        mask: The pixels of the place.
        geometry: How the image came into the network.
        grid: (rows, columns) of the grid, padding included.

    Returns:
        The counts on the valid cells.
    """
    rows, columns = geometry.cells_of_pixels(grid)
    weights = np.zeros(geometry.valid_cells(grid))
    y, x = np.nonzero(mask)
    np.add.at(weights, (rows[y], columns[x]), 1.0)
    return weights


def _mask_box(box: Sequence[float], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    x0, y0, x1, y1 = (math.floor(value) for value in box)
    height, width = size
    if not (x0 >= 0 and x1 < width and y0 >= 0 and y1 < height):
        text = ",".join(f"{value:g}" for value in (box[:2] if box[:2] == box[2:] else box))
        raise UsageError(
            f"{text} lies outside of the image, which is {width} x {height}: x goes from 0 to {width - 1}, y from 0 to "
            f"{height - 1}"
        )
    mask = np.zeros(size, dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _read_numbers(name: str, values: Any, count: int, meaning: str) -> list[float]:
    try:
        listed = [] if isinstance(values, str | bytes) else list(values)
    except TypeError:
        listed = []
    if len(listed) != count or not all(_is_number(value) and math.isfinite(value) for value in listed):
        raise UsageError(f"{name} is {meaning}, not {values!r}")
    return [float(value) for value in listed]
