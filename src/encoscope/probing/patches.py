"""The patches of a dataset's images that activate a unit most (VITAL's references of intermediate neurons)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.images import list_images
from encoscope.probing.cutting import Patch, check_side, compute_patch_values, load_patches
from encoscope.probing.ids import rank_ids
from encoscope.probing.run import probe
from encoscope.progress import Progress
from encoscope.store.passes import Shard, run_pass
from encoscope.units import Unit, measure_units, parse_unit, unit_weights

__all__ = ["PRESELECTED", "Patch", "Scoring", "find_top_patches", "load_patches"]

Scoring: TypeAlias = Literal["stride", "preselect"]
PRESELECTED = 10_000
"""How many images of largest value "preselect" searches."""


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
    batch_size: int = BATCH_SIZE,
    progress: Progress = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[list[Patch]]:
    """Find for each unit the patches on which its value is largest, at most one patch for each image.

    Every image is resized so that its short side is the network's; nothing is cropped. Patches begin at the top left
    corner, and each is resized (bilinear) to the network's input. One pass serves all units, with one batch of patches
    in memory.

    Args:
        encoder: The network.
        dataset: As for ``probe``; images that cannot be read are left out.
        units: The units, at least one.
        count: Patches for each unit.
        patch: Side of a patch, pixels of the resized image; at most the network's input.
        scoring: "stride" searches every image; "preselect" first takes, for each unit, the whole images of largest
            value (from a probe, which stays in the cache), and searches these.
        stride: Distance between patches, pixels; if left out, int(0.8 patch) for "stride" and 32 for "preselect".
        candidates: How many images "preselect" searches for each unit.
        batch_size: Patches, or images of the probe, in a batch.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        cache_dir: The folder of the probe, as for ``probe``.

    Returns:
        For each unit its patches, the largest value first, ties by image id. There may be fewer than ``count``, if
        there are fewer images.

    Raises:
        UsageError: A unit is unknown, a number is out of range, or the patch is larger than the network's input.
        EncoscopeError: No image can be read.
    """
    parsed = [parse_unit(unit, encoder) for unit in units]
    if not parsed:
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
        chosen, files = _preselect(encoder, dataset, parsed, candidates, batch_size, progress, cache_dir)

    def compute(pixels: Tensor) -> Tensor:
        return measure_units(encoder, pixels, parsed)

    def read_patches(shard: Shard) -> Iterator[tuple[list[Patch], np.ndarray]]:
        shown = list(shard.select(files))
        yield from compute_patch_values(
            encoder, shown, compute, side=patch, stride=step, batch_size=batch_size, progress=progress
        )

    return run_pass(read_patches, TopPatches(len(parsed), count, chosen)).finalize()


class TopPatches:
    """For each of several units the patches of largest value, one an image: ``partial_fit``, ``merge``, ``finalize``.

    Args:
        units: How many units there are.
        count: Patches of each unit.
        chosen: For each unit the ids of the images that count; None for all images.
    """

    def __init__(self, units: int, count: int, chosen: Sequence[set[str]] | None = None) -> None:
        self.count, self.chosen = count, chosen
        self._best: list[dict[str, Patch]] = [{} for _ in range(units)]

    def partial_fit(self, patches: Sequence[Patch], scores: Float[np.ndarray, "patches units"]) -> TopPatches:
        """Add an image.

        Args:
            patches: All of its patches.
            scores: The value of each unit on each of them.

        Returns:
            Itself.
        """
        for number, kept in enumerate(self._best):
            if self.chosen is not None and patches[0].id not in self.chosen[number]:
                continue
            index = int(scores[:, number].argmax())  # the first of equal ones
            kept[patches[0].id] = replace(patches[index], score=float(scores[index, number]))
            if len(kept) >= 2 * self.count + 100:
                self._best[number] = self._take_largest(kept)
        return self

    def merge(self, other: TopPatches) -> TopPatches:
        """Add another shard's images.

        Args:
            other: Its patches, of the same units. An image that both hold counts once.

        Returns:
            Itself.
        """
        self._best = [
            self._take_largest({**mine, **theirs}) for mine, theirs in zip(self._best, other._best, strict=True)
        ]
        return self

    def finalize(self) -> list[list[Patch]]:
        """Give each unit's patches, the largest value first, ties by image id."""
        return [list(self._take_largest(kept).values()) for kept in self._best]

    def _take_largest(self, patches: dict[str, Patch]) -> dict[str, Patch]:
        order = sorted(patches.values(), key=lambda patch: (-patch.score, patch.id))
        return {patch.id: patch for patch in order[: self.count]}


def _preselect(
    encoder: Encoder,
    dataset: Any,
    units: Sequence[Unit],
    candidates: int,
    batch_size: int,
    progress: Progress,
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[list[set[str]], list[str]]:
    """For each unit the ids of the images of largest value, ties by id; and the files of all of them."""
    chosen: list[set[str]] = []
    files: dict[str, str] = {}
    for unit in units:
        probed = probe(encoder, dataset, unit.space, batch_size=batch_size, progress=progress, cache_dir=cache_dir)
        values = probed.values @ unit_weights(unit, encoder).numpy()
        order = np.lexsort((rank_ids(probed.ids), -values))
        best: dict[str, None] = {}  # the same image again counts once
        for row in order:
            if len(best) == candidates:
                break
            best.setdefault(probed.ids[row])
            files.setdefault(probed.ids[row], probed.paths[row] or "")
        chosen.append(set(best))
    return chosen, list(files.values())
