"""Where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def get_cache_dir(*parts: str) -> Path:
    """Find a folder of the cache: under ENCOSCOPE_CACHE if that is set, else the user's own. It is not made here.

    Args:
        *parts: Subfolders.

    Returns:
        The folder.
    """
    named = os.environ.get("ENCOSCOPE_CACHE")
    root = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("encoscope", appauthor=False))
    return root.joinpath(*parts)


def cache_folder(chosen: str | os.PathLike[str] | None, *parts: str) -> Path:
    """Find a folder of the cache that a user may have put elsewhere.

    Args:
        chosen: The user's own cache folder (the ``cache_dir`` of functions and estimators); None is the usual one.
        *parts: Its subfolders.

    Returns:
        The folder. It is not made here.
    """
    return get_cache_dir(*parts) if chosen is None else Path(chosen).expanduser().joinpath(*parts)
