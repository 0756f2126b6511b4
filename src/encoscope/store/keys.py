"""What stores are called: after the content of a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def content_key(manifest: Mapping[str, Any]) -> str:
    """A short name for what a manifest says: 16 hexadecimal digits, the same for the same content in any order."""
    text = json.dumps(to_plain_json(manifest), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_plain_json(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as JSON gives it back: tuples are lists, keys are strings. TypeError for what JSON cannot hold."""
    return json.loads(json.dumps(dict(manifest), allow_nan=False))


def first_difference(old: Any, new: Any, where: str = "") -> tuple[str, str, str] | None:
    """The first place (by name) where two plain manifests differ, with both values as JSON; None if they agree."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inside = f"{where}.{name}" if where else name
            found = first_difference(old.get(name, _ABSENT), new.get(name, _ABSENT), inside)
            if found:
                return found
        return None
    # Compared as JSON, where 1 is not true and 1 is not 1.0.
    texts = ["nothing" if value is _ABSENT else json.dumps(value, sort_keys=True) for value in (old, new)]
    return None if texts[0] == texts[1] else (where, texts[0], texts[1])
