"""Errors whose message is one line, each with its exit code on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EncoscopeError(Exception):
    """Any error of this package. The message says what was wrong, with what value, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(EncoscopeError, ValueError):
    """A wrong argument: an unknown layer, a number out of range, flags that contradict each other. Exit code 2."""

    exit_code = 2


class MissingError(EncoscopeError, FileNotFoundError):
    """Data, weights or an optional dependency that is missing. Exit code 3."""

    exit_code = 3

    def __str__(self) -> str:  # FileNotFoundError would print an errno tuple
        return str(self.args[0]) if self.args else ""


class ImageError(EncoscopeError):
    """An image that cannot be read or is larger than the limit. Exit code 1."""


def suggest_nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """List the known names that are most like an unknown one, as the end of a message.

    Args:
        name: The unknown name.
        names: The known names.
        count: The most names to list.

    Returns:
        Such as ``" (nearest: layer3, layer4)"``; an empty string if no name is similar.

    Example:
        >>> suggest_nearest("layer33", ["conv1", "layer3"])
        ' (nearest: layer3)'
    """
    matches = difflib.get_close_matches(name, list(names), n=count, cutoff=0.4)
    return f" (nearest: {', '.join(matches)})" if matches else ""
