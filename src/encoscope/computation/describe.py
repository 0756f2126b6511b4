"""Describe what the modules of a network compute, apart from their weights: types, settings and the user's own code.

The description is the same in every process, on every machine and device. Modules of installed libraries are told apart
by their types and settings, so that a new release of a library changes nothing; code that comes from no installed
library counts as it is, but for comments, names of files and numbers of lines. What cannot be seen in this way (a
function in C, a library's own code) shows in the outputs of a trial input: see ``encoscope.encoder.trial``.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoscope.computation.reach import Reach, is_library_class, is_library_code
from encoscope.computation.weights import hash_weights

_IDLE = (nn.Identity, nn.modules.dropout._DropoutNd)  # they compute nothing in evaluation mode
_NO_SETTINGS = frozenset({"device", "dtype", "transformers_version"})
_MODULE_STATE = frozenset(vars(nn.Module()))
_DIGITS = 3  # of sums over tensors that are no weights, such as computed tables: machines round them differently
_MISSING = object()
_SCALARS = (bool, int, float, str, tuple)
_VALUES = (*_SCALARS, type(None), list, dict, set, frozenset, SimpleNamespace, Tensor, np.ndarray)


def describe_computation(module: nn.Module, *also: Any) -> str:
    """Describe what a network computes, apart from its weights.

    Args:
        module: The network.
        *also: Functions of the user that take part in the forward pass.

    Returns:
        The sha256 (hex) of the types and settings of the modules in use, and of the code within reach of their
        ``forward`` that comes from no installed library, with the constants and attributes that this code reads.
    """
    modules = dict(module.named_modules())
    reach = Reach(modules)
    reach.add_all(also)
    names = {id(child): name for name, child in modules.items()}
    for number, other in enumerate(reach.others):
        for name, child in other.named_modules():
            names.setdefault(id(child), f"<{number}>.{name}")
    writer = _Writer(reach, names)
    text = [
        [writer.describe_module(name, child) for name, child in modules.items()],
        [
            [hash_weights(other), [writer.describe_module(name, child) for name, child in other.named_modules()]]
            for other in reach.others
        ],
        sorted(repr(writer.describe_function(function)) for function in reach.functions),
        [writer.describe(value) for value in also],
    ]
    return hashlib.sha256(repr(text).encode("utf-8", "surrogatepass")).hexdigest()


def describe_code(code: CodeType) -> tuple[Any, ...]:
    """Describe compiled code by what it does, whatever the file and the lines that it comes from.

    Args:
        code: The code object.

    Returns:
        Its instructions, constants and names, without a function's docstring.
    """
    constants = list(code.co_consts)
    if constants and isinstance(constants[0], str) and not code.co_name.startswith("<"):
        constants[0] = None
    return (
        code.co_code.hex(),
        [describe_code(value) if isinstance(value, CodeType) else _describe_constant(value) for value in constants],
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_exceptiontable.hex(),
    )


def _describe_constant(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"set {sorted(map(_describe_constant, value))}"
    if isinstance(value, tuple):
        return f"tuple {[_describe_constant(item) for item in value]}"
    return f"{type(value).__name__} {value!r}"


class _Writer:
    """Describes modules, functions and values as nested lists of text, the same in every process."""

    def __init__(self, reach: Reach, names: Mapping[int, str]) -> None:
        self._reach, self._names = reach, names
        self._known: dict[int, tuple[Any, Any]] = {}
        self._open: set[int] = set()

    def describe_module(self, name: str, module: nn.Module) -> Any:
        """A module's name, type, settings, and code that is its own; nothing of one that computes nothing."""
        cls = type(module)
        state = dict(vars(module))
        settings = self._describe_settings(cls, state) + self._describe_attributes(cls, state)
        if isinstance(module, _IDLE) and cls.__module__.startswith("torch."):
            return ""
        tables = [
            (key, self.describe(value))
            for key, value in sorted(module._buffers.items())
            if key in module._non_persistent_buffers_set
        ]
        script = str(module.code) if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "forward") else ""
        return [name, _name_class(cls), sorted(settings), tables, script]

    def _describe_settings(self, cls: type, state: Mapping[str, Any]) -> list[Any]:
        """Of a library's class: the constructor's arguments that are kept as attributes, unless they are as usual."""
        return [
            (name, self.describe(state[name]))
            for name, default in _find_arguments(cls).items()
            if name in state and not _equals_default(state[name], default)
        ]

    def _describe_attributes(self, cls: type, state: Mapping[str, Any]) -> list[Any]:
        """The attributes, of the object and its class, that code of the user reads and no such code writes."""
        attributes_of_class: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if not is_library_class(base):
                attributes_of_class |= vars(base)
        functions = {name for name, _ in self._reach.own_functions(cls)}
        own = bool(functions) or any(map(_is_function, state.values()))
        attributes = [
            (name, self.describe(value))
            for name, value in attributes_of_class.items()
            if name in self._reach.names and name not in functions and not name.startswith("__")
        ]
        for name, value in state.items():
            if name in _MODULE_STATE or self._is_state(name, value):
                continue
            if _is_function(value) or (own and name in self._reach.names):
                attributes.append((f".{name}", self.describe(value)))
        return attributes

    def describe_function(self, function: FunctionType) -> Any:
        """A function's code, and what it uses."""
        if is_library_code(function):
            return self._describe_library_function(function)
        bindings = [
            (name, self._bound(value))
            for name, value in sorted(self._reach.bindings.get(id(function), {}).items())
            if not self._is_state(name.rpartition(".")[2], value)
        ]
        return ["function", describe_code(function.__code__), bindings]

    def _is_state(self, name: str, value: Any) -> bool:
        """Whether the code within reach changes this value when it runs."""
        return name in self._reach.stored or (name in self._reach.filled and isinstance(value, dict | list | set))

    def _bound(self, value: Any) -> Any:
        """What a name in code stands for; functions are described on their own, once."""
        if isinstance(value, FunctionType) and not is_library_code(value):
            return ["code", _hash(describe_code(value.__code__))]
        return self.describe(value)

    def _describe_library_function(self, function: FunctionType) -> Any:
        module = str(function.__module__)
        if module.startswith("encoscope."):
            return "own"
        inside = self._reach.bindings.get(id(function), {}) if hasattr(function, "__wrapped__") else {}
        name = f"{module.partition('.')[0]}.{function.__code__.co_qualname}:{function.__name__}"
        return ["library", name, [(key, self._bound(value)) for key, value in sorted(inside.items())]]

    def describe(self, value: Any) -> Any:
        """Any value, without what differs between processes, machines and devices."""
        if value is None or isinstance(value, bool | int | str | bytes | complex):
            return (
                f"{type(value).__name__} {value!r}"
                if not isinstance(value, Enum)
                else f"{_name_class(type(value))}.{value.name}"
            )
        if isinstance(value, float):
            return f"float {value:.9g}"
        if id(value) in self._open:
            return "itself"
        if id(value) not in self._known:
            self._open.add(id(value))
            try:
                self._known[id(value)] = (value, self._describe_object(value))
            finally:
                self._open.discard(id(value))
        return self._known[id(value)][1]

    def _describe_object(self, value: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray | np.generic):
            return _describe_numbers(value)
        if isinstance(value, torch.device):
            return "device"
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value)
        if isinstance(value, tuple | list):
            return [type(value).__name__, [self.describe(item) for item in value]]
        if isinstance(value, set | frozenset):
            return ["set", sorted(repr(self.describe(item)) for item in value)]
        if isinstance(value, dict):
            return ["dict", [(self.describe(key), self.describe(item)) for key, item in value.items()]]
        if isinstance(value, nn.Module):
            return ["module", self._names.get(id(value), _name_class(type(value)))]
        if isinstance(value, FunctionType):
            return self.describe_function(value)
        if isinstance(value, MethodType):
            return ["method", self.describe(value.__func__), self.describe(value.__self__)]
        if isinstance(value, functools.partial):
            return ["partial", self.describe(value.func), self.describe(value.args), self.describe(value.keywords)]
        if isinstance(value, type):
            return ["class", _name_class(value)]
        if isinstance(value, ModuleType):
            return ["python module", value.__name__]
        if isinstance(getattr(value, "__qualname__", None), str):  # functions in C
            return ["function", str(getattr(value, "__module__", None)), value.__qualname__]
        return self._describe_instance(value)

    def _describe_instance(self, value: Any) -> Any:
        """An object by its class and the attributes that code reads; of a library's, its settings, too."""
        cls = type(value)
        state = dict(getattr(value, "__dict__", {}))
        library, arguments = is_library_class(cls), _find_arguments(cls)
        shown = []
        for name, item in sorted(state.items()):
            read = name in self._reach.names and not self._is_state(name, item)
            setting = name in arguments and not _equals_default(item, arguments[name])
            if (read and not (library and not isinstance(item, _VALUES))) or (setting and isinstance(item, _SCALARS)):
                shown.append((name, self.describe(item)))
        return ["object", _name_class(cls), shown]


