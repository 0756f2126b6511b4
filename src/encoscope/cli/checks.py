"""What is refused before a network is loaded or an image is read, because no network could make it right."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from encoscope.errors import MissingError, UsageError

if TYPE_CHECKING:
    from encoscope.cli.flags import Common

_LARGEST_SEED = 2**63 - 1


def check_run(
    common: Common | None = None,
    *,
    out: Path | None = None,
    sources: Iterable[str | Path | None] = (),
    **counts: int | None,
) -> None:
    """Refuse what is wrong whatever the network is: the seed, the output folder, data that are not there, numbers.

    Args:
        common: The flags of every verb, of which the seed and the device are checked.
        out: The output folder; None where nothing is written.
        sources: Datasets, folders and files that are read; None for those that were not given.
        **counts: Values of flags that are whole numbers from 1 on, by the flag's name.

    Raises:
        UsageError: For a wrong number, and an output folder that cannot be written.
        MissingError: For data that are not there.
    """
    if common is not None and not 0 <= common.seed <= _LARGEST_SEED:
        raise UsageError(f"--seed takes a whole number from 0 to {_LARGEST_SEED}, not {common.seed}")
    if common is not None and common.device not in ("auto", "cpu"):
        from encoscope.devices import find_device

        find_device(common.device)
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} takes a number from 1 on, not {value}")
    if out is not None:
        check_output_folder(out)
    for source in sources:
        if source is not None:
            check_source(source)


def check_output_folder(out: Path) -> None:
    """Refuse an output folder that cannot be made or written.

    Args:
        out: The folder, which need not exist.

    Raises:
        UsageError: Where it, or the nearest folder above it, is a file or cannot be written.
    """
    if "\0" in str(out):
        raise UsageError(f"results cannot be written to {str(out)!r}: this is no name of a folder")
    try:
        nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    except OSError as error:
        raise UsageError(f"results cannot be written to {str(out)!r}: {error.strerror}") from error
    if not nearest.is_dir():
        raise UsageError(f"results cannot be written to {out}: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"results cannot be written to {out}: no permission to write in {nearest}")


def check_source(source: str | Path) -> None:
    """Refuse images that are not there. Nothing is listed or read.

    Args:
        source: A file, a folder, or a dataset such as caltech101:ROOT#train.

    Raises:
        MissingError: Where the file, the folder or the dataset's root does not exist.
    """
    from encoscope.images import is_dataset

    path = Path(source)
    if not path.exists() and is_dataset(source):
        path = Path(str(source).partition(":")[2].partition("#")[0])
    if not path.exists():
        raise MissingError(f"no such file, folder or dataset: {source}")
