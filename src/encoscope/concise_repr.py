"""Results that hold arrays, shown on one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any, TypeVar

_FEW = 4  # items that are shown
_LONG = 60  # characters of a text

Class = TypeVar("Class", bound=type)


def concise_repr(kind: Class) -> Class:
    """A dataclass whose ``repr`` names every public field: arrays by type and shape, long collections by their number.

    Goes above ``@dataclass``.
    """
    setattr(kind, "__repr__", _line)  # noqa: B010 - assigned to, a type checker takes it for a bound method
    return kind


def _line(record: Any) -> str:
    shown = [field.name for field in fields(record) if field.repr and not field.name.startswith("_")]
    return f"{type(record).__name__}({', '.join(f'{name}={_value(getattr(record, name))}' for name in shown)})"


def _value(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}[{', '.join(map(str, value.shape))}]" if value.shape else str(value.item())
    if isinstance(value, Mapping):
        if len(value) > _FEW:
            return f"{{{len(value)} items}}"
        return f"{{{', '.join(f'{key!r}: {_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        if len(value) > _FEW:
            return f"[{len(value)} {type(value[0]).__name__}]"
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, PurePath):
        return str(value)
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
