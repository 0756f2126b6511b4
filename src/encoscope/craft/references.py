"""The images of a class, from a dataset's labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from encoscope.classes import find_class_images
from encoscope.encoder import Encoder
from encoscope.errors import MissingError, suggest_nearest
from encoscope.images import list_images
from encoscope.probing import hash_files
from encoscope.probing.ids import UNREADABLE
from encoscope.units import Unit


def find_class_files(
    source: Any,
    encoder: Encoder,
    unit: Unit,
    count: int,
    random_state: int,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[list[Path], tuple[str, ...]]:
    """Find the files of a class, ordered by their content, with notes on how they were found.

    Which labels are the class is as ``match_labels`` has it. Without labels all images count.

    Args:
        source: A dataset string, a folder or files.
        encoder: The encoder.
        unit: The class.
        count: Files at most; of more, a choice by the seed is taken.
        random_state: The seed.
        cache_dir: The folder for the ids of files; None is the user's cache.

    Returns:
        The files, and the notes.

    Raises:
        MissingError: When there is no image of the class.
    """
    files = list_images(source)
    notes: list[str] = []
    if not files.classes:
        members = list(files.paths)
        notes.append(f"the references have no labels: all {len(members)} count as {unit.text}")
    else:
        positions, matched = find_class_images(encoder, unit.index, files.labels)
        members = list(files.select(positions).paths)
        notes += matched
        if not members:
            requested = encoder.classes[unit.index] if encoder.classes else str(unit.index)
            raise MissingError(
                f"no image of the references is labelled {requested!r}{suggest_nearest(requested, files.classes)}"
            )
    ids = hash_files(members, cache_dir=cache_dir)
    order = sorted(zip(ids, members, strict=True), key=lambda pair: (pair[0] == UNREADABLE, pair[0]))
    if len(order) > count:
        picked = np.random.default_rng(random_state).choice(len(order), count, replace=False)
        order = [order[index] for index in sorted(picked)]
    return [path for _, path in order], tuple(notes)
