"""What the checks of ``make lint`` look at: the repository's Python files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "encoscope"


def select_files(arguments: Sequence[str], default: Sequence[Path]) -> Iterator[Path]:
    """Find the files that a check reads.

    Args:
        arguments: Files and folders from the command line, relative to the working directory or to the repository.
        default: Folders that are read where no argument is given.

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
            yield from _python_files(folder)


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
