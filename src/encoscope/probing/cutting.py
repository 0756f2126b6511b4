"""Patches of images as a network takes them: where they are, how they are cut, and the values computed on each."""

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

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import Geometry, LoadedImage, make_batch, read_image
from encoscope.probing.prefetch import prefetch
from encoscope.progress import Progress, track

_log = logging.getLogger("encoscope")


@dataclass(frozen=True)
class Patch:
    """A square of an image, and the unit's value on it.

    Attributes:
        id: sha256 of the image's file.
        path: The image's file.
        box: ``[x0, y0, x1, y1]`` in pixels of the original image, extremes inclusive, rounded to whole pixels.
        score: The unit's value on the patch, resized to the network's input.
        corner: (top, left) of the patch, in pixels of the resized image, whose short side is the network's.
        side: Side of the patch, in the same pixels.
    """

    id: str
    path: str
    box: tuple[int, int, int, int]
    score: float
    corner: tuple[int, int]
    side: int


@dataclass(frozen=True, eq=False)
class _Cut:
    """One normalized image, with the corners of its patches row by row, and the values computed so far."""

    id: str
    path: str
    pixels: Tensor
    geometry: Geometry
    corners: list[tuple[int, int]]
    values: list[Tensor] = field(default_factory=list)


def compute_patch_values(
    encoder: Encoder,
    files: Sequence[str],
    compute: Callable[[Tensor], Tensor],
    *,
    side: int,
    stride: int,
    batch_size: int = BATCH_SIZE,
    label: str = "patches",
    progress: Progress = None,
) -> Iterator[tuple[list[Patch], Float[np.ndarray, "patches values"]]]:
    """Compute values on all patches of images.

    Every image is resized so that its short side is the network's; nothing is cropped. Patches begin at the top left
    corner, and each is resized (bilinear) to the network's input.

    Args:
        encoder: The network that the patches are prepared for.
        files: Image files. The same image again (by content) counts once; an image that cannot be read is left out
            with a warning.
        compute: Turns a normalized batch into ``[batch, values]``; patches of several images share a batch.
        side: Side of a patch, pixels of the resized image; at most the network's input.
        stride: Distance between patches, pixels of the resized image.
        batch_size: Patches in a batch.
        label: The name of the progress bar.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Yields:
        For each image its patches, row by row, with a score of 0, and their values.

    Raises:
        UsageError: The patch is larger than the network's input.
        EncoscopeError: No image can be read.
    """
    check_side(encoder, side)
    stream = track(prefetch(partial(_read_cut, encoder, side, stride), files, 2), len(files), label, progress)
    waiting: list[_Cut] = []
    windows: list[Tensor] = []
    owners: list[_Cut] = []
    seen: set[str] = set()
    reason = ""

    def run() -> None:
        values = compute(_resize(encoder, torch.stack(windows))).cpu()
        for owner, value in zip(owners, values, strict=True):
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
            if len(windows) == batch_size:
                run()
        while waiting and len(waiting[0].values) == len(waiting[0].corners):
            yield _finish_cut(waiting.pop(0), side)
    if windows:
        run()
    for cut in waiting:
        yield _finish_cut(cut, side)
    if not seen:
        raise EncoscopeError(f"none of {len(files)} images could be read; the first: {reason}")


def load_patches(encoder: Encoder, patches: Sequence[Patch]) -> Float[Tensor, "patches channels height width"]:
    """Load patches as the network takes them, exactly as they were scored.

    Args:
        encoder: The network that they were scored with.
        patches: The patches, at least one.

    Returns:
        The patches, cut, resized to the network's input and normalized.

    Raises:
        UsageError: There is no patch, or one is larger than the network's input.
        MissingError: An image's file does not exist.
        ImageError: An image cannot be read.
        EncoscopeError: An image has changed since its patches were scored.
    """
    if not patches:
        raise UsageError("no patches given")
    return torch.cat([_load(encoder, patch) for patch in patches])


def check_side(encoder: Encoder, side: int) -> None:
    """Check that a patch is not larger than a network's input.

    Args:
        encoder: The network.
        side: Side of the patch, pixels.

    Raises:
        UsageError: It is larger.
    """
    short = min(encoder.preprocess.size)
    if side > short:
        raise UsageError(f"a patch of {side} pixels is larger than the network's input of {short}: give a smaller one")


def _load(encoder: Encoder, patch: Patch) -> Float[Tensor, "1 channels height width"]:
    image = read_image(patch.path, channels=encoder.preprocess.image_channels)
    if image.id != patch.id:
        raise EncoscopeError(f"{patch.path} has changed since its patches were chosen: choose them again")
    check_side(encoder, patch.side)
    pixels, _ = _prepare_whole(encoder, image)
    return _resize(encoder, _window(pixels, patch.corner, patch.side)[None])


def _read_cut(encoder: Encoder, side: int, stride: int, path: str) -> _Cut | str:
    """An image ready to be cut, or the reason why it cannot be read."""
    try:
        image = read_image(Path(path), channels=encoder.preprocess.image_channels)
        pixels, geometry = _prepare_whole(encoder, image)
    except (ImageError, MissingError) as error:
        return str(error)
    _, height, width = pixels.shape
    corners = [(y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]
    return _Cut(image.id, path, pixels, geometry, corners)


def _prepare_whole(encoder: Encoder, image: LoadedImage) -> tuple[Float[Tensor, "channels height width"], Geometry]:
    """A normalized image whose short side is the network's, nothing cropped or padded."""
    whole = make_batch([image], encoder.preprocess, geometry="whole")
    return whole.pixels[0], whole.geometries[0]


def _window(pixels: Tensor, corner: tuple[int, int], side: int) -> Float[Tensor, "channels side side"]:
    return pixels[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _resize(
    encoder: Encoder, patches: Float[Tensor, "patches channels side side"]
) -> Float[Tensor, "patches channels height width"]:
    return F.interpolate(patches, size=encoder.preprocess.size, mode="bilinear", align_corners=False)


def _finish_cut(cut: _Cut, side: int) -> tuple[list[Patch], Float[np.ndarray, "patches values"]]:
    patches = [Patch(cut.id, cut.path, _box(cut.geometry, corner, side), 0.0, corner, side) for corner in cut.corners]
    return patches, torch.stack(cut.values).float().numpy()


def _box(geometry: Geometry, corner: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    (height, width), (rows, columns) = geometry.original, geometry.resized
    x0, x1 = round(corner[1] * width / columns), round((corner[1] + side) * width / columns)
    y0, y1 = round(corner[0] * height / rows), round((corner[0] + side) * height / rows)
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)
