"""TIFFs with more than Pillow's modes hold: further bands, opacity as it is stored, deep and floating-point color."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from encoscope.errors import ImageError, MissingError
from encoscope.images.bands import decode_bytes, decode_words
from encoscope.images.levels import RawPixels, check_size

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT, _ORIENTATION = 258, 262, 277, 284, 338, 339, 274
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED = 0, 1, 2, 3, 5
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4, 6: 3, 8: 3}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # in ExtraSamples: associated and unassociated alpha; 0 is unspecified


@dataclass(frozen=True)
class TiffLayout:
    """How the first image of a TIFF holds its pixels.

    Attributes:
        samples: Values of each pixel.
        bits: Bits of each value.
        is_unsigned: Whether the values are unsigned integers.
        photometric: TIFF's number for what the first samples mean: 2 is red, green and blue.
        extra: TIFF's number for what each further sample means; missing ones count as unspecified.
        is_planar: Whether each band is stored on its own.
    """

    samples: int
    bits: tuple[int, ...]
    is_unsigned: bool
    photometric: int
    extra: tuple[int, ...]
    is_planar: bool

    @property
    def colors(self) -> int:
        """The number of samples that are color (or grey)."""
        return min(_COLORS.get(self.photometric, self.samples), self.samples)

    @property
    def is_plain(self) -> bool:
        """Whether Pillow's own modes hold all of it: one band, or color of 8 bits without further bands."""
        deepest = max(self.bits)
        if self.samples == 1:  # Pillow takes signed bytes and long words for other numbers
            return self.is_unsigned == (deepest == 8) if deepest in (8, 32) else True
        is_contiguous = not self.is_planar or self.samples == 3
        return self.samples == self.colors and deepest <= 8 and self.is_unsigned and is_contiguous

    def label_bands(self, values: np.ndarray, white: float) -> RawPixels:
        """Say which of some values are color, opacity, or neither.

        Args:
            values: ``[height, width, samples]``.
            white: The stored value that means 1.0.

        Returns:
            The values, named. Grey whose white is 0 is turned round.
        """
        extra = [*self.extra, *[0] * self.samples][: self.samples - self.colors]
        if self.photometric == _WHITE_IS_ZERO and self.is_unsigned:
            values = np.concatenate([values.dtype.type(white) - values[..., :1], values[..., 1:]], 2)
        opacity = [index for index, kind in enumerate(extra) if kind in (_PREMULTIPLIED, _STRAIGHT)]
        alpha = self.colors + opacity[0] if opacity else None
        is_premultiplied = bool(opacity) and extra[opacity[0]] == _PREMULTIPLIED
        return RawPixels(values, white, alpha, is_premultiplied, self.colors)


def read_layout(image: Image.Image) -> TiffLayout:
    """Read the layout of a TIFF that Pillow has opened.

    Args:
        image: The image.

    Returns:
        The layout of its current frame.
    """
    tags: Any = getattr(image, "tag_v2", {})
    samples = int(tags.get(_SAMPLES, 1))
    extra = tags.get(_EXTRA, ())
    return TiffLayout(
        samples=samples,
        bits=tuple(tags.get(_BITS, (1,))),
        is_unsigned=set(tags.get(_FORMAT, (1,))) <= {1, 4},
        photometric=int(tags.get(_PHOTOMETRIC, _BLACK_IS_ZERO)),
        extra=tuple(extra) if isinstance(extra, tuple | list) else (int(extra),),
        is_planar=tags.get(_PLANAR, 1) == 2,
    )


