"""Where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """A folder of the cache: under ENCOSCOPE_CACHE if that is set, else the user's own. It is not made here."""
    named = os.environ.get("ENCOSCOPE_CACHE")
    root = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("encoscope", appauthor=False))
    return root.joinpath(*parts)
