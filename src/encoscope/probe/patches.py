"""The patches of a dataset's images that drive a unit most (VITAL, references of intermediate neurons)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, ImageError, MissingError, UsageError
from encoscope.images import Geometry, Photo, read, to_batch
from encoscope.probe.ahead import ahead
from encoscope.probe.ids import ranks
from encoscope.probe.listing import listing
from encoscope.probe.run import probe
from encoscope.progress import Progress, track
from encoscope.units import Unit, measure, parse, weights

_log = logging.getLogger("encoscope")

Scoring: TypeAlias = Literal["stride", "preselect"]
PRESELECTED = 10_000
"""How many images of largest value "preselect" looks into."""


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
    """One image as it is cut: normalised pixels [C, H, W], and the corners of its patches in rows."""

    id: str
    path: str
    pixels: Tensor
    geometry: Geometry
    corners: list[tuple[int, int]]


def top_patches(
    encoder: Encoder,
    dataset: Any,
    units: Sequence[Unit | str],
    count: int = 50,
    *,
    patch: int = 64,
    scoring: Scoring = "stride",
    stride: int | None = None,
    candidates: int = PRESELECTED,
    batch: int = 32,
    progress: Progress = None,
    cache: str | os.PathLike[str] | None = None,
) -> list[list[Patch]]:
    """For each unit the ``count`` patches of largest value, the largest first: one an image at most, ties by image id.

    Every image is resized so that its short side is the network's, nothing cropped; patches of ``patch`` pixels lie on
    it every ``stride`` pixels from the top left corner on, and each is resized (bilinear) to the network's input. A
    patch's score is the unit's value on it. One pass serves all units, with one batch of patches in memory.

    scoring: "stride" looks into every image, at every int(0.8 patch) pixels; "preselect" first takes, for each unit,
        the ``candidates`` whole images of largest value (from a probe, which stays in the cache), and looks into those
        at every 32 pixels. stride: another one. dataset: as for ``probe``; images that cannot be read are left out.

    Raises UsageError for a patch larger than the network's input, unknown units, and wrong numbers; EncoscopeError when
    no image can be read. There may be fewer patches than asked for, if there are fewer images.
    """
    wanted = [parse(unit, encoder) for unit in units]
    if not wanted:
        raise UsageError("no units given")
    if scoring not in ("stride", "preselect"):
        raise UsageError(f"scoring is 'stride' or 'preselect', not {scoring!r}")
    step = stride if stride is not None else int(0.8 * patch) if scoring == "stride" else 32
    for name, number in (("count", count), ("patch", patch), ("stride", step), ("candidates", candidates)):
        if number < 1:
            raise UsageError(f"{name} is a number from 1 on, not {number}")
    _check_patch(encoder, patch)
    files = [str(path) for path in listing(dataset).paths]
    chosen: list[set[str]] | None = None
    if scoring == "preselect" and len(files) > candidates:
        chosen, files = _preselect(encoder, dataset, wanted, candidates, batch, progress, cache)

    best: list[list[Patch]] = [[] for _ in wanted]
    seen: set[str] = set()
    stream = track(ahead(partial(_cut, encoder, patch, step), files, 2), len(files), "patches", progress)
    reasons: list[str] = []

    def cuts() -> Iterator[_Cut]:
        for found in stream:
            if isinstance(found, str):
                reasons.append(found)
                _log.warning("skipped: %s", found)
            elif found.id not in seen:  # the same image again counts once
                seen.add(found.id)
                yield found

    for cut, scores in _scored(encoder, cuts(), wanted, patch, batch):
        for number, kept in enumerate(best):
            if chosen is not None and cut.id not in chosen[number]:
                continue
            place = int(scores[:, number].argmax())  # of equal ones the first in rows
            kept.append(_patch(cut, place, float(scores[place, number]), patch))
            if len(kept) >= 2 * count + 100:
                _keep(kept, count)
    if not seen:
        raise EncoscopeError(f"none of {len(files)} images could be read; the first: {reasons[0] if reasons else ''}")
    for kept in best:
        _keep(kept, count)
    return best


def load_patches(encoder: Encoder, patches: Sequence[Patch]) -> Float[Tensor, "patches channels height width"]:
    """The patches as the network takes them: cut, resized to its input, normalised, exactly as they were scored.

    Raises MissingError and ImageError for images that are no longer there, EncoscopeError for one that has changed.
    """
    if not patches:
        raise UsageError("no patches given")
    found = [_load(encoder, patch) for patch in patches]
    return torch.cat(found)


def _load(encoder: Encoder, patch: Patch) -> Float[Tensor, "1 channels height width"]:
    photo = read(patch.path, channels=encoder.preprocess.channels)
    if photo.id != patch.id:
        raise EncoscopeError(f"{patch.path} has changed since its patches were chosen: choose them again")
    _check_patch(encoder, patch.side)
    pixels, _ = _whole(encoder, photo)
    return _resized(encoder, _window(pixels, patch.corner, patch.side)[None])


def _check_patch(encoder: Encoder, patch: int) -> None:
    short = min(encoder.preprocess.size)
    if patch > short:
        raise UsageError(f"a patch of {patch} pixels is larger than the network's input of {short}: give a smaller one")


def _whole(encoder: Encoder, photo: Photo) -> tuple[Float[Tensor, "channels height width"], Geometry]:
    """A photo, normalised, its short side that of the network's input, nothing cropped or padded."""
    whole = to_batch([photo], encoder.preprocess, geometry="whole")
    return whole.pixels[0], whole.geometries[0]


