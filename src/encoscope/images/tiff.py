"""TIFFs that Pillow cannot read (floating-point color, many channels), by the optional tifffile."""

from __future__ import annotations

from typing import IO

import numpy as np

from encoscope.errors import ImageError, MissingError
from encoscope.images.levels import RawPixels, check_size


def decode_tiff(data: IO[bytes], max_pixels: int) -> RawPixels:
    """Decode the first image of a TIFF to its stored values.

    Args:
        data: The open file.
        max_pixels: The largest number of pixels.

    Returns:
        The stored values.

    Raises:
        ImageError: The file does not hold a single image, or one that is too large.
        MissingError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingError("this kind of TIFF needs tifffile: pip install 'encoscope[tiff]'") from error
    with tifffile.TiffFile(data) as file:
        series = file.series[0]
        sides = dict(zip(series.axes, series.shape, strict=True))
        check_size(sides.get("X", 1), sides.get("Y", 1), max_pixels)
        values = np.asarray(series.asarray())
    bands = [axis for axis in series.axes if axis not in "YX" and sides[axis] > 1]
    if not {"X", "Y"} <= set(series.axes) or len(bands) > 1:
        raise ImageError(f"a TIFF with axes {series.axes} and shape {series.shape} is not one image")
    order = [series.axes.index(axis) for axis in ["Y", "X", *bands]]
    rest = [axis for axis in range(values.ndim) if axis not in order]
    values = np.transpose(values, order + rest).reshape(sides["Y"], sides["X"], -1)
    white = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
    return RawPixels(values, white)
