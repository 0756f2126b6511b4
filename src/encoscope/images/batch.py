"""Images to the normalized tensor that a network takes, with the geometry that leads back to each image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
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
        resized = _covering(original, (floor(target[0] / preprocess.crop), floor(target[1] / preprocess.crop)))
        # half to even, as in torchvision's center crop
        offset = (round((resized[0] - target[0]) / 2), round((resized[1] - target[1]) / 2))
        valid = target
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
    keep = fixed or (geometry == "model" and size == "model")
    sides = valid if keep else tuple(ceil(v / m) * m for v, m in zip(valid, multiples, strict=True))
    pixels = resize_image(image.pixels, resized, preprocess.interpolation)
    pixels = pixels[offset[0] : offset[0] + valid[0], offset[1] : offset[1] + valid[1]]
    mapping = Geometry(original, resized, offset, valid, (sides[0], sides[1]))
    return _normalize(as_channels(pixels, preprocess.channels), preprocess), mapping


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


def _normalize(pixels: np.ndarray, preprocess: Preprocess) -> Float[Tensor, "channels height width"]:
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)).copy())
    values = values.float().div_(255) if values.dtype == torch.uint8 else values
    mean, std = (
        _per_channel(numbers, preprocess.channels, name)
        for numbers, name in ((preprocess.mean, "mean"), (preprocess.std, "std"))
    )
    return values.sub_(mean).div_(std)


def _per_channel(numbers: tuple[float, ...], channels: int, name: str) -> Tensor:
    if len(numbers) not in (1, channels):
        raise UsageError(f"{name} has {len(numbers)} values for {channels} channels: give one for each")
    return torch.tensor(numbers).view(-1, 1, 1)
