"""DICOM through the optional pydicom: rescaled, and windowed as the file says."""

from __future__ import annotations

from typing import IO

import numpy as np

from encoscope.errors import ImageError, MissingError
from encoscope.images.levels import RawPixels, check_size


def decode_dicom(data: IO[bytes], max_pixels: int, window: tuple[float, float] | None) -> RawPixels:
    """The first frame of a DICOM file.

    Colour comes as it is stored. Grey is rescaled (slope and intercept: Hounsfield units in CT); without a
    ``window`` the file's own first one applies (DICOM PS3.3, C.11.2.1.2), and failing that the range of the bits stored
    maps to [0, 1]. MONOCHROME1 (low is white) is turned, so that air is dark everywhere.
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
        values, ends = _by_own_window(values, dataset), (0.0, 1.0)
    elif window is None:
        lowest = -(2 ** (bits - 1)) if signed else 0
        values, ends = (stored.astype(np.float32) - lowest) / (2**bits - 1), (0.0, 1.0)
    else:
        ends = window
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = sum(ends) - values  # swaps the window's ends
    return RawPixels(values[:, :, None], 1.0)


def _by_own_window(values: np.ndarray, dataset) -> np.ndarray:
    centre, width = (
        float(np.atleast_1d(np.asarray(dataset[key].value, dtype=float))[0]) for key in ("WindowCenter", "WindowWidth")
    )
    function = str(dataset.get("VOILUTFunction", "LINEAR"))
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return np.clip((values - centre) / width + 0.5, 0, 1)
