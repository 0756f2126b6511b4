"""Images to the normalized tensor that a network takes, with the geometry that leads back to each image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.errors import ImageError, UsageError
from encoscope.images.geometry import Geometry, GeometryKind, Preprocess
from encoscope.images.image import LoadedImage
from encoscope.images.levels import as_channels
from encoscope.images.resize import resize_image

_MAX_CANVAS = 100_000_000  # pixels of one resized image; a 1 x 100,000 strip at short side 224 would pass it


@concise_repr
@dataclass(frozen=True, eq=False)
class Batch:
    """Normalized images on a common canvas.

    Attributes:
        pixels: The images. Padding is zero, which is the mean color.
        geometries: For each image how it was resized, cropped and padded.
    """

    pixels: Float[Tensor, "batch channels height width"]
    geometries: tuple[Geometry, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.geometries)

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to another device.

        Args:
            device: A torch device, such as "cpu" or "cuda".

        Returns:
            The batch there.
        """
        return replace(self, pixels=self.pixels.to(device))


def make_batch(
    images: Sequence[LoadedImage],
    preprocess: Preprocess,
    *,
    geometry: GeometryKind = "model",
    size: int | Literal["model", "native"] = "model",
    multiple: int | tuple[int, int] = 1,
    fixed: bool = False,
) -> Batch:
    """Prepare images for a network.

    Images whose canvases differ are padded to a common one. Grey and color images are converted to the network's
    channels.

    Args:
        images: The images, at least one.
        preprocess: How the network takes its input.
        geometry: "model" is the network's own resize and center crop, as timm and torchvision evaluate; "whole" crops
            nothing: the short side is resized to the network's (smaller) side and the aspect ratio is kept.
        size: "model", the network's own size; a side in pixels in place of it; or, for "whole", "native": not resized.
        multiple: The sides are padded at the bottom and the right, with zeros, to multiples of this (rows, columns), as
            networks with patches need. The network's own size is never padded.
        fixed: Whether the network takes its own size alone; then "whole" resizes the whole image to it, whatever the
            aspect ratio.

    Returns:
        The batch.

    Raises:
        UsageError: There is no image, or the arguments contradict each other.
        ImageError: An image's channels do not fit, or the resized image would be too large.
    """
    if not images:
        raise UsageError("an empty batch: give at least one image")
    _check(preprocess, geometry, size, fixed)
    multiples = (multiple, multiple) if isinstance(multiple, int) else multiple
    prepared = [_prepare(image, preprocess, geometry, size, multiples, fixed) for image in images]
    rows, columns = (max(mapping.canvas[axis] for _, mapping in prepared) for axis in (0, 1))
    pixels = torch.zeros(len(prepared), preprocess.channels, rows, columns)
    for index, (values, mapping) in enumerate(prepared):
        pixels[index, :, : mapping.valid[0], : mapping.valid[1]] = values
    return Batch(pixels, tuple(mapping.on_canvas((rows, columns)) for _, mapping in prepared))


def _check(preprocess: Preprocess, geometry: str, size: int | str, fixed: bool) -> None:
    if geometry not in ("model", "whole"):
        raise UsageError(f"geometry is 'model' or 'whole', not {geometry!r}")
    if isinstance(size, str) and size not in ("model", "native"):
        raise UsageError(f"size is 'model', 'native' or a number of pixels, not {size!r}")
    if isinstance(size, int) and size < 1:
        raise UsageError(f"size is a number of pixels, at least 1, not {size}")
    if size == "native" and geometry == "model":
        raise UsageError("size='native' goes with geometry='whole': the network's own crop has the network's own size")
    own = preprocess.size[0] if preprocess.size[0] == preprocess.size[1] else None
    if fixed and size not in ("model", own):
        height, width = preprocess.size
        raise UsageError(
            f"this network takes images of {height} x {width} only, not size={size!r}: leave size as 'model'"
        )


def _prepare(
    image: LoadedImage,
    preprocess: Preprocess,
    geometry: GeometryKind,
    size: int | Literal["model", "native"],
    multiples: tuple[int, int],
    fixed: bool,
) -> tuple[Float[Tensor, "channels height width"], Geometry]:
    original = (image.height, image.width)
    target = (size, size) if isinstance(size, int) else preprocess.size
    offset = (0, 0)
    if geometry == "model":
        resized = _resized(original, preprocess, target)
        valid = target if preprocess.window else resized
        offset = _center(resized, valid, preprocess.rounding)
    else:
        if fixed:
            resized = preprocess.size
        elif size == "native":
            resized = original
        else:
            resized = _short_side(original, min(target))
        valid = resized
    if resized[0] * resized[1] > _MAX_CANVAS:
        raise ImageError(
            f"{image.path or 'an image'}: {original[1]} x {original[0]} would become {resized[1]} x {resized[0]}: "
            "crop it to a less extreme shape, or choose a smaller size"
        )
    # a network's own size is never padded, whatever its stride, as in its training
    own = geometry == "model" and size == "model"
    sides = valid if own or fixed else tuple(ceil(v / m) * m for v, m in zip(valid, multiples, strict=True))
    if own and preprocess.pad_to is not None:
        sides = tuple(max(pair) for pair in zip(sides, preprocess.pad_to, strict=True))
    pixels = image.pixels
    if preprocess.resize_floats and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / np.float32(255)
    pixels = resize_image(pixels, resized, preprocess.interpolation)
    pixels = _cut(as_channels(_inside(pixels, offset, valid), preprocess.channels), resized, offset, valid, preprocess)
    mapping = Geometry(original, resized, offset, valid, (sides[0], sides[1]))
    return _normalize(pixels, preprocess), mapping


