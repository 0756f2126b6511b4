"""Names of result files: they follow the names of the inputs, and no two are the same."""

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
    """The image files of a command's arguments, with the names of their results.

    Attributes:
        files: For each image its path, and the unique name of its results, relative to the output folder and without
            a suffix.
        skipped: Arguments that do not exist or cannot be listed.
        missing: How many arguments do not exist.
    """

    files: list[tuple[Path, str]]
    skipped: list[SkippedImage]
    missing: int


def find_inputs(arguments: Sequence[Path]) -> Inputs:
    """Find the image files of a command's arguments.

    Args:
        arguments: Files, folders and dataset strings.

    Returns:
        The files, each once, with names, and the arguments that could not be used.
    """
    unique: dict[str, tuple[Path, Path]] = {}  # by absolute path: the file, and its path below the output folder
    skipped, missing = [], 0
    for argument in arguments:
        try:
            files = collect_files(argument)
        except EncoscopeError as error:
            skipped.append(SkippedImage(str(argument), str(error)))
            missing += isinstance(error, MissingError)
            continue
        for file in files:
            target = file.relative_to(argument) if argument.is_dir() else Path(*file.parts[-1 - is_dataset(argument) :])
            unique.setdefault(os.path.abspath(file), (file, target))  # noqa: PTH100 - symbolic links stay apart
    names = make_unique_names(unique.items())
    return Inputs(list(zip((file for file, _ in unique.values()), names, strict=True)), skipped, missing)


def make_unique_names(files: Iterable[tuple[str, tuple[Path, Path]]]) -> list[str]:
    """Make a unique name for the results of each file.

    The name is the path below the output folder without the suffix. Where two would be the same, the suffix is kept
    (``cat.jpg``, ``cat.png``); if that is not enough, parent folders are added, one after the other. Names that differ
    in case alone count as the same, as on some file systems.

    Args:
        files: For each file its absolute path and (path, path below the output folder).

    Returns:
        A name for each file.

    Example:
        >>> make_unique_names([("/a/cat.jpg", (Path("cat.jpg"), Path("cat.jpg")))])
        ['cat']
    """
    choices = []
    for absolute, (_, target) in files:
        parts = Path(absolute).parts[1:]  # without the root
        depth = len(target.parts)
        longer = [Path(*parts[-length:]).as_posix() for length in range(depth + 1, len(parts) + 1)]
        choices.append([target.with_suffix("").as_posix(), target.as_posix(), *longer])
    chosen = [0] * len(choices)
    while True:
        names = [options[index] for options, index in zip(choices, chosen, strict=True)]
        counts = Counter(name.casefold() for name in names)
        ambiguous = [
            number
            for number, name in enumerate(names)
            if counts[name.casefold()] > 1 and chosen[number] + 1 < len(choices[number])
        ]
        if not ambiguous:
            return names
        for number in ambiguous:
            chosen[number] += 1
