"""Figures of results from arrays: label maps, overlays with outlines, contact sheets. Only numpy and Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont

from encoscope.errors import EncoscopeError, MissingError, UsageError

# Okabe and Ito's colors, chosen for all kinds of color vision, without black; all others differ from them
_FIRST = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
_HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # brighter as they go up
_CAREFUL = 20  # colors chosen so that red- and green-blind people can distinguish them too
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB: protanopia and deuteranopia
_BLIND = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
# linear RGB to OKLab (Ottosson 2020)
_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@lru_cache(maxsize=1)
def _palette() -> UInt8[np.ndarray, "256 3"]:
    """256 colors from a grid without very dark and very bright ones; each is the one most different from all before."""
    axis = np.linspace(0, 255, 18).round()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = to_oklab(grid)[:, 0]
    first = np.array([ImageColor.getrgb(name) for name in _FIRST], dtype=np.float64)
    colors = np.concatenate([first, grid[(lightness > 0.32) & (lightness < 0.93)]])
    ordinary = to_oklab(colors)[None]
    # color-blind people see two dimensions, with smaller distances: these are doubled
    blind = 2 * np.stack([to_oklab(colors, matrix) for matrix in _BLIND])
    chosen = list(range(len(first)))
    for views, until in ((np.concatenate([ordinary, blind]), _CAREFUL), (ordinary, 256)):
        room = np.min([_distance(views, index) for index in chosen], axis=0)
        while len(chosen) < until:
            chosen.append(int(room.argmax()))
            room = np.minimum(room, _distance(views, chosen[-1]))
    return colors[chosen].round().astype(np.uint8)


def _distance(views: np.ndarray, index: int) -> np.ndarray:
    """Distances from one color to all, in the view in which they differ least."""
    return np.linalg.norm(views - views[:, index : index + 1], axis=-1).min(axis=0)


def palette(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Return the first colors of a fixed list in which all differ, and neighbours differ most.

    Args:
        count: Number of colors, 1 to 256.

    Returns:
        sRGB colors, 0 to 255.

    Raises:
        UsageError: ``count`` is out of range.

    Example:
        >>> palette(1).tolist()
        [[230, 159, 0]]
    """
    if not 1 <= count <= 256:
        raise UsageError(f"a palette has 1 to 256 colors, not {count}")
    return _palette()[:count]


def to_oklab(
    colors: Float[np.ndarray, "... 3"], blind: Float[np.ndarray, "3 3"] | None = None
) -> Float[np.ndarray, "... 3"]:
    """Convert sRGB colors to OKLab.

    Args:
        colors: sRGB, 0 to 255, along the last axis.
        blind: A matrix on linear RGB that simulates color blindness; none for ordinary vision.

    Returns:
        OKLab coordinates along the last axis; the first is the lightness, in [0, 1].

    Source: OKLab (Ottosson, 2020).
    """
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    if blind is not None:
        linear = np.clip(linear @ blind.T, 0, 1)
    return np.cbrt(linear @ _LMS.T) @ _LAB.T


