"""Photos to the normalised tensor a network takes, with the way back to each photo's pixels."""

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
    """Normalised images on a common canvas, and how each got there; padding is zero, the mean colour."""

    pixels: Float[Tensor, "batch channels height width"]
    geometries: tuple[Geometry, ...]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.geometries)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, pixels=self.pixels.to(device))


def make_batch(
    photos: Sequence[LoadedImage],
    preprocess: Preprocess,
    *,
    geometry: GeometryKind = "model",
    size: int | Literal["model", "native"] = "model",
    multiple: int | tuple[int, int] = 1,
    fixed: bool = False,
) -> Batch:
    """Photos to a normalised batch.

    geometry: "model", the network's own resize and centre crop, as timm and torchvision evaluate; "whole", nothing
        cropped: the short side resized to the network's (smaller) side, the aspect kept.
    size: "model"; a side in pixels instead of the network's; or "native" for "whole": not resized.
    multiple: the sides are padded at the bottom and the right, with zeros, to multiples of this (rows, columns).
    fixed: the network takes its own size only: "whole" squashes the whole image to it.

    Photos whose canvases differ are padded to a common one. Grey and colour are turned into the network's
    channels. Raises UsageError for sizes that contradict, ImageError for a photo that cannot be brought there.
    """
    if not photos:
        raise UsageError("an empty batch: give at least one image")
    _check(preprocess, geometry, size, fixed)
    multiples = (multiple, multiple) if isinstance(multiple, int) else multiple
    prepared = [_prepare(photo, preprocess, geometry, size, multiples, fixed) for photo in photos]
    canvas = tuple(max(way.canvas[axis] for _, way in prepared) for axis in (0, 1))
    rows, columns = canvas
    pixels = torch.zeros(len(prepared), preprocess.channels, rows, columns)
    for index, (image, way) in enumerate(prepared):
        pixels[index, :, : way.valid[0], : way.valid[1]] = image
    return Batch(pixels, tuple(way.on_canvas((rows, columns)) for _, way in prepared))


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
    photo: LoadedImage,
    preprocess: Preprocess,
    geometry: GeometryKind,
    size: int | Literal["model", "native"],
    multiples: tuple[int, int],
    fixed: bool,
) -> tuple[Float[Tensor, "channels height width"], Geometry]:
    original = (photo.height, photo.width)
    target = (size, size) if isinstance(size, int) else preprocess.size
    offset = (0, 0)
    if geometry == "model":
        resized = _covering(original, (floor(target[0] / preprocess.crop), floor(target[1] / preprocess.crop)))
        # half to even, as torchvision's centre crop
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
            f"{photo.path or 'an image'}: {original[1]} x {original[0]} would become {resized[1]} x {resized[0]}: "
            "crop it to a less extreme shape, or choose a smaller size"
        )
    # a network's own size is never padded, whatever its stride: that is how it was trained
    keep = fixed or (geometry == "model" and size == "model")
    sides = valid if keep else tuple(ceil(v / m) * m for v, m in zip(valid, multiples, strict=True))
    pixels = resize_image(photo.pixels, resized, preprocess.interpolation)
    pixels = pixels[offset[0] : offset[0] + valid[0], offset[1] : offset[1] + valid[1]]
    way = Geometry(original, resized, offset, valid, (sides[0], sides[1]))
    return _normalised(as_channels(pixels, preprocess.channels), preprocess), way


def _short_side(original: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) with the short side as given and the long one rounded down, as torchvision's Resize."""
    height, width = original
    return (side, int(side * width / height)) if height <= width else (int(side * height / width), side)


def _covering(original: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The smallest (height, width) of the same aspect that covers the target, as timm's evaluation transform."""
    if target[0] == target[1]:
        return _short_side(original, target[0])
    ratio = min(original[0] / target[0], original[1] / target[1])
    return round(original[0] / ratio), round(original[1] / ratio)


def _normalised(pixels: np.ndarray, preprocess: Preprocess) -> Float[Tensor, "channels height width"]:
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
