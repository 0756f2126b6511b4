"""What can go wrong, in one line each, with the exit code the command line gives it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EncoscopeError(Exception):
    """Something failed; the message says what, with what value, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(EncoscopeError, ValueError):
    """A wrong argument: unknown layer, impossible number, contradicting flags. Exit code 2."""

    exit_code = 2


class MissingError(EncoscopeError, FileNotFoundError):
    """Data, weights or an optional dependency that is not there. Exit code 3."""

    exit_code = 3

    def __str__(self) -> str:  # FileNotFoundError would print an errno tuple
        return str(self.args[0]) if self.args else ""


class ImageError(EncoscopeError):
    """An image that cannot be read, or is larger than the limit. Exit code 1."""


def suggest_nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """The known names most like a wrong one, as the end of a message: ``" (nearest: layer3, layer4)"`` or ``""``."""
    found = difflib.get_close_matches(name, list(names), n=count, cutoff=0.4)
    return f" (nearest: {', '.join(found)})" if found else ""
