"""Where results are kept that can be computed again: folders of the cache, named after what made their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

_ABSENT = object()


def get_cache_dir(*parts: str) -> Path:
    """Find a folder of the cache.

    Args:
        *parts: Its subfolders.

    Returns:
        The folder, in ``ENCOSCOPE_CACHE`` if that variable is set, else in the user's cache folder. It is not created.
    """
    variable = os.environ.get("ENCOSCOPE_CACHE")
    root = Path(variable).expanduser() if variable else Path(platformdirs.user_cache_dir("encoscope", appauthor=False))
    return root.joinpath(*parts)


def resolve_cache_dir(chosen: str | os.PathLike[str] | None, *parts: str) -> Path:
    """Find a folder of the cache, which a user may have put elsewhere.

    Args:
        chosen: The user's own cache folder (the ``cache_dir`` of functions and estimators); None is the usual one.
        *parts: Its subfolders.

    Returns:
        The folder. It is not created.
    """
    return get_cache_dir(*parts) if chosen is None else Path(chosen).expanduser().joinpath(*parts)


def find_keyed_folder(kind: str, manifest: Mapping[str, Any], cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Find the folder of the cache that is named after a manifest.

    Args:
        kind: What is kept, the folder above: "probe", "synthesis", ...
        manifest: What makes the content, of values that JSON can hold.
        cache_dir: The user's own cache folder; None is the usual one.

    Returns:
        The folder: the same for the same content. It is not created.
    """
    return resolve_cache_dir(cache_dir, kind, content_key(manifest))


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