def _cut(encoder: Encoder, patch: int, stride: int, path: str) -> _Cut | str:
    """An image ready to be cut; why not, if it cannot be read."""
    try:
        photo = read(Path(path), channels=encoder.preprocess.channels)
        pixels, geometry = _whole(encoder, photo)
    except (ImageError, MissingError) as error:
        return str(error)
    _, height, width = pixels.shape
    corners = [(y, x) for y in range(0, height - patch + 1, stride) for x in range(0, width - patch + 1, stride)]
    return _Cut(photo.id, path, pixels, geometry, corners)


def _window(pixels: Tensor, corner: tuple[int, int], side: int) -> Float[Tensor, "channels side side"]:
    return pixels[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _resized(
    encoder: Encoder, patches: Float[Tensor, "patches channels side side"]
) -> Float[Tensor, "patches channels height width"]:
    return F.interpolate(patches, size=encoder.preprocess.size, mode="bilinear", align_corners=False)


def _scored(
    encoder: Encoder, cuts: Iterator[_Cut], units: Sequence[Unit], patch: int, batch: int
) -> Iterator[tuple[_Cut, Float[np.ndarray, "patches units"]]]:
    """Each image with the units' values on its patches; patches of several images share a batch."""
    waiting: list[tuple[_Cut, list[Tensor]]] = []
    windows: list[Tensor] = []
    owners: list[list[Tensor]] = []

    def run() -> None:
        values = measure(encoder, _resized(encoder, torch.stack(windows)), units).cpu()
        for owner, value in zip(owners, values, strict=True):
            owner.append(value)
        windows.clear()
        owners.clear()

    def done(last: bool) -> Iterator[tuple[_Cut, Float[np.ndarray, "patches units"]]]:
        while waiting and (last or len(waiting[0][1]) == len(waiting[0][0].corners)):
            cut, values = waiting.pop(0)
            yield cut, torch.stack(values).numpy()

    for cut in cuts:
        scores: list[Tensor] = []
        waiting.append((cut, scores))
        for corner in cut.corners:
            windows.append(_window(cut.pixels, corner, patch))
            owners.append(scores)
            if len(windows) == batch:
                run()
        yield from done(last=False)
    if windows:
        run()
    yield from done(last=True)


def _patch(cut: _Cut, place: int, score: float, side: int) -> Patch:
    top, left = cut.corners[place]
    (height, width), (rows, columns) = cut.geometry.original, cut.geometry.resized
    x0, x1 = left * width / columns, (left + side) * width / columns
    y0, y1 = top * height / rows, (top + side) * height / rows
    box = (round(x0), round(y0), max(round(x0), round(x1) - 1), max(round(y0), round(y1) - 1))
    return Patch(cut.id, cut.path, box, score, (top, left), side)


def _keep(patches: list[Patch], count: int) -> None:
    patches.sort(key=lambda patch: (-patch.score, patch.id))
    del patches[count:]


def _preselect(
    encoder: Encoder,
    dataset: Any,
    units: Sequence[Unit],
    candidates: int,
    batch: int,
    progress: Progress,
    cache: str | os.PathLike[str] | None,
) -> tuple[list[set[str]], list[str]]:
    """For each unit the ids of the images of largest value, ties by id; and the files of all of them."""
    chosen: list[set[str]] = []
    files: dict[str, str] = {}
    for unit in units:
        layer = {"features": "features", "class": "logits"}.get(unit.kind, unit.layer or "")
        layer += "@cls" if unit.kind == "token" else ""
        found = probe(encoder, dataset, layer, batch=batch, progress=progress, cache=cache)
        values = found.values @ weights(unit, encoder).numpy()
        order = np.lexsort((ranks(found.ids), -values))
        best: dict[str, None] = {}  # the same image again counts once
        for row in order:
            if len(best) == candidates:
                break
            best.setdefault(found.ids[row])
            files.setdefault(found.ids[row], found.paths[row] or "")
        chosen.append(set(best))
    return chosen, list(files.values())
