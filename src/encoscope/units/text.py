"""From texts such as layer4:12,-97 or "class:tiger - class:lion" to units, checked against an encoder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from encoscope.classes import find_class
from encoscope.encoder import Encoder
from encoscope.encoder.sources.python import find_function
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.file_kind import require_ordinary_file
from encoscope.results import DAMAGED
from encoscope.units.unit import Unit, UnitKind, objective_unit
from encoscope.units.values import unit_weights

_FUNCTION = "py:"
_POSITION = re.compile(r"x(\d+),y(\d+):(.+)", re.ASCII)
_SIGN = re.compile(r"\s([+-])\s+(?=\S*[:@])")
"""Between two units: the text behind it begins a unit, up to its colon or @."""


def parse_unit(text: str | Unit, encoder: Encoder) -> Unit:
    """Read a unit from text and check it against an encoder.

    Args:
        text: ``layer4:485`` is a channel; ``layer4:12,97`` a group, ``layer4:12,-97`` one channel less another, and
            ``layer4@x3,y5:12`` a channel at one position of the map (column 3, row 5);
            ``layer4@direction.npy`` a direction, a file with one number for each channel; ``blocks.7@cls:12`` a channel
            of the class token; ``features:31`` (also a group or ``@FILE``) a feature of the pooled representation,
            which is what FALCON calls a feature; ``class:207`` the class of this index; ``class:golden retriever`` a
            class by name, whatever its case, ``_`` standing for a space, or by its number in WordNet
            (``class:n02099601``). ``A + B`` and ``A - B``, with spaces around the sign, add units, also of several
            layers. ``py:module:function`` is a function of your own: see ``objective_unit``; what it reads is its
            attribute ``reads``, or else the logits. A Unit is returned as it is.
        encoder: The network that the unit belongs to.

    Returns:
        The unit, which keeps the text as its name.

    Raises:
        UsageError: The layer, channel or class does not exist (the nearest name is suggested) or is ambiguous.
        MissingError: The file of a direction does not exist.
    """
    if isinstance(text, Unit):
        return text
    if not isinstance(text, str):
        raise UsageError(f"a unit is a text such as layer4:485 or class:207, not {text!r}")
    if text.startswith(_FUNCTION):
        return _load_objective(text, encoder)
    terms = _SIGN.split(text)
    if len(terms) > 1:
        signs = [1.0, *(-1.0 if sign == "-" else 1.0 for sign in terms[1::2])]
        units = [_parse_term(term.strip(), encoder) for term in terms[::2]]
        return _add_units(text, list(zip(signs, units, strict=True)), encoder)
    return _parse_term(text, encoder)


def _parse_term(text: str, encoder: Encoder) -> Unit:
    """A unit without a sum."""
    layer, separator, rest = _split(text)
    if layer == "class" and separator == ":":
        return Unit(text, "class", channels=(find_class(rest, encoder),))
    if layer == "features":
        if separator == "@":
            return Unit(text, "features", direction=_read_direction(rest, encoder.width, "features"))
        return _make_unit(text, "features", None, rest, encoder.width, "features")
    info = encoder.layer(layer)
    if separator == "@" and rest.startswith("cls:"):
        if not info.prefix:
            raise UsageError(f"layer {layer!r} has no class token: name a channel as {layer}:{rest[4:]}")
        return Unit(text, "token", layer, _parse_token_index(rest[4:], info.channels, text))
    if separator == "@" and (at := _POSITION.fullmatch(rest)):
        column, row = int(at[1]), int(at[2])
        rows, columns = info.grid
        if row >= rows or column >= columns:
            raise UsageError(
                f"{text!r} is out of range: the map of {layer} has columns x0 to x{columns - 1} and rows y0 to "
                f"y{rows - 1}"
            )
        unit = _make_unit(text, "channel", layer, at[3], info.channels, f"channels of {layer}")
        return replace(unit, position=(row, column))
    if separator == "@":
        return Unit(text, "direction", layer, direction=_read_direction(rest, info.channels, f"channels of {layer}"))
    return _make_unit(text, "channel", layer, rest, info.channels, f"channels of {layer}")


def _make_unit(text: str, kind: UnitKind, layer: str | None, rest: str, width: int, what: str) -> Unit:
    """A channel or feature, a group of them, or a group with minus signs, which is a direction of 1 and -1."""
    signed = _parse_indices(rest, width, text, what)
    indices = tuple(index for _, index in signed)
    if kind == "channel" and len(indices) > 1:
        kind = "group"
    if all(sign > 0 for sign, _ in signed):
        return Unit(text, kind, layer, indices)
    direction = np.zeros(width)
    direction[list(indices)] = [sign for sign, _ in signed]
    return Unit(text, "group" if layer is not None else kind, layer, direction=tuple(direction.tolist()))


def _add_units(text: str, terms: list[tuple[float, Unit]], encoder: Encoder) -> Unit:
    """The sum of units: a direction where they are of one representation, else a unit of kind "sum"."""
    if all(unit.is_spanned for _, unit in terms) and len({unit.space for _, unit in terms}) == 1:
        vector = sum(sign * unit_weights(unit, encoder).double() for sign, unit in terms)
        direction = np.asarray(vector)
        if not direction.any():
            raise UsageError(f"{text!r} is zero whatever the image")
        first = terms[0][1]
        kind = "group" if first.kind in ("channel", "group", "direction") else first.kind
        return Unit(text, kind, first.layer, direction=tuple(direction.tolist()))
    layers = [unit.layer for _, unit in terms]
    order = [info.name for info in encoder.layers]
    last = None if None in layers else max((name for name in layers if name is not None), key=order.index)
    return Unit(text, "sum", last, terms=tuple(terms))


def _load_objective(text: str, encoder: Encoder) -> Unit:
    """A user's function."""
    function = find_function(text.removeprefix(_FUNCTION), "mymodels.units:objective")
    reads = getattr(function, "reads", "features" if encoder.outputs is None else "logits")
    unit = objective_unit(function, reads, name=text)
    for name in unit.reads:
        if name not in ("features", "logits"):
            encoder.layer(name)
    return unit