def _resized(original: tuple[int, int], preprocess: Preprocess, target: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to which the network's own preprocessing resizes an image."""
    if preprocess.resize == "none":
        return original
    aim = preprocess.resized_to(target)
    if preprocess.resize == "squash":
        return aim
    if preprocess.resize == "long":
        return _fitting(original, aim, preprocess.rounding)
    return _covering(original, aim)


def _center(outer: tuple[int, int], inner: tuple[int, int], rounding: str) -> tuple[int, int]:
    """(top, left) of a window in the middle of an image, negative for a window that is larger than the image."""
    gaps = [whole - part for whole, part in zip(outer, inner, strict=True)]
    if rounding == "down":
        return gaps[0] // 2, gaps[1] // 2
    # torchvision rounds half to even; where the image is smaller, it pads less on the top and the left
    top, left = (round(gap / 2) if gap >= 0 else ceil(gap / 2) for gap in gaps)
    return top, left


def _inside(pixels: np.ndarray, offset: tuple[int, int], window: tuple[int, int]) -> np.ndarray:
    """What of the image lies in the window."""
    (top, left), (rows, columns) = offset, window
    return pixels[max(0, top) : max(0, top + rows), max(0, left) : max(0, left + columns)]


def _cut(
    inside: np.ndarray,
    resized: tuple[int, int],
    offset: tuple[int, int],
    window: tuple[int, int],
    preprocess: Preprocess,
) -> np.ndarray:
    """The window, filled around an image that is smaller."""
    if inside.shape[:2] == window:
        return inside
    fill = np.asarray(preprocess.fill) if inside.dtype == np.uint8 else np.asarray(preprocess.fill) / 255
    canvas = np.empty((*window, inside.shape[2]), inside.dtype)
    canvas[:] = fill
    top, left = (max(0, -start) for start in offset)
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas


def _short_side(original: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) whose short side is ``side``; the long side is rounded down, as in torchvision's Resize."""
    height, width = original
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _covering(original: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same aspect ratio that covers the target, as in timm's evaluation."""
    if target[0] == target[1]:
        return _short_side(original, target[0])
    ratio = min(original[0] / target[0], original[1] / target[1])
    return round(original[0] / ratio), round(original[1] / ratio)


def _fitting(original: tuple[int, int], limit: tuple[int, int], rounding: str) -> tuple[int, int]:
    """The largest (height, width) of the same aspect ratio that fits into the limit."""
    if rounding == "down":
        scale = min(limit[0] / original[0], limit[1] / original[1])
        return max(1, int(original[0] * scale)), max(1, int(original[1] * scale))
    ratio = max(original[0] / limit[0], original[1] / limit[1])
    return max(1, round(original[0] / ratio)), max(1, round(original[1] / ratio))


def _normalize(pixels: np.ndarray, preprocess: Preprocess) -> Float[Tensor, "channels height width"]:
    planes = np.moveaxis(pixels, 2, 0)
    if preprocess.channel_order == "bgr":
        planes = planes[::-1]
    values = _rescale(torch.from_numpy(np.ascontiguousarray(planes).copy()), preprocess.rescale)
    mean, std = (
        _per_channel(numbers, preprocess.channels, name)
        for numbers, name in ((preprocess.mean, "mean"), (preprocess.std, "std"))
    )
    if preprocess.rescale_offset:
        values.sub_(preprocess.rescale_offset)
    values = values.sub_(mean).div_(std)
    return values.div_(std) if preprocess.std_twice else values


def _rescale(values: Tensor, factor: float) -> Tensor:
    """Values from 0 to 255, or floats in [0, 1], times the factor for 0 to 255; in single precision."""
    if values.dtype == torch.uint8:
        return values.float().div_(255) if factor == 1 / 255 else values.double().mul_(factor).float()
    return values if factor == 1 / 255 else values.double().mul_(255 * factor).float()


def _per_channel(numbers: tuple[float, ...], channels: int, name: str) -> Tensor:
    if len(numbers) not in (1, channels):
        raise UsageError(f"{name} has {len(numbers)} values for {channels} channels: give one for each")
    return torch.tensor(numbers).view(-1, 1, 1)
