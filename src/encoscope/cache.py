"""The folder for results that can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


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
