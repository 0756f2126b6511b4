"""Names of a package that are imported when they are first used, so that its light modules stay light to import."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: The package's name.
        homes: The module of each public name, or MODULE:NAME where it is called otherwise there. No name may be that
            of a submodule of the package: Python puts an imported submodule in the name's place. (A submodule that is
            itself public is named by its own module.)

    Returns:
        The two functions, to be assigned to ``__getattr__`` and ``__dir__``.
    """

    def get(name: str) -> Any:
        if name in homes:
            module, _, attribute = homes[name].partition(":")
            imported = importlib.import_module(module)
            return imported if module == f"{package}.{name}" else getattr(imported, attribute or name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)
