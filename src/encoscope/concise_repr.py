"""A one-line ``repr`` for dataclasses that hold arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any, TypeVar

_FEW = 4  # items of a collection that are shown
_LONG = 60  # characters of a text that are shown

Class = TypeVar("Class", bound=type)


def concise_repr(kind: Class) -> Class:
    """Give a dataclass a ``repr`` that names every public field on one line.

    Arrays are shown by type and shape, long collections by their length. The decorator goes above ``@dataclass``.

    Args:
        kind: The dataclass.

    Returns:
        The same class.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> @concise_repr
        ... @dataclass
        ... class Scores:
        ...     name: str
        ...     values: np.ndarray
        >>> Scores("auc", np.zeros((2, 3)))
        Scores(name='auc', values=float64[2, 3])
    """
    setattr(kind, "__repr__", _format_record)  # noqa: B010 - a type checker takes a plain assignment for a method
    return kind


def _format_record(record: Any) -> str:
    shown = [field.name for field in fields(record) if field.repr and not field.name.startswith("_")]
    return f"{type(record).__name__}({', '.join(f'{name}={_format_value(getattr(record, name))}' for name in shown)})"


def _format_value(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}[{', '.join(map(str, value.shape))}]" if value.shape else str(value.item())
    if isinstance(value, Mapping):
        if len(value) > _FEW:
            return f"{{{len(value)} items}}"
        return f"{{{', '.join(f'{key!r}: {_format_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        if len(value) > _FEW:
            return f"[{len(value)} {type(value[0]).__name__}]"
        return f"[{', '.join(_format_value(item) for item in value)}]"
    if isinstance(value, PurePath):
        return str(value)
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
