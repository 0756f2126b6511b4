"""Errors whose message is one line, each with its exit code on the command line."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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


def explain_calls(function: Callable[P, T]) -> Callable[P, T]:
    """Let a public function refuse a call that its signature does not fit with a ``UsageError``, in one line.

    Args:
        function: The function. What its docstring says of an argument becomes the end of the message.

    Returns:
        The function, which raises ``UsageError`` for missing, unknown and too many arguments.

    Example:
        >>> @explain_calls
        ... def mix(first: str, *, second: str) -> str:
        ...     return first + second
        >>> try:
        ...     mix("a", secnd="b")
        ... except UsageError as error:
        ...     print(error)
        mix has no argument 'secnd' (nearest: second)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(_explain_call(function, signature, args, kwargs) or str(error)) from None
        return function(*args, **kwargs)

    return call


def _explain_call(
    function: Callable[..., object], signature: inspect.Signature, args: tuple[object, ...], kwargs: dict[str, object]
) -> str | None:
    name, parameters = function.__name__, signature.parameters
    positional = [key for key, item in parameters.items() if item.kind is item.POSITIONAL_OR_KEYWORD]
    is_open = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    unknown = [key for key in kwargs if key not in parameters and not is_open]
    if unknown:
        return f"{name} has no argument {unknown[0]!r}{suggest_nearest(unknown[0], parameters)}"
    if len(args) > len(positional):
        return f"{name} takes {', '.join(positional)} without names, and got {len(args)} values: name the others"
    supplied = {*positional[: len(args)], *kwargs}
    missing = [
        key
        for key, item in parameters.items()
        if item.default is item.empty
        and item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
        and key not in supplied
    ]
    if not missing:
        return None  # the same argument twice
    meaning = _find_meaning(inspect.getdoc(function) or "", missing[0])
    return f"{name} needs {' and '.join(missing)}" + (f"; {missing[0]}: {meaning}" if meaning else "")


def _find_meaning(docstring: str, name: str) -> str:
    """The first sentence that a docstring says of an argument."""
    _, _, rest = docstring.partition(f"\n    {name}: ")
    lines = rest.split("\n")
    whole = [lines[0], *itertools.takewhile(lambda line: line.startswith("        "), lines[1:])]
    return " ".join(line.strip() for line in whole).partition(". ")[0].rstrip(".")
