"""References of units inside a network: the patches that drive them most, found once and kept (section 3.2.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import list_images
from encoscope.probing import Patch, find_top_patches, hash_files
from encoscope.probing.patches import PRESELECTED, Scoring
from encoscope.progress import Progress
from encoscope.results import atomic_write
from encoscope.store import content_key, get_cache_dir
from encoscope.units import Unit
from encoscope.vital.references.references import Reference, References, Source


def find_patch_references(
    source: Source,
    encoder: Encoder,
    units: Sequence[Unit],
    *,
    count: int = 50,
    patch: int | None = None,
    scoring: Scoring = "stride",
    candidates: int = PRESELECTED,
    whole: bool = False,
    batch: int = 32,
    progress: Progress = None,
) -> list[References]:
    """For each unit the ``count`` patches of a dataset that it answers to most, one an image at most, in one pass.

    patch: side in pixels on an image whose short side is the network's; left out, 64, or half of a smaller network's
        input. scoring, candidates: see ``encoscope.probing.top_patches``. whole: the images that the patches are from
        instead of the patches (the authors' code). What was found is kept, by the content of the files, and not
        searched again.

    Raises UsageError for a dataset that is not made of files.
    """
    try:
        files = list_images(source)
    except UsageError as error:
        raise UsageError(f"{units[0].text} needs files to search for its top patches: {error}") from error
    side = min(64, min(encoder.preprocess.size) // 2) if patch is None else patch
    how = {"count": count, "patch": side, "scoring": scoring}
    how |= {"candidates": candidates} if scoring == "preselect" else {}
    contents = content_key({"files": sorted(hash_files(files.paths, progress=progress))})
    homes = [_home(encoder, unit, how, contents) for unit in units]
    found = [_kept(home, dict(zip(map(str, files.paths), files.paths, strict=True))) for home in homes]
    missing = [number for number, patches in enumerate(found) if patches is None]
    if missing:
        wanted = [units[number] for number in missing]
        searched = find_top_patches(
            encoder,
            files,
            wanted,
            count,
            patch=side,
            scoring=scoring,
            candidates=candidates,
            batch_size=batch,
            progress=progress,
        )
        for number, patches in zip(missing, searched, strict=True):
            found[number] = patches
            _keep(homes[number], patches)
    return [_references(unit, patches or [], count, whole) for unit, patches in zip(units, found, strict=True)]


def _references(unit: Unit, patches: Sequence[Patch], count: int, whole: bool) -> References:
    items = [Reference(patch.id, Path(patch.path) if whole else patch) for patch in patches]
    notes = () if len(items) >= count else (f"{len(items)} references where {count} were asked for",)
    return References(unit.text, tuple(items), notes)


def _home(encoder: Encoder, unit: Unit, how: dict[str, object], contents: str) -> Path:
    what = [unit.kind, unit.layer, unit.channels, unit.direction]
    return get_cache_dir(
        "patches", f"{content_key({'encoder': encoder.digest, 'unit': what, 'files': contents, **how})}.json"
    )


def _kept(home: Path, known: dict[str, Path]) -> list[Patch] | None:
    """What an earlier search found, if its files are still under the same names."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        rows = json.loads(home.read_text(encoding="utf-8"))
        found = [_patch(row) for row in rows]
        if all(patch.path in known for patch in found):
            return found
    return None


def _patch(row: dict[str, Any]) -> Patch:
    (x0, y0, x1, y1), (top, left) = row["box"], row["corner"]
    return Patch(row["id"], row["path"], (x0, y0, x1, y1), row["score"], (top, left), row["side"])


def _keep(home: Path, patches: Sequence[Patch]) -> None:
    with suppress(EncoscopeError), atomic_write(home) as temporary:  # a cache that cannot be written is done without
        temporary.write_text(json.dumps([asdict(patch) for patch in patches]), encoding="utf-8")
