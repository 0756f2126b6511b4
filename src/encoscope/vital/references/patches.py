"""References of units inside a network: the patches of highest value, found once and kept (VITAL, section 3.2.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder, choose_cache_dir, identify_encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import GeometryKind, list_images
from encoscope.probing import Patch, find_top_patches, hash_files
from encoscope.probing.patches import RESCORED, find_mapped_units
from encoscope.progress import Progress
from encoscope.store import JournaledFolder, content_key
from encoscope.units import Unit
from encoscope.vital.references.references import Reference, References, Source

_FILE = "patches.json"


def find_patch_references(
    source: Source,
    encoder: Encoder,
    units: Sequence[Unit],
    *,
    count: int = 50,
    patch_size: int | None = None,
    search: str = "maps",
    n_candidates: int | None = None,
    geometry: GeometryKind = "whole",
    whole_images: bool = False,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> list[References]:
    """Find for each unit the patches of highest value in a dataset, at most one an image, in one pass for all units.

    What was found is kept, by the content of the files, and not searched again; not for a user's own function, which
    is not known by its content.

    Args:
        source: The images: a dataset string, a folder, or files.
        encoder: The encoder.
        units: The units.
        count: How many patches of each unit.
        patch_size: Side in pixels on an image whose short side is the network's; None is 64, or half of a smaller
            network's input.
        search: "maps" reads from the maps of whole images where each unit is largest, and scores one patch there in
            each of the best images; "patches" scores all patches of an image.
        n_candidates: In how many images of each unit patches are scored, those in which its map is largest; None is
            twice ``count`` for "maps", and for "patches" every image (at every int(0.8 patch_size) pixels; with a
            number at every 32).
        geometry: What patches are cut from: "whole" crops nothing; "model" is the network's own resize and crop.
        whole_images: Take the images that the patches are from instead of the patches, as the authors' code does.
        batch_size: Patches at a time; it does not change the result.
        cache_dir: The folder for what was found; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The references of each unit, with a note where there are fewer than ``count``.

    Raises:
        UsageError: For a dataset that is not made of files.
    """
    try:
        files = list_images(source)
    except UsageError as error:
        raise UsageError(f"{units[0].text} needs files to search for its top patches: {error}") from error
    cache_dir = choose_cache_dir(encoder, cache_dir)
    side = choose_patch_size(encoder, patch_size)
    options: dict[str, Any] = {"patch": side, "geometry": geometry, "candidates": n_candidates}
    options["scoring"] = "maps" if search == "maps" else "stride" if n_candidates is None else "preselect"
    contents = sorted(hash_files(files.paths, cache_dir=cache_dir, progress=progress))
    folders = [
        JournaledFolder.keyed(
            "patches",
            _manifest(encoder, unit, {"count": count, **options}, contents),
            cache_dir=cache_dir,
            restart=True,
            **_guard(encoder, unit),
        )
        if unit.is_keyed
        else None
        for unit in units
    ]
    known = {str(path) for path in files.paths}
    patches = [None if folder is None else _load(folder, known) for folder in folders]
    missing = [index for index, stored in enumerate(patches) if stored is None]
    if missing:
        searched = find_top_patches(
            encoder,
            files,
            [units[index] for index in missing],
            count,
            batch_size=batch_size,
            cache_dir=cache_dir,
            progress=progress,
            **options,
        )
        for index, top in zip(missing, searched, strict=True):
            patches[index] = top
            if (folder := folders[index]) is not None:
                _save(folder, top)
    notes: list[str] = []
    scored = RESCORED * count if n_candidates is None else n_candidates
    if scored < len(contents) and (search == "maps" or n_candidates is not None):
        notes.append(f"top patches of the {scored} of {len(contents)} images in which the unit's map is largest")
    return [
        _references(unit, top or [], count, whole_images, notes if find_mapped_units(encoder, [unit])[0] else [])
        for unit, top in zip(units, patches, strict=True)
    ]


def choose_patch_size(encoder: Encoder, patch_size: int | None = None) -> int:
    """Choose the side of patches.

    Args:
        encoder: The encoder.
        patch_size: The side in pixels on an image whose short side is the network's; None for the usual one.

    Returns:
        ``patch_size``, or 64, or half of a smaller network's input.
    """
    return min(64, min(encoder.preprocess.size) // 2) if patch_size is None else patch_size


def _references(
    unit: Unit, patches: Sequence[Patch], count: int, whole_images: bool, notes: Sequence[str]
) -> References:
    items = [Reference(patch.id, Path(patch.path) if whole_images else patch) for patch in patches]
    fewer = [] if len(items) >= count else [f"{len(items)} references where {count} were asked for"]
    return References(unit.text, tuple(items), (*notes, *fewer))


def _guard(encoder: Encoder, unit: Unit) -> dict[str, Any]:
    """What is kept beside the patches of a unit, and the check of it before they are used."""
    layers, what = [unit.layer] if unit.layer else [], f"the top patches of {unit.text}"
    return {
        "about": {"trial": record_trial(encoder, layers)},
        "accepts": lambda kept: is_same_network(encoder, kept.get("trial"), layers, what),
    }


def _manifest(encoder: Encoder, unit: Unit, options: dict[str, Any], contents: Sequence[str]) -> dict[str, Any]:
    return {
        **identify_encoder(encoder),
        "unit": unit.as_key(),
        "files": content_key({"files": contents}),
        **options,
    }


def _load(folder: JournaledFolder, known: set[str]) -> list[Patch] | None:
    """What an earlier search found, if its images still have the same names."""
    file = folder.find(_FILE)
    if file is None:
        return None
    patches = [_patch(row) for row in json.loads(file.read_text(encoding="utf-8"))]
    return patches if all(patch.path in known for patch in patches) else None


def _patch(row: dict[str, Any]) -> Patch:
    (x0, y0, x1, y1), (top, left) = row["box"], row["corner"]
    return Patch(row["id"], row["path"], (x0, y0, x1, y1), row["score"], (top, left), row["side"], row["geometry"])


def _save(folder: JournaledFolder, patches: Sequence[Patch]) -> None:
    with suppress(EncoscopeError), folder.write(_FILE) as temporary:  # without a cache it is only slower
        temporary.write_text(json.dumps([asdict(patch) for patch in patches]), encoding="utf-8")
