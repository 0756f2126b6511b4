"""Patches of images as a network takes them: where they lie, how they are cut, and what is read off each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import Geometry, LoadedImage, make_batch, read_image
from encoscope.probing.prefetch import prefetch
from encoscope.progress import Progress, track

_log = logging.getLogger("encoscope")


@dataclass(frozen=True)
class Patch:
    """A square of an image, and the unit's value on it.

    id, path: of the image. box: in the original image's pixels, ``[x0, y0, x1, y1]`` with inclusive extremes; its sides
    are fractions rounded to whole pixels. score: the unit's value on the patch at the network's input size.
    corner, side: (top, left) and side of the patch, in pixels of the image as it was cut (short side = input's).
    """

    id: str
    path: str
    box: tuple[int, int, int, int]
    score: float
    corner: tuple[int, int]
    side: int


@dataclass(frozen=True, eq=False)
class _Cut:
    """One image, normalised, with the corners of its patches in rows, and what was read off them so far."""

    id: str
    path: str
    pixels: Tensor
    geometry: Geometry
    corners: list[tuple[int, int]]
    values: list[Tensor] = field(default_factory=list)


def compute_patch_values(
    encoder: Encoder,
    files: Sequence[str],
    reading: Callable[[Tensor], Tensor],
    *,
    side: int,
    stride: int,
    batch: int = 32,
    label: str = "patches",
    progress: Progress = None,
) -> Iterator[tuple[list[Patch], Float[np.ndarray, "patches values"]]]:
    """For each image its patches, row by row, with what ``reading`` gives for them as the network's input.

    Every image is resized so that its short side is the network's, nothing cropped; patches of ``side`` pixels lie on
    it every ``stride`` pixels from the top left corner on, and each is resized (bilinear) to the network's input.
    reading: a normalised batch to ``[batch, values]``; patches of several images share a batch. The patches' scores
    are zero. The same image again (by content) counts once; one that cannot be read is left out, with a warning.

    Raises UsageError for a patch larger than the network's input, EncoscopeError when no image can be read.
    """
    check_side(encoder, side)
    stream = track(prefetch(partial(_cut, encoder, side, stride), files, 2), len(files), label, progress)
    waiting: list[_Cut] = []
    windows: list[Tensor] = []
    owners: list[_Cut] = []
    seen: set[str] = set()
    reason = ""

    def run() -> None:
        found = reading(_resized(encoder, torch.stack(windows))).cpu()
        for owner, value in zip(owners, found, strict=True):
            owner.values.append(value)
        windows.clear()
        owners.clear()

    for cut in stream:
        if isinstance(cut, str):
            reason = reason or cut
            _log.warning("skipped: %s", cut)
            continue
        if cut.id in seen:
            continue
        seen.add(cut.id)
        waiting.append(cut)
        for corner in cut.corners:
            windows.append(_window(cut.pixels, corner, side))
            owners.append(cut)
            if len(windows) == batch:
                run()
        while waiting and len(waiting[0].values) == len(waiting[0].corners):
            yield _read_off(waiting.pop(0), side)
    if windows:
        run()
    for cut in waiting:
        yield _read_off(cut, side)
    if not seen:
        raise EncoscopeError(f"none of {len(files)} images could be read; the first: {reason}")


def load_patches(encoder: Encoder, patches: Sequence[Patch]) -> Float[Tensor, "patches channels height width"]:
    """The patches as the network takes them: cut, resized to its input, normalised, exactly as they were scored.

    Raises MissingError and ImageError for images that are no longer there, EncoscopeError for one that has changed.
    """
    if not patches:
        raise UsageError("no patches given")
    return torch.cat([_load(encoder, patch) for patch in patches])


def check_side(encoder: Encoder, side: int) -> None:
    """UsageError for a patch larger than the network's input."""
    short = min(encoder.preprocess.size)
    if side > short:
        raise UsageError(f"a patch of {side} pixels is larger than the network's input of {short}: give a smaller one")


def _load(encoder: Encoder, patch: Patch) -> Float[Tensor, "1 channels height width"]:
    photo = read_image(patch.path, channels=encoder.preprocess.channels)
    if photo.id != patch.id:
        raise EncoscopeError(f"{patch.path} has changed since its patches were chosen: choose them again")
    check_side(encoder, patch.side)
    pixels, _ = _whole(encoder, photo)
    return _resized(encoder, _window(pixels, patch.corner, patch.side)[None])


def _cut(encoder: Encoder, side: int, stride: int, path: str) -> _Cut | str:
    """An image ready to be cut; why not, if it cannot be read."""
    try:
        photo = read_image(Path(path), channels=encoder.preprocess.channels)
        pixels, geometry = _whole(encoder, photo)
    except (ImageError, MissingError) as error:
        return str(error)
    _, height, width = pixels.shape
    corners = [(y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]
    return _Cut(photo.id, path, pixels, geometry, corners)


def _whole(encoder: Encoder, photo: LoadedImage) -> tuple[Float[Tensor, "channels height width"], Geometry]:
    """A photo, normalised, its short side that of the network's input, nothing cropped or padded."""
    whole = make_batch([photo], encoder.preprocess, geometry="whole")
    return whole.pixels[0], whole.geometries[0]


def _window(pixels: Tensor, corner: tuple[int, int], side: int) -> Float[Tensor, "channels side side"]:
    return pixels[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _resized(
    encoder: Encoder, patches: Float[Tensor, "patches channels side side"]
) -> Float[Tensor, "patches channels height width"]:
    return F.interpolate(patches, size=encoder.preprocess.size, mode="bilinear", align_corners=False)


def _read_off(cut: _Cut, side: int) -> tuple[list[Patch], Float[np.ndarray, "patches values"]]:
    patches = [Patch(cut.id, cut.path, _box(cut.geometry, corner, side), 0.0, corner, side) for corner in cut.corners]
    return patches, torch.stack(cut.values).float().numpy()


def _box(geometry: Geometry, corner: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    (height, width), (rows, columns) = geometry.original, geometry.resized
    x0, x1 = round(corner[1] * width / columns), round((corner[1] + side) * width / columns)
    y0, y1 = round(corner[0] * height / rows), round((corner[0] + side) * height / rows)
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)
