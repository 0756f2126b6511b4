"""The patches of a dataset's images that drive a unit most (VITAL, references of intermediate neurons)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import list_images
from encoscope.probing.cutting import Patch, check_side, compute_patch_values, load_patches
from encoscope.probing.ids import rank_ids
from encoscope.probing.run import probe
from encoscope.progress import Progress
from encoscope.units import Unit, measure_units, parse_unit, unit_weights

__all__ = ["PRESELECTED", "Patch", "Scoring", "find_top_patches", "load_patches"]

Scoring: TypeAlias = Literal["stride", "preselect"]
PRESELECTED = 10_000
"""How many images of largest value "preselect" looks into."""


def find_top_patches(
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
    wanted = [parse_unit(unit, encoder) for unit in units]
    if not wanted:
        raise UsageError("no units given")
    if scoring not in ("stride", "preselect"):
        raise UsageError(f"scoring is 'stride' or 'preselect', not {scoring!r}")
    step = stride if stride is not None else int(0.8 * patch) if scoring == "stride" else 32
    for name, number in (("count", count), ("patch", patch), ("stride", step), ("candidates", candidates)):
        if number < 1:
            raise UsageError(f"{name} is a number from 1 on, not {number}")
    check_side(encoder, patch)
    files = [str(path) for path in list_images(dataset).paths]
    chosen: list[set[str]] | None = None
    if scoring == "preselect" and len(files) > candidates:
        chosen, files = _preselect(encoder, dataset, wanted, candidates, batch, progress, cache)

    def reading(pixels: Tensor) -> Tensor:
        return measure_units(encoder, pixels, wanted)

    best: list[list[Patch]] = [[] for _ in wanted]
    for patches, scores in compute_patch_values(
        encoder, files, reading, side=patch, stride=step, batch=batch, progress=progress
    ):
        for number, kept in enumerate(best):
            if chosen is not None and patches[0].id not in chosen[number]:
                continue
            place = int(scores[:, number].argmax())  # of equal ones the first in rows
            kept.append(replace(patches[place], score=float(scores[place, number])))
            if len(kept) >= 2 * count + 100:
                _keep(kept, count)
    for kept in best:
        _keep(kept, count)
    return best


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
        found = probe(encoder, dataset, unit.space, batch=batch, progress=progress, cache=cache)
        values = found.values @ unit_weights(unit, encoder).numpy()
        order = np.lexsort((rank_ids(found.ids), -values))
        best: dict[str, None] = {}  # the same image again counts once
        for row in order:
            if len(best) == candidates:
                break
            best.setdefault(found.ids[row])
            files.setdefault(found.ids[row], found.paths[row] or "")
        chosen.append(set(best))
    return chosen, list(files.values())