def draw_overlay(
    image: Any, labels: Integer[np.ndarray, "height width"], alpha: float = 0.5, *, outlines: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the colors of labels over an image, and a white line with black sides around every region.

    Args:
        image: A LoadedImage or its pixels ``[height, width, channels]``, uint8 or floats in [0, 1].
        labels: A label for each pixel, up to 255; where it is negative, the image stays as it is.
        alpha: Share of the color, 0 to 1.
        outlines: Whether to draw the lines.

    Returns:
        The overlay, sRGB.

    Raises:
        UsageError: The labels have another size than the image, or are larger than 255.
    """
    base = to_rgb(image)
    if base.shape[:2] != labels.shape:
        raise UsageError(f"labels of shape {labels.shape} do not fit an image of shape {base.shape[:2]}")
    _check_labels(labels)
    # the image is turned grey, so that the hue is that of the label alone
    grey = np.asarray(Image.fromarray(base).convert("L"), dtype=np.float32)[:, :, None]
    mixed = grey * (1 - alpha) + palette(256)[np.maximum(labels, 0)] * np.float32(alpha)
    drawn = np.where((labels >= 0)[:, :, None], mixed.round(), base).astype(np.uint8)
    if outlines:
        width = max(1, round(min(labels.shape) / 400))
        edges = find_boundaries(labels)
        drawn[_thicken(edges, 2 * width)] = 0
        drawn[_thicken(edges, width - 1)] = 255
    return drawn


def draw_heat(
    image: Any, values: Float[np.ndarray, "height width"], region: Integer[np.ndarray, "height width"] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw values as heat over an image: dark where they are 0, yellow where they are 1.

    Args:
        image: A LoadedImage or its pixels.
        values: A value in [0, 1] for each pixel.
        region: Not 0 for pixels that are outlined together; None for none.

    Returns:
        The drawing, sRGB.
    """
    grey = np.asarray(Image.fromarray(to_rgb(image)).convert("L"), dtype=np.float32)[:, :, None]
    stops = np.linspace(0, 1, len(_HEAT))
    color = np.stack([np.interp(values, stops, [stop[channel] for stop in _HEAT]) for channel in range(3)], axis=2)
    drawn = (grey * 0.4 + color * 0.6).round().astype(np.uint8)
    if region is not None:
        width = max(1, round(min(region.shape) / 300))
        edges = find_boundaries(region)
        drawn[_thicken(edges, 2 * width)] = 0
        drawn[_thicken(edges, width - 1)] = 255
    return drawn


def draw_marks(
    pixels: UInt8[np.ndarray, "height width 3"],
    points: Sequence[tuple[float, float]],
    crosses: Sequence[tuple[float, float]] = (),
    boxes: Sequence[tuple[float, float, float, float]] = (),
    *,
    scale: tuple[float, float] = (1.0, 1.0),
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw points as rings, others as crosses, and boxes.

    Args:
        pixels: What is drawn on.
        points: (x, y) of the rings.
        crosses: (x, y) of the crosses.
        boxes: (x0, y0, x1, y1), both corners inside.
        scale: What x and y are multiplied with.

    Returns:
        The drawing.
    """
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    radius = max(4, round(min(image.size) / 40))
    for line, color in ((max(3, radius // 2 + 2), "black"), (max(1, radius // 4), "white")):
        for x, y in points:
            x, y = (x + 0.5) * scale[0], (y + 0.5) * scale[1]
            around = radius + line / 2
            draw.ellipse((x - around, y - around, x + around, y + around), outline=color, width=line)
        for x, y in crosses:
            x, y = (x + 0.5) * scale[0], (y + 0.5) * scale[1]
            draw.line((x - radius, y - radius, x + radius, y + radius), fill=color, width=line)
            draw.line((x - radius, y + radius, x + radius, y - radius), fill=color, width=line)
        for x0, y0, x1, y1 in boxes:
            corners = (x0 * scale[0], y0 * scale[1], (x1 + 1) * scale[0] - 1, (y1 + 1) * scale[1] - 1)
            draw.rectangle(corners, outline=color, width=line)
    return np.asarray(image)


def find_boundaries(labels: Integer[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Find the pixels whose right or lower neighbour has another label.

    Args:
        labels: A label for each pixel.

    Returns:
        True for these pixels.
    """
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def draw_label_image(labels: Integer[np.ndarray, "height width"], *, colored: bool = False) -> Image.Image:
    """Draw labels as an image with one channel.

    Args:
        labels: A label for each pixel, 0 to 255.
        colored: Whether values are indices of a palette (mode P), so that viewers show colors, or grey values (mode L).

    Returns:
        An image whose values are the labels.

    Raises:
        UsageError: A label is out of range.
    """
    _check_labels(labels, lowest=0)
    image = Image.fromarray(labels.astype(np.uint8))
    if colored:
        image.putpalette(palette(256).tobytes())
    return image


def read_sheet(path: Path) -> Image.Image:
    """Read the image file of a saved result.

    Args:
        path: The file.

    Returns:
        The image, in memory.

    Raises:
        MissingError: When there is none.
        EncoscopeError: When it is damaged.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing: the result is not whole") from error
    except (OSError, ValueError) as error:
        raise EncoscopeError(f"{path} is damaged: the result is not whole") from error


def draw_contact_sheet(
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    columns: int = 4,
    *,
    cell: int = 240,
    title: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw images in rows on white, each with a caption below.

    Args:
        images: PIL images, LoadedImages or pixels ``[height, width, channels]``; at least one.
        captions: A text for each image, shown in at most two lines; none if left out.
        columns: Images in a row, at most.
        cell: Side of the square into which each image is fitted, pixels.
        title: Lines above all images, cut at the width of the sheet.

    Returns:
        The sheet, sRGB.

    Raises:
        UsageError: There is no image, or the number of captions is another.
    """
    if not images:
        raise UsageError("a contact sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise UsageError(f"{len(captions)} captions for {len(images)} images")
    gap, font = max(4, cell // 24), ImageFont.load_default(max(10, cell // 17))
    line = round(font.getbbox("Ág")[3] * 1.1)
    columns = min(columns, len(images))
    fitted = [_fit(image, cell) for image in images]
    texts = [_lines(caption, font, cell) for caption in captions] if captions else [[] for _ in images]
    starts = range(0, len(images), columns)
    heights = [max(image.height for image in fitted[i : i + columns]) for i in starts]
    below = [max(len(text) for text in texts[i : i + columns]) * line for i in starts]
    width, above = columns * (cell + gap) + gap, ImageFont.load_default(max(12, cell // 11))
    step = round(above.getbbox("Ág")[3] * 1.2)
    top = gap + step * len(title) + (gap if title else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) + sum(below) + gap * len(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, words in enumerate(title):
        draw.text((gap, gap + number * step), _cut(words, above, width - 2 * gap), fill="black", font=above)
    for row, start in enumerate(starts):
        for column, index in enumerate(range(start, min(start + columns, len(images)))):
            left, image = gap + column * (cell + gap), fitted[index]
            sheet.paste(image, (left + (cell - image.width) // 2, top))
            for number, words in enumerate(texts[index]):
                position = (left + cell / 2, top + image.height + number * line)
                draw.text(position, words, fill="black", font=font, anchor="ma")
        top += heights[row] + below[row] + gap
    return np.asarray(sheet)


def to_rgb(image: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Convert an image to 8-bit sRGB.

    Args:
        image: A LoadedImage or its pixels ``[height, width, channels]``, uint8 or floats in [0, 1], which are clipped.

    Returns:
        The pixels. Of one or two channels the first is repeated, of more than three the first three are taken.

    Raises:
        UsageError: The array does not have three axes.
    """
    pixels = np.asarray(getattr(image, "pixels", image))
    if pixels.ndim != 3:
        raise UsageError(f"an image has shape [height, width, channels], not {pixels.shape}")
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _check_labels(labels: np.ndarray, lowest: int | None = None) -> None:
    if labels.size and (labels.max() > 255 or (lowest is not None and labels.min() < lowest)):
        raise UsageError(f"labels from {labels.min()} to {labels.max()} do not fit an image of 256 colors")


def _thicken(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask, extended along both axes by ``by`` pixels: ``by // 2`` backwards and the rest forwards."""
    for axis in (0, 1):
        grown = mask.copy()
        for shift in range(1, by + 1):
            distance = (shift + 1) // 2 if shift % 2 else -(shift // 2)
            moved = np.zeros_like(mask)
            source, target = [slice(None)] * 2, [slice(None)] * 2
            source[axis] = slice(None, -distance) if distance > 0 else slice(-distance, None)
            target[axis] = slice(distance, None) if distance > 0 else slice(None, distance)
            moved[tuple(target)] = mask[tuple(source)]
            grown |= moved
        mask = grown
    return mask


def _fit(image: Any, cell: int) -> Image.Image:
    converted = image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(to_rgb(image))
    scale = cell / max(converted.size)
    size = tuple(max(1, round(side * scale)) for side in converted.size)
    return converted.resize((size[0], size[1]), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _lines(caption: str, font: Any, width: int) -> list[str]:
    """A caption in at most two lines, broken between words if possible; an ellipsis where it is cut."""
    lines: list[str] = []
    rest = " ".join(caption.split())
    while rest and len(lines) < 2:
        fits = next((n for n in range(len(rest), 1, -1) if font.getlength(rest[:n]) <= width), 1)
        if fits < len(rest):
            fits = rest.rfind(" ", 1, fits + 1) if " " in rest[1 : fits + 1] else fits
        lines.append(rest[:fits])
        rest = rest[fits:].strip()
    if rest:
        lines[-1] = _cut(lines[-1] + rest, font, width)
    return lines


def _cut(text: str, font: Any, width: int) -> str:
    """As much of a text as fits, with an ellipsis where it is cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