def decode_tiff(data: Any, max_pixels: int, channels: int, layout: TiffLayout | None = None) -> RawPixels:
    """Decode the first image of a TIFF to its stored values.

    Args:
        data: The open file.
        max_pixels: The largest number of pixels.
        channels: The number of channels that are needed. For other numbers than 1 and 3 a stack of as many pages is one
            image.
        layout: How the file holds its pixels, where Pillow can open it.

    Returns:
        The stored values.

    Raises:
        ImageError: The file does not hold a single image, one that is too large, or a kind of color that is not read.
        MissingError: tifffile, or a codec that it needs, is not installed.
    """
    if layout is not None and channels in (1, 3, layout.samples) and not layout.is_planar and layout.is_unsigned:
        words = set(layout.bits) == {16}
        if layout.photometric == _RGB and layout.samples in (3, 4) and (words or set(layout.bits) == {8}):
            mode = "RGB" if layout.samples == 3 else "RGBA"
            values = decode_words(data, layout.samples) if words else decode_bytes(data, mode)
            return layout.label_bands(values, 65535.0 if words else 255.0)
    try:
        import tifffile
    except ImportError as error:
        raise MissingError("this kind of TIFF needs tifffile: pip install 'encoscope[tiff]'") from error
    data.seek(0)
    with tifffile.TiffFile(data) as file:
        try:
            return _read_page(file, max_pixels, channels)
        except (ValueError, RuntimeError) as error:
            if "imagecodecs" not in str(error):
                raise
            how = str(getattr(file.pages[0].compression, "name", "in a rare way"))
            raise MissingError(
                f"this TIFF is compressed ({how}) and needs imagecodecs: pip install imagecodecs, or save it without "
                "compression"
            ) from error


def _read_page(file: Any, max_pixels: int, channels: int) -> RawPixels:
    page = file.pages[0]
    if channels not in (1, 3) and page.samplesperpixel == 1:
        return _read_stack(file.series[0], max_pixels)
    sides = dict(zip(page.axes, page.shape, strict=True))
    check_size(sides.get("X", 1), sides.get("Y", 1), max_pixels)
    values = _arrange(np.asarray(page.asarray()), page.axes, page.shape)
    bits = page.bitspersample
    layout = TiffLayout(
        samples=values.shape[2],
        bits=(bits,) if isinstance(bits, int) else tuple(bits),
        is_unsigned=values.dtype.kind == "u",
        photometric=int(page.photometric),
        extra=tuple(int(kind) for kind in page.extrasamples),
        is_planar=False,
    )
    if layout.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED) and channels in (1, 3):
        raise ImageError(
            f"its color is {getattr(page.photometric, 'name', page.photometric)} of {max(layout.bits)} bits, which is "
            "not read: save it as RGB"
        )
    white = float(2 ** max(layout.bits) - 1) if layout.is_unsigned else _white_of(values)
    if page.tags.get(_ORIENTATION) is not None:
        values = _turn(values, int(page.tags[_ORIENTATION].value))
    if layout.photometric == _SEPARATED and channels in (1, 3) and layout.is_unsigned and layout.samples == 4:
        ink = values.astype(np.float32) / np.float32(white)
        return RawPixels((1 - ink[..., :3]) * (1 - ink[..., 3:]), 1.0)
    return layout.label_bands(values, white)


def _read_stack(series: Any, max_pixels: int) -> RawPixels:
    """Pages of grey as the bands of one image."""
    sides = dict(zip(series.axes, series.shape, strict=True))
    check_size(sides.get("X", 1), sides.get("Y", 1), max_pixels)
    values = _arrange(np.asarray(series.asarray()), series.axes, series.shape)
    return RawPixels(values, _white_of(values), colors=values.shape[2])


def _arrange(values: np.ndarray, axes: str, shape: tuple[int, ...]) -> np.ndarray:
    """[height, width, bands] of an array with named axes."""
    sides = dict(zip(axes, shape, strict=True))
    bands = [axis for axis in axes if axis not in "YX" and sides[axis] > 1]
    if not {"X", "Y"} <= set(axes) or len(bands) > 1:
        raise ImageError(f"a TIFF with axes {axes} and shape {shape} is not one image")
    order = [axes.index(axis) for axis in ["Y", "X", *bands]]
    rest = [axis for axis in range(values.ndim) if axis not in order]
    return np.transpose(values, order + rest).reshape(sides["Y"], sides["X"], -1)


def _white_of(values: np.ndarray) -> float:
    return float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0


def _turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image upright, by TIFF's number for how it lies."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if rows else 1, :: -1 if columns else 1]
