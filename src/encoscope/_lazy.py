"""Names of a package that are imported when they are first used, so that its light modules stay light to import."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: The package's name.
        homes: The module of each public name. No name may be that of a submodule of the package: Python puts an
            imported submodule in the name's place.

    Returns:
        The two functions, to be assigned to ``__getattr__`` and ``__dir__``.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)