def _is_function(value: Any) -> bool:
    """Whether an attribute is a function that was put there, not a module or a class."""
    return callable(value) and not isinstance(value, nn.Module | type)


def _hash(description: Any) -> str:
    return hashlib.sha256(repr(description).encode("utf-8", "surrogatepass")).hexdigest()


def _name_class(cls: type) -> str:
    """A class's name; of a library's class with the library, but not the file in it, which releases change."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}" if is_library_class(cls) else cls.__qualname__


@lru_cache(maxsize=4096)
def _find_arguments(cls: type) -> dict[str, Any]:
    """The arguments of a library's class and its bases, with their defaults."""
    arguments: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in (object, nn.Module) or not is_library_class(base) or "__init__" not in vars(base):
            continue
        try:
            parameters = inspect.signature(base.__init__).parameters.values()
        except (TypeError, ValueError):
            continue
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                default = _MISSING if parameter.default is parameter.empty else parameter.default
                arguments.setdefault(parameter.name, default)
    return {name: default for name, default in arguments.items() if name not in _NO_SETTINGS}


def _equals_default(value: Any, default: Any) -> bool:
    plain = isinstance(value, bool | int | float | str | tuple | type(None))
    return plain and type(value) is type(default) and value == default


def _describe_numbers(value: Any) -> Any:
    """Numbers: whole ones as they are; others by rounded sums, as they may have been computed on this machine."""
    if isinstance(value, Tensor):
        if value.is_meta or value.layout != torch.strided or value.is_quantized:
            return ["numbers", str(value.dtype), list(value.shape)]
        value = value.detach().cpu().resolve_conj().resolve_neg()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    array = np.ascontiguousarray(value)
    about = ["numbers", array.dtype.kind, list(array.shape)]
    if array.dtype.kind == "O":
        return about
    if array.dtype.kind not in "fc":
        return [*about, hashlib.sha256(array.tobytes()).hexdigest()]
    parts = [np.real(array), np.imag(array)] if array.dtype.kind == "c" else [array]
    flat = np.nan_to_num(np.concatenate([part.ravel() for part in parts]), nan=0.5, posinf=3.0, neginf=-3.0)
    flat = flat.astype(np.float64)
    norm = float(np.sqrt((flat**2).sum()))
    sums = (draw_signs(3, flat.size) @ flat / max(norm, 1e-30)).tolist()
    return [*about, f"{norm:.{_DIGITS}g}", [f"{round(total, _DIGITS) + 0.0:.{_DIGITS}f}" for total in sums]]


def draw_signs(count: int, size: int) -> np.ndarray:
    """Draw rows of random signs, the same on every machine.

    Args:
        count: How many rows.
        size: Signs in a row.

    Returns:
        ``[count, size]``, each 1 or -1.
    """
    draws = np.random.RandomState(0).bytes(count * size)
    return np.where(np.frombuffer(draws, np.uint8).reshape(count, size) < 128, -1.0, 1.0)
