"""What the checks of ``make lint`` look at: the repository's Python files, but for rooms that are not done yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "encoscope"
PENDING = ROOT / "tools" / "pending.txt"


def read_pending(check: str) -> list[Path]:
    """Read from pending.txt which folders and files a check passes over. It has lines such as ``words tests/nave``.

    Args:
        check: The name of the check: "words" or "docstrings".

    Returns:
        Absolute paths; none where the file is gone.
    """
    lines = PENDING.read_text(encoding="utf-8").splitlines() if PENDING.is_file() else []
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    return [ROOT / path for name, path in entries if name == check]


def select_files(arguments: Sequence[str], default: Sequence[Path], pending: Sequence[Path]) -> Iterator[Path]:
    """Find the files that a check reads.

    Args:
        arguments: Files and folders from the command line, relative to the working directory or to the repository.
        default: Folders that are read where no argument is given.
        pending: Folders and files that are left out then.

    Yields:
        Absolute paths of Python files.

    Raises:
        SystemExit: If an argument is no file and no folder.
    """
    for argument in arguments:
        path = next((path.resolve() for path in (Path(argument), ROOT / argument) if path.exists()), None)
        if path is None:
            raise SystemExit(f"no such file or folder: {argument}")
        yield from _python_files(path)
    if not arguments:
        for folder in default:
            yield from (file for file in _python_files(folder) if not is_inside(file, pending))


def is_inside(file: Path, folders: Sequence[Path]) -> bool:
    """Tell whether a file is one of some paths, or lies in one of them.

    Args:
        file: An absolute path.
        folders: Absolute paths.

    Returns:
        Whether it is or does.
    """
    return any(file == folder or folder in file.parents for folder in folders)


def show(file: Path) -> str:
    """Write a path as it is printed.

    Args:
        file: An absolute path.

    Returns:
        The path from the repository's root where it lies below, else as it is.
    """
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))
