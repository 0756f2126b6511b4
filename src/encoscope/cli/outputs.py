"""Where results go: names that mirror the inputs' and never meet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoscope.errors import EncoscopeError, MissingError
from encoscope.images import SkippedImage, collect_files, is_dataset


@dataclass(frozen=True)
class Inputs:
    """Image files, each with the name its results get, and the arguments that gave none.

    files: path of the image, and name: relative to the output folder, without a suffix, unique.
    skipped: arguments that are not there or cannot be listed; missing: how many of them are not there.
    """

    files: list[tuple[Path, str]]
    skipped: list[SkippedImage]
    missing: int


def find_inputs(arguments: Sequence[Path]) -> Inputs:
    """The image files that arguments (files and folders) stand for."""
    found: dict[str, tuple[Path, Path]] = {}  # by absolute path: the file, and its place below the output folder
    skipped, missing = [], 0
    for argument in arguments:
        try:
            files = collect_files(argument)
        except EncoscopeError as error:
            skipped.append(SkippedImage(str(argument), str(error)))
            missing += isinstance(error, MissingError)
            continue
        for file in files:
            place = file.relative_to(argument) if argument.is_dir() else Path(*file.parts[-1 - is_dataset(argument) :])
            found.setdefault(os.path.abspath(file), (file, place))  # noqa: PTH100 - symbolic links stay apart
    names = unique_names(found.items())
    return Inputs(list(zip((file for file, _ in found.values()), names, strict=True)), skipped, missing)


def unique_names(files: Iterable[tuple[str, tuple[Path, Path]]]) -> list[str]:
    """A name for each file (absolute path, (path, place)): its place without the suffix, longer where two would meet.

    First the suffix stays (``cat.jpg``, ``cat.png``), then parent folders come before it, one after the other. Names
    that differ only in case meet, too, as they do on some file systems.
    """
    choices = []
    for absolute, (_, place) in files:
        parts = Path(absolute).parts[1:]  # without the root
        depth = len(place.parts)
        longer = [Path(*parts[-length:]).as_posix() for length in range(depth + 1, len(parts) + 1)]
        choices.append([place.with_suffix("").as_posix(), place.as_posix(), *longer])
    chosen = [0] * len(choices)
    while True:
        names = [options[index] for options, index in zip(choices, chosen, strict=True)]
        counts = Counter(name.casefold() for name in names)
        meeting = [
            number
            for number, name in enumerate(names)
            if counts[name.casefold()] > 1 and chosen[number] + 1 < len(choices[number])
        ]
        if not meeting:
            return names
        for number in meeting:
            chosen[number] += 1
