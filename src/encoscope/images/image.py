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
    """One image, decoded and upright, at its own size.

    pixels: ``[height, width, channels]``, either uint8 (0 to 255) or float32 in [0, 1] (16-bit, floating-point and
    windowed sources). Channels are red, green, blue unless other channels were asked for.
    path: where it was read from, as given; None for an image that was handed over in memory.
    id: sha256, in hex, of the file's bytes; of the pixels where there is no file.
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
        """Values a pixel."""
        return self.pixels.shape[2]


@dataclass(frozen=True)
class SkippedImage:
    """An image that was left out, and why, in one line."""

    path: str
    reason: str


def hash_pixels(pixels: np.ndarray) -> str:
    """The id of an image that has no file: sha256 over dtype, shape and values."""
    digest = hashlib.sha256(f"{pixels.dtype.str}{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
