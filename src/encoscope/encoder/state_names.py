"""Names of tensors in state dictionaries: match them with a user's patterns, and list many of them in few patterns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matches_pattern(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a tensor's name is one that patterns stand for.

    Args:
        name: The name, such as "layer4.0.bn2.weight".
        patterns: Names of tensors, names of modules (which stand for all tensors in them), or either with "*".

    Returns:
        Whether one of them stands for the name.

    Example:
        >>> matches_pattern("head.fc.weight", ["head"]), matches_pattern("blocks.3.ls1.gamma", ["blocks.*.ls1"])
        (True, True)
    """
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def condense_names(names: Sequence[str], others: Iterable[str] = ()) -> list[str]:
    """List names of tensors in as few patterns as possible, none of which stands for any other tensor.

    Args:
        names: The names.
        others: Names that no pattern may stand for.

    Returns:
        Patterns as ``matches_pattern`` takes them, in the order of the names.

    Example:
        >>> condense_names(["a.0.qkv.weight", "a.0.qkv.bias", "a.1.qkv.weight"], ["a.0.norm.weight", "a.1.norm.weight"])
        ['a.*.qkv.*']
    """
    kept = set(others) - set(names)
    taken = {prefix for name in kept for prefix in _prefixes(name)}
    inside = Counter(prefix for name in names for prefix in _prefixes(name))
    patterns: dict[str, list[str]] = defaultdict(list)  # by the pattern without its numbers
    for name in names:
        prefix = next((prefix for prefix in _prefixes(name) if prefix not in taken), None)
        pattern = name if prefix is None or inside[prefix] == 1 else f"{prefix}.*"
        numberless = ".".join("*" if part.isdigit() else part for part in pattern.split("."))
        if pattern not in patterns[numberless]:
            patterns[numberless].append(pattern)
    condensed: list[str] = []
    for numberless, several in patterns.items():
        single = len(several) > 1 and not any(fnmatchcase(name, numberless) for name in kept)
        condensed += [numberless] if single else several
    return condensed


def format_names(patterns: Sequence[str], count: int = 6) -> str:
    """Write the first names as a text.

    Args:
        patterns: The names.
        count: The most names to write.

    Returns:
        Such as "a, b, ...".
    """
    return ", ".join(patterns[:count]) + (", ..." if len(patterns) > count else "")


def _prefixes(name: str) -> Iterable[str]:
    """``a``, ``a.b`` for ``a.b.c``: the modules that a tensor is in."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))
