"""Records to JSON's own types and back, by their annotations."""

from __future__ import annotations

import types
from collections import abc
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from encoscope.errors import EncoscopeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    AnyRecord = TypeVar("AnyRecord", bound=DataclassInstance)
else:  # the bound is for type checkers: there is no such class when the program runs
    AnyRecord = TypeVar("AnyRecord")


def to_plain(record: Any) -> Any:
    """A record in JSON's own types.

    Args:
        record: A record, or a tuple, list or mapping of records.

    Returns:
        Dataclasses as mappings without the fields that have their default value, tuples as lists.
    """
    if is_dataclass(record):
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        defaults = _defaults(type(record))
        return {name: to_plain(value) for name, value in values.items() if value != defaults.get(name, MISSING)}
    if isinstance(record, tuple | list):
        return [to_plain(item) for item in record]
    if isinstance(record, Mapping):
        return {str(key): to_plain(item) for key, item in record.items()}
    return record


def from_plain(kind: type[AnyRecord], plain: Any) -> AnyRecord:
    """A record from what ``to_plain`` gave.

    Args:
        kind: The record's class.
        plain: The mapping; fields that the class does not know, from newer writers, are left out.

    Returns:
        The record.

    Raises:
        EncoscopeError: A required field is missing, or a field has another type.
    """
    try:
        return _read(kind, plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoscopeError(f"this is no {kind.__name__}: {error!r}") from error


def merge_records(old: AnyRecord, new: AnyRecord) -> AnyRecord:
    """The old record with every field that the new one holds.

    Args:
        old: The record so far.
        new: A record of the same class; its fields that have their default value change nothing.

    Returns:
        A record of the same class.
    """
    defaults = _defaults(type(new))
    values = {field.name: getattr(new, field.name) for field in fields(new)}
    return replace(old, **{name: value for name, value in values.items() if value != defaults.get(name, MISSING)})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _defaults(kind: type) -> dict[str, Any]:
    defaults = {}
    for field in fields(kind):
        if field.default is not MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _read(hint: Any, plain: Any) -> Any:
    """A value that an annotation describes, from plain JSON."""
    if is_dataclass(hint):
        kind = cast("type[DataclassInstance]", hint)
        hints = _hints(kind)
        return kind(**{name: _read(hints[name], value) for name, value in plain.items() if name in hints})
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if plain is None:
            return None
        (inner,) = [member for member in get_args(hint) if member is not type(None)]
        return _read(inner, plain)
    if origin is abc.Mapping:
        return dict(plain)
    if origin is tuple:
        items = get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            return tuple(_read(items[0], item) for item in plain)
        return tuple(_read(kind, item) for kind, item in zip(items, plain, strict=True))
    if hint is float:
        return float(plain)
    if hint is int and (isinstance(plain, bool) or not isinstance(plain, int)):
        raise TypeError(f"{plain!r} is no whole number")
    if hint is str and not isinstance(plain, str):
        raise TypeError(f"{plain!r} is no text")
    return plain
