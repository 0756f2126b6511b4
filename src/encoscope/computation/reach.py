"""Find the code within reach of a network's forward pass: what comes from no installed library is followed.

A function leads to what it names: other functions, classes, modules, constants, the cells of its closure and its
defaults. Functions of installed libraries are known by their names and are not followed, but for what they wrap.
"""

from __future__ import annotations

import dis
import functools
import importlib
import inspect
import os
import site
import sys
import sysconfig
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn

_ENTRY_POINTS = ("forward", "__call__", "__getattr__", "__torch_function__")
_FILLING = ("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "discard")
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Tensor, np.ndarray, np.generic)
_CONSTRUCTORS = ("__init__", "__new__", "__init_subclass__", "__post_init__")
_MOST_WRAPPERS = 50
_OWN = f"{__name__.partition('.')[0]}."  # this package's own code: its releases change no digest


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(Path(os.__file__).parent)]
    return tuple(os.path.realpath(folder) + os.sep for folder in dict.fromkeys(folders))


@lru_cache(maxsize=4096)
def _is_library_file(file: str) -> bool:
    if file.startswith("<"):  # generated code has no file: it may say anything
        return file.startswith("<frozen")
    return os.path.realpath(file).startswith(_library_folders())


def is_library_code(function: FunctionType) -> bool:
    """Tell whether a function is part of an installed library, the standard library or this package.

    Args:
        function: A Python function.

    Returns:
        False for code of the user, in a file or not.
    """
    return str(function.__module__).startswith(_OWN) or _is_library_file(function.__code__.co_filename)


def is_own_code(function: FunctionType) -> bool:
    """Tell whether a function, or what it wraps, comes from no installed library.

    Args:
        function: A Python function, such as a method of the user that ``torch.no_grad`` decorates.

    Returns:
        True if the user wrote it, or what it wraps.
    """
    inner: Any = function
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(inner, FunctionType):
            break
        if not is_library_code(inner):
            return True
        inner = vars(inner).get("__wrapped__")
    return False


@lru_cache(maxsize=4096)
def is_library_class(cls: type) -> bool:
    """Tell whether a class is part of an installed library, the standard library or this package.

    Args:
        cls: The class.

    Returns:
        False for a class of the user.
    """
    if cls.__module__.startswith(_OWN) or cls.__module__ in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and _is_library_file(file)


def unwrap_members(value: Any) -> Iterator[Any]:
    """Find the functions behind a member of a class.

    Args:
        value: A value of the class's dictionary.

    Yields:
        The functions of methods, static methods, properties and the like.
    """
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, staticmethod | classmethod):
        yield from unwrap_members(value.__func__)
    elif isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from unwrap_members(part)
    elif isinstance(value, functools.cached_property | functools.partialmethod):
        yield from unwrap_members(value.func)
    elif isinstance(wrapped := inspect.getattr_static(value, "__wrapped__", None), FunctionType):  # lru_cache, say
        yield wrapped


def find_own_functions(cls: type) -> list[tuple[str, FunctionType]]:
    """List the functions of a class that come from no installed library, those of its bases too.

    Args:
        cls: The class; of a library's class, what a user has put in place of its methods.

    Returns:
        (name in the class, function).
    """
    return [
        (name, function)
        for base in cls.__mro__
        if base not in (object, nn.Module)
        for name, value in list(vars(base).items())
        for function in unwrap_members(value)
        if is_own_code(function)
    ]


def find_codes(code: CodeType) -> Iterator[CodeType]:
    """List a code object and those inside it: of its lambdas, comprehensions and inner functions.

    Args:
        code: The code object.

    Yields:
        The code objects.
    """
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from find_codes(constant)