def parse_units(units: Any, encoder: Encoder) -> tuple[list[Unit], bool]:
    """Find the units that texts and Units name.

    Args:
        units: A text, a Unit, or a list of these. "all" is every pooled feature; LAYER:all, features:all and class:all
            every unit of theirs.
        encoder: The encoder.

    Returns:
        The units, each once, and whether a single one was named.

    Raises:
        UsageError: For no units, and for what names none.
    """
    if isinstance(units, str | Unit):
        if is_all(units):
            return list_units(str(units).removesuffix("all").removesuffix(":") or "features", encoder), False
        return [parse_unit(units, encoder)], True
    if not isinstance(units, Iterable):
        raise UsageError(f"a unit is a text such as layer4:485 or class:207, not {units!r}")
    parsed = [unit for item in units for unit in parse_units(item, encoder)[0]]
    if not parsed:
        raise UsageError('no units were given: name at least one, such as features:31, or "all"')
    return list(dict.fromkeys(parsed)), False


def is_all(unit: Unit | str) -> bool:
    """Tell whether a unit's text stands for all units of a layer.

    Args:
        unit: A unit or its text.

    Returns:
        Whether it is "all" or ends in ":all".
    """
    return isinstance(unit, str) and (unit == "all" or unit.endswith(":all"))


def list_units(layer: str, encoder: Encoder) -> list[Unit]:
    """List all features, classes, or channels of a layer as units.

    Args:
        layer: "features", "class" or a layer's name.
        encoder: The encoder.

    Returns:
        The units in the order of their numbers.

    Raises:
        UsageError: For an unknown layer, and for the classes of an encoder without a head.
    """
    if layer == "features":
        return [Unit(f"features:{i}", "features", channels=(i,)) for i in range(encoder.width)]
    if layer == "class":
        count = encoder.outputs or parse_unit("class:0", encoder).index  # the latter raises, saying why there are none
        return [Unit(f"class:{i}", "class", channels=(i,)) for i in range(count)]
    info = encoder.layer(layer)
    return [Unit(f"{layer}:{i}", "channel", layer, (i,)) for i in range(info.channels)]


def _split(text: str) -> tuple[str, str, str]:
    """A unit's text as (layer, ":" or "@", the rest)."""
    positions = [position for position in (text.find(":"), text.find("@")) if position > 0]
    if not positions or min(positions) == len(text) - 1:
        raise UsageError(
            f"{text!r} names no unit: write LAYER:CHANNEL (layer4:485), LAYER@FILE.npy, features:31 or class:NAME"
        )
    split = min(positions)
    return text[:split], text[split], text[split + 1 :]


def _parse_indices(text: str, width: int, unit: str, what: str) -> list[tuple[float, int]]:
    """Distinct indices below ``width``, each with its sign, from a text with commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?\d{1,18}", part, re.ASCII) for part in parts):
        raise UsageError(f"{unit!r} names no unit: after the colon come numbers with commas between them")
    signed = [(-1.0 if part.startswith("-") else 1.0, abs(int(part))) for part in parts]
    indices = [index for _, index in signed]
    if max(indices) >= width:
        raise UsageError(f"{unit!r} is out of range: there are {width} {what}, 0 to {width - 1}")
    if len(set(indices)) < len(indices):
        raise UsageError(f"{unit!r} names an index twice")
    return signed


def _parse_token_index(text: str, width: int, unit: str) -> tuple[int, ...]:
    signed = _parse_indices(text, width, unit, "channels of the class token")
    if len(signed) > 1 or signed[0][0] < 0:
        raise UsageError(f"{unit!r} names several channels: a class token's unit is a single channel")
    return (signed[0][1],)


def _read_direction(text: str, width: int, what: str) -> tuple[float, ...]:
    """The vector in a .npy file: ``width`` finite numbers, not all zero."""
    file = Path(text).expanduser()
    require_ordinary_file(file)
    try:
        vector = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"no direction file {os.fspath(file)}") from None
    except DAMAGED as error:
        raise EncoscopeError(f"{os.fspath(file)} is no .npy file of numbers: {error}") from error
    vector = np.squeeze(np.asarray(vector))
    if vector.shape != (width,) or vector.dtype.kind not in "fiu":
        raise UsageError(f"{os.fspath(file)} holds {vector.dtype} {vector.shape}, not {width} numbers for the {what}")
    if not np.isfinite(vector).all() or not vector.any():
        raise UsageError(f"{os.fspath(file)} holds NaN or infinite numbers, or only zeros")
    return tuple(vector.astype(np.float64).tolist())
