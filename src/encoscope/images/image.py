"""A decoded image, and the record of one that could not be decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from encoscope.concise_repr import concise_repr


@concise_repr
@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image, decoded and upright, at its own size.

    Attributes:
        pixels: ``[height, width, channels]``, either uint8 (0 to 255) or float32 in [0, 1] (for 16-bit, floating-point
            and windowed sources). Three channels are red, green and blue.
        path: The file as it was named; None for an image from memory.
        id: sha256, in hex, of the file's bytes, or of the pixels if there is no file.
    """

    pixels: UInt8[np.ndarray, "height width channels"] | Float32[np.ndarray, "height width channels"]
    path: str | None
    id: str

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """Values of each pixel."""
        return self.pixels.shape[2]


@dataclass(frozen=True)
class SkippedImage:
    """An image that was left out.

    Attributes:
        path: Its file, or another name if it has none.
        reason: Why it was left out, in one line.
    """

    path: str
    reason: str


def hash_pixels(pixels: np.ndarray) -> str:
    """Compute the id of an image without a file.

    Args:
        pixels: Its pixels.

    Returns:
        sha256 of dtype, shape and values, in hex.
    """
    digest = hashlib.sha256(f"{pixels.dtype.str}{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
