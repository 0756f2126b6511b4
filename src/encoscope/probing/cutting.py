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
from encoscope.images import Geometry, GeometryKind, LoadedImage, make_batch, read_image
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
        corner: (top, left) of the patch, in pixels of the resized image, whose short side is the network's; of
            "model", in those of the network's input.
        side: Side of the patch, in the same pixels.
        geometry: What it is cut from: "whole" is the whole image, "model" the network's own resize and crop.
    """

    id: str
    path: str
    box: tuple[int, int, int, int]
    score: float
    corner: tuple[int, int]
    side: int
    geometry: GeometryKind = "whole"


@dataclass(frozen=True, eq=False)
class Frame:
    """An image, laid out so that patches can be cut from it.

    Attributes:
        id: sha256 of the image's file.
        path: The image's file.
        image: The image as it was read.
        pixels: It, resized and normalized.
        mapping: How ``pixels`` lie on the image.
        geometry: "whole" or "model".
    """

    id: str
    path: str
    image: LoadedImage
    pixels: Float[Tensor, "channels height width"]
    mapping: Geometry
    geometry: GeometryKind

    def make_patch(self, corner: tuple[int, int], side: int, score: float = 0.0) -> Patch:
        """Describe a patch of it.

        Args:
            corner: (top, left) in ``pixels``.
            side: The patch's side.
            score: The unit's value on it.

        Returns:
            The patch.
        """
        return Patch(self.id, self.path, _box(self.mapping, corner, side), score, corner, side, self.geometry)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A frame, with the corners of its patches row by row, and the values computed so far."""

    frame: Frame
    corners: list[tuple[int, int]]
    values: list[Tensor] = field(default_factory=list)


def compute_patch_values(
    encoder: Encoder,
    files: Sequence[str],
    compute: Callable[[Tensor], Tensor],
    *,
    side: int,
    stride: int,
    geometry: GeometryKind = "whole",
    batch_size: int = BATCH_SIZE,
    label: str = "patches",
    progress: Progress = None,
) -> Iterator[tuple[list[Patch], Float[np.ndarray, "patches values"]]]:
    """Compute values on all patches of images.

    Every image is resized so that its short side is the network's, and nothing is cropped, or as the network's own
    preprocessing does it. Patches begin at the top left corner, and each is resized (bilinear) to the network's input.

    Args:
        encoder: The network that the patches are prepared for.
        files: Image files. The same image again (by content) counts once; an image that cannot be read is left out
            with a warning.
        compute: Turns a normalized batch into ``[batch, values]``; patches of several images share a batch.
        side: Side of a patch, pixels of the resized image; at most the network's input.
        stride: Distance between patches, pixels of the resized image.
        geometry: "whole" crops nothing; "model" is the network's own resize and crop.
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
    stream = track(prefetch(partial(_read_cut, encoder, side, stride, geometry), files, 2), len(files), label, progress)
    waiting: list[_Cut] = []
    windows: list[Tensor] = []
    owners: list[_Cut] = []
    seen: set[str] = set()
    reason = ""

    def run() -> None:
        values = compute(resize_windows(encoder, torch.stack(windows))).cpu()
        for owner, value in zip(owners, values, strict=True):
            owner.values.append(value)
        windows.clear()
        owners.clear()

    for cut in stream:
        if isinstance(cut, str):
            reason = reason or cut
            _log.warning("skipped: %s", cut)
            continue
        if cut.frame.id in seen:
            continue
        seen.add(cut.frame.id)
        waiting.append(cut)
        for corner in cut.corners:
            windows.append(cut_window(cut.frame, corner, side))
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
    frame = lay_out(encoder, image, patch.path, patch.geometry)
    return resize_windows(encoder, cut_window(frame, patch.corner, patch.side)[None])


def read_frame(encoder: Encoder, path: Path, geometry: GeometryKind) -> Frame | str:
    """Read an image so that patches can be cut from it.

    Args:
        encoder: The network.
        path: The image's file.
        geometry: "whole" or "model".

    Returns:
        The image laid out; the reason, where it cannot be read.
    """
    try:
        image = read_image(path, channels=encoder.preprocess.image_channels)
        return lay_out(encoder, image, str(path), geometry)
    except (ImageError, MissingError) as error:
        return str(error)


def lay_out(encoder: Encoder, image: LoadedImage, path: str, geometry: GeometryKind) -> Frame:
    """Resize and normalize an image as patches are cut from it; nothing is padded.

    Args:
        encoder: The network.
        image: The image.
        path: Its file.
        geometry: "whole": the short side becomes the network's, nothing is cropped; "model": the network's own resize
            and crop.

    Returns:
        The image laid out.
    """
    batch = make_batch([image], encoder.preprocess, geometry=geometry)
    return Frame(image.id, path, image, batch.pixels[0], batch.geometries[0], geometry)


def cut_window(frame: Frame, corner: tuple[int, int], side: int) -> Float[Tensor, "channels side side"]:
    """Cut a patch.

    Args:
        frame: The image.
        corner: (top, left) of the patch.
        side: Its side.

    Returns:
        Its pixels.
    """
    return frame.pixels[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def resize_windows(
    encoder: Encoder, patches: Float[Tensor, "patches channels side side"]
) -> Float[Tensor, "patches channels height width"]:
    """Resize patches to the network's input (bilinear).

    Args:
        encoder: The network.
        patches: Their pixels.

    Returns:
        What the network takes.
    """
    return F.interpolate(patches, size=encoder.preprocess.size, mode="bilinear", align_corners=False)


def _read_cut(encoder: Encoder, side: int, stride: int, geometry: GeometryKind, path: str) -> _Cut | str:
    """An image ready to be cut, or the reason why it cannot be read."""
    frame = read_frame(encoder, Path(path), geometry)
    if isinstance(frame, str):
        return frame
    _, height, width = frame.pixels.shape
    corners = [(y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]
    return _Cut(frame, corners)


def _finish_cut(cut: _Cut, side: int) -> tuple[list[Patch], Float[np.ndarray, "patches values"]]:
    patches = [cut.frame.make_patch(corner, side) for corner in cut.corners]
    return patches, torch.stack(cut.values).float().numpy()


def _box(geometry: Geometry, corner: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    (height, width), (rows, columns) = geometry.original, geometry.resized
    top, left = corner[0] + geometry.offset[0], corner[1] + geometry.offset[1]
    x0, x1 = (min(max(0, round(edge * width / columns)), width) for edge in (left, left + side))
    y0, y1 = (min(max(0, round(edge * height / rows)), height) for edge in (top, top + side))
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)