class Reach:
    """All that the forward passes of some modules can use and that comes from no installed library.

    Args:
        modules: The modules of a network, each with its name.

    Attributes:
        functions: The functions, each once.
        bindings: For the id of a function, what it uses by name: globals, cells and defaults.
        names: All names and texts in the functions' code.
        stored: The names of attributes and variables that the functions write.
        filled: The names of attributes and variables whose content the functions change, such as caches.
        others: Modules that are used but are not in the network, in the order in which they were found.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.functions: list[FunctionType] = []
        self.bindings: dict[int, dict[str, Any]] = {}
        self.names: set[str] = set()
        self.stored: set[str] = set()
        self.filled: set[str] = set()
        self.others: list[nn.Module] = []
        self._modules = {id(module) for module in modules.values()}
        self._classes: list[type] = []
        self._own_modules: list[nn.Module] = []
        self._instances: set[type] = set()  # of objects that are no modules: their operators count, too
        self._own: dict[type, list[tuple[str, FunctionType]]] = {}
        self._values: dict[int, Any] = {}  # kept alive, so that an id means one value
        for module in modules.values():
            self._add_network_module(module)
        self._follow_names()

    def _add_network_module(self, module: nn.Module) -> None:
        self._modules.add(id(module))
        cls = type(module)
        if cls not in self._classes:
            self._classes.append(cls)
        if self.own_functions(cls):
            self._own_modules.append(module)
        state = dict(vars(module))
        for value in state.values():
            if callable(value) and not isinstance(value, nn.Module | type):
                self.add(value)

    def _follow_names(self) -> None:
        """Add the methods, class attributes and attributes whose names occur, until nothing is new."""
        before = -1
        while before != len(self._values) + len(self.names) + len(self._classes):
            before = len(self._values) + len(self.names) + len(self._classes)
            for cls in list(self._classes):
                library = is_library_class(cls)
                for name, function in self.own_functions(cls):
                    implicit = name in _ENTRY_POINTS or (cls in self._instances and name.startswith("__"))
                    if library or name in self.names or (implicit and name not in _CONSTRUCTORS):
                        self.add(function)
                for base in cls.__mro__ if self.own_functions(cls) else ():
                    if not is_library_class(base):
                        self.add_all(self._select_read(vars(base)))
            for module in list(self._own_modules):
                self.add_all(self._select_read(vars(module)))

    def _select_read(self, attributes: Mapping[str, Any]) -> list[Any]:
        """The attributes that code reads and does not write, but for the methods."""
        return [
            value
            for name, value in list(attributes.items())
            if name in self.names and name not in self.stored and not any(True for _ in unwrap_members(value))
        ]

    def own_functions(self, cls: type) -> list[tuple[str, FunctionType]]:
        """List the functions of a class that come from no installed library.

        Args:
            cls: The class.

        Returns:
            As ``find_own_functions``.
        """
        if cls not in self._own:
            self._own[cls] = find_own_functions(cls)
        return self._own[cls]

    def add_all(self, values: Iterable[Any]) -> None:
        """Add several values.

        Args:
            values: The values.
        """
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        """Add a value that is used, and all that it leads to.

        Args:
            value: The value.
        """
        if isinstance(value, _PLAIN) or id(value) in self._values:
            return
        self._values[id(value)] = value
        if isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, MethodType):
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self.add(value.func)
            self.add_all([*value.args, *value.keywords.values()])
        elif isinstance(value, nn.Module):
            if id(value) not in self._modules:
                self.others.append(value)
                for child in value.modules():
                    self._values[id(child)] = child
                    self._add_network_module(child)
        elif isinstance(value, type):
            if not is_library_class(value):
                self.add_all(function for _, function in self.own_functions(value))
        elif isinstance(value, list | tuple | set | frozenset):
            self.add_all(value)
        elif isinstance(value, dict):
            self.add_all(list(value.values()))
        elif not isinstance(value, ModuleType):
            for function in unwrap_members(value):
                self.add(function)
            if not is_library_class(type(value)) and type(value) not in self._classes:
                self._classes.append(type(value))
                self._instances.add(type(value))
            if not is_library_class(type(value)) or isinstance(value, SimpleNamespace | Namespace):
                self.add_all(list(getattr(value, "__dict__", {}).values()))

    def _add_function(self, function: FunctionType) -> None:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        cells.pop("__class__", None)
        bindings: dict[str, Any] = {}
        for name, cell in cells.items():
            try:
                bindings[name] = cell.cell_contents
            except ValueError:  # not filled yet
                continue
        for index, value in enumerate(function.__defaults__ or ()):
            bindings[f"default {index}"] = value
        bindings |= {f"default {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
        if is_own_code(function):
            self.functions.append(function)
        if not is_library_code(function):
            for code in find_codes(function.__code__):
                self._read_code(code, function, bindings)
        self.bindings[id(function)] = bindings
        self.add_all(bindings.values())
        self.add(vars(function).get("__wrapped__"))

    def _read_code(self, code: CodeType, function: FunctionType, bindings: dict[str, Any]) -> None:
        """The names in the code, and the globals that they stand for."""
        texts = set(_find_texts(code.co_consts))
        self.names.update(code.co_names, texts)
        self.stored.update(texts if "setattr" in code.co_names else ())
        lines: dict[int | None, set[str]] = defaultdict(set)
        filling: set[int | None] = set()
        line = None
        for step in dis.get_instructions(code):
            line = step.positions.lineno if step.positions else line
            if step.opname in ("STORE_ATTR", "STORE_GLOBAL"):
                self.stored.add(str(step.argval))
            elif step.opname == "STORE_SUBSCR" or step.argval in _FILLING:
                filling.add(line)
            elif step.opname in ("LOAD_ATTR", "LOAD_GLOBAL", "LOAD_DEREF"):
                lines[line].add(str(step.argval))
            elif step.opname == "IMPORT_NAME":
                self._bind_import(str(step.argval), function, code.co_names, bindings)
        self.filled.update(name for line in filling for name in lines[line])
        for name in code.co_names:
            if name in function.__globals__:
                self._bind(name, function.__globals__[name], code.co_names, bindings, 0)

    def _bind_import(self, name: str, function: FunctionType, names: Iterable[str], bindings: dict[str, Any]) -> None:
        """A module that the function imports when it runs; it is imported now, so that it counts from the beginning."""
        package = function.__globals__.get("__package__") or ""
        for candidate in (name, f"{package}.{name}"):
            with suppress(Exception):  # whatever the module raises, the forward pass will raise it, too
                self._bind(candidate, importlib.import_module(candidate), names, bindings, 0)
                return

    def _bind(self, name: str, value: Any, names: Iterable[str], bindings: dict[str, Any], depth: int) -> None:
        """Bind a global's name; of a module, what the code may take from it."""
        if not isinstance(value, ModuleType):
            bindings[name] = value
            return
        library = _is_library_file(getattr(value, "__file__", None) or "<frozen>")
        members = vars(value)
        for other in names:
            member = members.get(other)
            if member is None or other == name.rpartition(".")[2] or depth > 3:
                continue
            if isinstance(member, ModuleType) or not library or _is_replacement(member):
                self._bind(f"{name}.{other}", member, names, bindings, depth + 1)


def _is_replacement(member: Any) -> bool:
    """Whether a library's function was replaced by one of the user's."""
    return isinstance(member, FunctionType) and is_own_code(member)


def _find_texts(constants: Iterable[Any]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from _find_texts(constant)
