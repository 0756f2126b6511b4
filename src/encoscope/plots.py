"""Pictures of results from arrays: label maps, overlays with outlines, contact sheets. Only numpy and Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont

from encoscope.errors import UsageError

# Okabe and Ito's colours, made for all kinds of colour vision, without black; all others keep clear of them
_FIRST = ("#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442")
_CAREFUL = 20  # colours chosen so that red- and green-blind eyes tell them apart too
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
    """256 colours of a grid of neither dark nor bright ones, each the one farthest from all before it."""
    axis = np.linspace(0, 255, 18).round()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = to_oklab(grid)[:, 0]
    first = np.array([ImageColor.getrgb(name) for name in _FIRST], dtype=np.float64)
    colours = np.concatenate([first, grid[(lightness > 0.32) & (lightness < 0.93)]])
    ordinary = to_oklab(colours)[None]
    # blind eyes see two dimensions, with less room for distances: twice theirs counts
    blind = 2 * np.stack([to_oklab(colours, matrix) for matrix in _BLIND])
    chosen = list(range(len(first)))
    for views, until in ((np.concatenate([ordinary, blind]), _CAREFUL), (ordinary, 256)):
        room = np.min([_distance(views, index) for index in chosen], axis=0)
        while len(chosen) < until:
            chosen.append(int(room.argmax()))
            room = np.minimum(room, _distance(views, chosen[-1]))
    return colours[chosen].round().astype(np.uint8)


def _distance(views: np.ndarray, index: int) -> np.ndarray:
    """From one colour to all, as the eyes see it that tell them apart least."""
    return np.linalg.norm(views - views[:, index : index + 1], axis=-1).min(axis=0)


def palette(count: int) -> UInt8[np.ndarray, "count 3"]:
    """The first ``count`` colours, 1 to 256, of a fixed list: neighbours in the list differ most, all differ."""
    if not 1 <= count <= 256:
        raise UsageError(f"a palette has 1 to 256 colours, not {count}")
    return _palette()[:count]


def to_oklab(
    colours: Float[np.ndarray, "... 3"], blind: Float[np.ndarray, "3 3"] | None = None
) -> Float[np.ndarray, "... 3"]:
    """sRGB colours, 0 to 255, in OKLab, as ordinary eyes see them or through a simulation of colour blindness."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    if blind is not None:
        linear = np.clip(linear @ blind.T, 0, 1)
    return np.cbrt(linear @ _LMS.T) @ _LAB.T


def draw_overlay(
    photo: Any, labels: Integer[np.ndarray, "height width"], alpha: float = 0.5, *, outlines: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
    """The colours of labels 0 to 255 laid over a photo, and a white line with black sides around every region.

    photo: a Photo or its pixels ``[height, width, channels]``. alpha: share of the colour, 0 to 1. Negative labels
    leave the photo as it is.
    """
    base = to_rgb(photo)
    if base.shape[:2] != labels.shape:
        raise UsageError(f"labels of shape {labels.shape} do not fit a photo of shape {base.shape[:2]}")
    _check_labels(labels)
    # the grey photo keeps its light and shade under a colour that is the label's alone
    grey = np.asarray(Image.fromarray(base).convert("L"), dtype=np.float32)[:, :, None]
    mixed = grey * (1 - alpha) + palette(256)[np.maximum(labels, 0)] * np.float32(alpha)
    picture = np.where((labels >= 0)[:, :, None], mixed.round(), base).astype(np.uint8)
    if outlines:
        width = max(1, round(min(labels.shape) / 400))
        edges = find_boundaries(labels)
        picture[_thicker(edges, 2 * width)] = 0
        picture[_thicker(edges, width - 1)] = 255
    return picture


def find_boundaries(labels: Integer[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels whose right or lower neighbour has another label."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def draw_label_image(labels: Integer[np.ndarray, "height width"], *, coloured: bool = False) -> Image.Image:
    """Labels 0 to 255 as a one-channel image: grey values are the labels (mode L), or palette indices (mode P)."""
    _check_labels(labels, lowest=0)
    image = Image.fromarray(labels.astype(np.uint8))
    if coloured:
        image.putpalette(palette(256).tobytes())
    return image


def draw_contact_sheet(
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    columns: int = 4,
    *,
    cell: int = 240,
    title: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """Images in rows on white, each fitted into a square of ``cell`` pixels, its caption in at most two lines below.

    title: lines above all of them, cut where the sheet ends.
    """
    if not images:
        raise UsageError("a contact sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise UsageError(f"{len(captions)} captions for {len(images)} images")
    gap, font = max(4, cell // 24), ImageFont.load_default(max(10, cell // 17))
    line = round(font.getbbox("Ág")[3] * 1.1)
    columns = min(columns, len(images))
    pictures = [_fitted(image, cell) for image in images]
    texts = [_lines(caption, font, cell) for caption in captions] if captions else [[] for _ in images]
    starts = range(0, len(images), columns)
    heights = [max(picture.height for picture in pictures[i : i + columns]) for i in starts]
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
            left, picture = gap + column * (cell + gap), pictures[index]
            sheet.paste(picture, (left + (cell - picture.width) // 2, top))
            for number, words in enumerate(texts[index]):
                place = (left + cell / 2, top + picture.height + number * line)
                draw.text(place, words, fill="black", font=font, anchor="ma")
        top += heights[row] + below[row] + gap
    return np.asarray(sheet)


def to_rgb(photo: Any) -> UInt8[np.ndarray, "height width 3"]:
    """A Photo or its pixels (uint8, or floats in [0, 1]) as 8-bit colour; of many channels the first three."""
    pixels = np.asarray(getattr(photo, "pixels", photo))
    if pixels.ndim != 3:
        raise UsageError(f"a picture has shape [height, width, channels], not {pixels.shape}")
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _check_labels(labels: np.ndarray, lowest: int | None = None) -> None:
    if labels.size and (labels.max() > 255 or (lowest is not None and labels.min() < lowest)):
        raise UsageError(f"labels from {labels.min()} to {labels.max()} do not fit a picture of 256 colours")


def _thicker(mask: np.ndarray, by: int) -> np.ndarray:
    """Every pixel with a marked one at most ``by // 2`` before and ``by - by // 2`` after it, in both directions."""
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


def _fitted(image: Any, cell: int) -> Image.Image:
    picture = image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(to_rgb(image))
    scale = cell / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _lines(caption: str, font: Any, width: int) -> list[str]:
    """A caption broken into at most two lines, between words or else anywhere; an ellipsis where some is lost."""
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
    """As much of a text as fits, an ellipsis where some is lost."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
