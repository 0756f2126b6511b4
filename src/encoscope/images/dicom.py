"""DICOM through the optional pydicom: rescaled, and windowed as the file says."""

from __future__ import annotations

from typing import Any

import numpy as np

from encoscope.errors import ImageError, MissingError
from encoscope.images.levels import RawPixels, check_size


def decode_dicom(data: Any, max_pixels: int, window: tuple[float, float] | None) -> RawPixels:
    """Decode the first frame of a DICOM file.

    Color is returned as it is stored. Grey values are rescaled by slope and intercept (in CT to Hounsfield units).
    MONOCHROME1 (low is white) is inverted, so that low is black in every image.

    Args:
        data: The open file.
        max_pixels: The largest number of pixels.
        window: (low, high) in rescaled values, applied later; if left out, the file's own first window is applied here,
            and without one the range of the stored bits is mapped to [0, 1].

    Returns:
        The values.

    Raises:
        ImageError: The file holds no image, or one that is too large.
        MissingError: pydicom is not installed.

    Source: DICOM PS3.3, C.11.2.1.2.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise MissingError("a DICOM file needs pydicom: pip install 'encoscope[dicom]'") from error
    dataset = pydicom.dcmread(data)
    if "Rows" not in dataset or "PixelRepresentation" not in dataset:
        raise ImageError("this DICOM file holds no image")
    check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    stored = np.asarray(pixel_array(dataset, index=0))
    if stored.ndim == 3:
        return RawPixels(stored, float(2 ** int(dataset.BitsStored) - 1))
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    values = stored.astype(np.float32) * slope + intercept
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    if window is None and "WindowCenter" in dataset:
        values, ends = _apply_own_window(values, dataset), (0.0, 1.0)
    elif window is None:
        lowest = -(2 ** (bits - 1)) if signed else 0
        values, ends = (stored.astype(np.float32) - lowest) / (2**bits - 1), (0.0, 1.0)
    else:
        ends = window
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = sum(ends) - values  # swaps the window's ends
    return RawPixels(values[:, :, None], 1.0)


def _apply_own_window(values: np.ndarray, dataset) -> np.ndarray:
    center, width = (
        float(np.atleast_1d(np.asarray(dataset[key].value, dtype=float))[0]) for key in ("WindowCenter", "WindowWidth")
    )
    function = str(dataset.get("VOILUTFunction", "LINEAR"))
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-6)
    return np.clip((values - center) / width + 0.5, 0, 1)
