"""Names of stores: after the content of their manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def content_key(manifest: Mapping[str, Any]) -> str:
    """Compute a short name for the content of a manifest, the same whatever the order of its keys.

    Args:
        manifest: Values that JSON can hold.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
        True
    """
    text = json.dumps(to_plain_json(manifest), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_plain_json(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a manifest to what JSON gives back of it: tuples become lists, keys become text.

    Args:
        manifest: Values that JSON can hold.

    Returns:
        The same content in JSON's own types.

    Raises:
        TypeError: a value that JSON cannot hold.
        ValueError: a number that is not finite.
    """
    return json.loads(json.dumps(dict(manifest), allow_nan=False))


def first_difference(old: Any, new: Any, where: str = "") -> tuple[str, str, str] | None:
    """Find the first key, in alphabetical order, at which two plain manifests differ.

    Args:
        old: A manifest, or a value in it.
        new: The manifest, or value, it is compared with.
        where: The key of both in the whole manifest; empty for the whole.

    Returns:
        The key, with dots between the levels, and both values as JSON; None if they agree.

    Example:
        >>> first_difference({"size": {"height": 1}}, {"size": {"height": 2}})
        ('size.height', '1', '2')
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inside = f"{where}.{name}" if where else name
            difference = first_difference(old.get(name, _ABSENT), new.get(name, _ABSENT), inside)
            if difference:
                return difference
        return None
    # Compared as JSON, where 1 is not true and 1 is not 1.0.
    texts = ["nothing" if value is _ABSENT else json.dumps(value, sort_keys=True) for value in (old, new)]
    return None if texts[0] == texts[1] else (where, texts[0], texts[1])
