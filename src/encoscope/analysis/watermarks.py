"""Watermarks that are put on images on purpose: drawn ones such as a box or a burnt-in letter, or an image file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from encoscope.errors import EncoscopeError, MissingError, suggest_nearest
from encoscope.file_kind import require_ordinary_file

SEEN = ("box", "letter", "stripes", "disc")
"""Kinds of watermark that existed when the audit's measures were chosen and tried out."""
UNSEEN = ("arrow", "ruler", "date")
"""Kinds that did not: what the audit is calibrated on."""
KINDS = (*SEEN, *UNSEEN)


@dataclass(frozen=True)
class Watermark:
    """A small image with its opacity.

    Attributes:
        name: For results.
        pixels: ``[height, width, 3]``
        alpha: ``[height, width]``, the opacity, 0 to 1.
    """

    name: str
    pixels: UInt8[np.ndarray, "height width 3"]
    alpha: Float[np.ndarray, "height width"]


def make_watermark(kind: str | os.PathLike[str], side: int) -> Watermark:
    """Make a watermark.

    "box" is black, as in NAVE's study of chest X-rays (figure 6); "letter" a white R as on an X-ray plate; "stripes"
    grey and fine; "disc" bright with a soft rim; "arrow" white, pointing up and left; "ruler" a white line with ticks;
    "date" white figures on a black strip.

    Args:
        kind: One of ``KINDS``, or an image file, transparent where the image is.
        side: Pixels of its longer side.

    Returns:
        The watermark.

    Raises:
        MissingError: neither a kind nor a file.
        EncoscopeError: a file that is no image.
    """
    name = os.fspath(kind)
    if name in KINDS:
        return _DRAWN[name](side)
    file = Path(name).expanduser()
    if not file.exists():
        raise MissingError(f"no watermark {name!r}{suggest_nearest(name, KINDS)}: {', '.join(KINDS)}, or an image file")
    require_ordinary_file(file)
    try:
        with Image.open(file) as image:
            scale = side / max(image.size)
            small = image.convert("RGBA").resize(
                (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
            )
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"cannot read the watermark {file}: {error}") from error
    values = np.asarray(small)
    return Watermark(file.name, values[:, :, :3].copy(), values[:, :, 3].astype(np.float32) / 255)


def place_watermark(
    pixels: UInt8[np.ndarray, "height width 3"], watermark: Watermark, key: Sequence[int]
) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Paste a watermark at a random position.

    Args:
        pixels: The image.
        watermark: What is pasted.
        key: Of the random position: the same key, the same position.

    Returns:
        (the changed copy, mask of where the watermark covers it visibly)
    """
    top, left = choose_position((pixels.shape[0], pixels.shape[1]), watermark, key)
    return paste_watermark(pixels, watermark, top, left)


def choose_position(size: tuple[int, int], watermark: Watermark, key: Sequence[int]) -> tuple[int, int]:
    """Choose a random position at which the whole watermark lies within an image.

    Args:
        size: (height, width) of the image.
        watermark: What is to be pasted.
        key: Of the random position.

    Returns:
        (top, left)

    Raises:
        EncoscopeError: the watermark is larger than the image.
    """
    rows, columns = watermark.alpha.shape
    if rows > size[0] or columns > size[1]:
        raise EncoscopeError(f"a watermark of {columns}x{rows} pixels does not fit an image of {size[1]}x{size[0]}")
    rng = np.random.default_rng(list(key))
    return int(rng.integers(size[0] - rows + 1)), int(rng.integers(size[1] - columns + 1))


def paste_watermark(
    pixels: UInt8[np.ndarray, "height width 3"], watermark: Watermark, top: int, left: int
) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Paste a watermark at a position.

    Args:
        pixels: The image.
        watermark: What is pasted.
        top: Row of its upper left corner.
        left: Column of its upper left corner.

    Returns:
        (the changed copy, mask of where the watermark covers it visibly)
    """
    rows, columns = watermark.alpha.shape
    changed, covered = pixels.copy(), np.zeros(pixels.shape[:2], dtype=bool)
    window = (slice(top, top + rows), slice(left, left + columns))
    alpha = watermark.alpha[:, :, None]
    changed[window] = np.rint(changed[window] * (1 - alpha) + watermark.pixels * alpha).astype(np.uint8)
    covered[window] = watermark.alpha > 0.5
    return changed, covered


def _box(side: int) -> Watermark:
    return Watermark("box", np.zeros((side, side, 3), np.uint8), np.ones((side, side), np.float32))


def _letter(side: int) -> Watermark:
    canvas = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(canvas).text((2 * side, 2 * side), "R", fill=255, font=ImageFont.load_default(5 * side), anchor="mm")
    return _white("letter", canvas)


def _stripes(side: int) -> Watermark:
    grey = np.where((np.arange(side) // max(1, side // 8)) % 2, 200, 56).astype(np.uint8)
    return Watermark(
        "stripes", np.broadcast_to(grey[:, None, None], (side, side, 3)).copy(), np.ones((side, side), np.float32)
    )


def _disc(side: int) -> Watermark:
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    radius = np.hypot(axis[:, None], axis[None])
    alpha = np.clip((1 - radius) * 4, 0, 1).astype(np.float32)
    return Watermark("disc", np.full((side, side, 3), 235, np.uint8), alpha)


def _arrow(side: int) -> Watermark:
    canvas, end = Image.new("L", (4 * side, 4 * side)), 4 * side
    pen = ImageDraw.Draw(canvas)
    pen.line((side, side, end, end), fill=255, width=max(4, side // 2))
    pen.polygon(((0, 0), (2.4 * side, 0.6 * side), (0.6 * side, 2.4 * side)), fill=255)
    return _white("arrow", canvas)


def _ruler(side: int) -> Watermark:
    wide = max(8, round(4 * side / 3))
    canvas = Image.new("L", (wide // 4 * 4, 4 * side))
    pen, ticks = ImageDraw.Draw(canvas), 5
    pen.rectangle((0, 0, wide // 3, 4 * side), fill=255)
    for tick in range(ticks):
        top = tick * (side - 1) // (ticks - 1) * 4  # whole pixels once it is shrunk
        pen.rectangle((0, top, wide, top + 3), fill=255)
    return _white("ruler", canvas)


def _date(side: int) -> Watermark:
    high = max(2, side // 3)
    canvas = Image.new("L", (4 * side, 4 * high))
    font = ImageFont.load_default(max(8, round(1.4 * side)))
    ImageDraw.Draw(canvas).text((2 * side, 2 * high), "04.97", fill=255, font=font, anchor="mm")
    strip = np.asarray(canvas.resize((side, high), Image.Resampling.BOX))
    return Watermark("date", np.repeat(strip[:, :, None], 3, axis=2), np.ones((high, side), np.float32))


def _white(name: str, canvas: Image.Image) -> Watermark:
    """The drawing in white, shrunk to a quarter."""
    small = canvas.resize((canvas.width // 4, canvas.height // 4), Image.Resampling.BOX)
    alpha = np.asarray(small, dtype=np.float32) / 255
    return Watermark(name, np.full((*alpha.shape, 3), 255, np.uint8), alpha)


_DRAWN = {
    "box": _box,
    "letter": _letter,
    "stripes": _stripes,
    "disc": _disc,
    "arrow": _arrow,
    "ruler": _ruler,
    "date": _date,
}
