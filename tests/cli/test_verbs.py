"""Every verb of the command line has a public function, with the same options and the same defaults."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import encoscope
from encoscope.cli.app import app
from encoscope.cli.flags import DEFAULT_MODEL, Common, MethodFlags
from encoscope.cli.segment import segment as segment_command
from encoscope.defaults import BATCH_SIZE
from encoscope.errors import UsageError

GROUPS = {"atlas": "encoscope.atlas", "evaluate": "encoscope.evaluation", "study": "encoscope.user_study"}
"""The module of the functions of a verb that has verbs of its own."""

FUNCTIONS = {
    "segment": ("segment", "Nave", "Nave.fit", "images.read_images"),
    "captions": ("build_captions",),
    "classes": ("match_classes",),
    "reproduce": ("reproduce.run_experiment",),
    "atlas build": ("atlas.build_atlas",),
    "atlas serve": ("atlas.serve_atlas",),
    "atlas compare": ("atlas.compare_atlases",),
    "study build": ("user_study.build_study",),
    "study score": ("user_study.score_study",),
    "zoo list": ("zoo.list_networks",),
}
"""The functions of verbs that are not called as the verb is."""

TERMINAL = {
    "": {"json", "out", "progress"},  # progress: "auto" and None are the same
    "layers": {"seed"},  # it reads no weights' values
    "colors": {"control"},  # the colors of encoscope.encoder.untrained_copy
    "segment": {
        "joint",  # another class: Nave
        "runs",  # another function, when it is given: encoscope.stability
        "control",  # another function, when it is given: encoscope.controls
    },
    "visualize": {"sprite_map"},  # another function: encoscope.vital.make_sprite_map
}
"""What is of the terminal alone, for all verbs and for one."""

REQUIRED = ("encoder",)
"""What functions need though the command has a default: a parameter cannot have one before others that have none."""

PYTHON = {
    "": {"cache_dir", "cache", "preview", "batch_size", "load"},
    "concepts": {"out"},
    "segment": {"X", "y", "inputs", "channels"},  # IMAGES, and what the network takes
    "similar": {"image"},  # the first of IMAGES
    "visualize": {"magnitude"},
    "atlas serve": {"announce"},
    "explain-failure": {"falcon"},
}
"""What is of Python alone: what needs an object, or changes where and how fast but not what."""


def walk(parent: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """All commands that do something, with the verbs that lead to them."""
    for name in parent:
        if name.startswith("-"):
            continue
        command = parent[name]
        if any(not sub.startswith("-") for sub in command):
            yield from walk(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


VERBS = dict(walk(app))


def find(path: str) -> Any:
    """A public name by its path below the package."""
    value: Any = encoscope
    for part in path.split("."):
        if inspect.ismodule(value) and not hasattr(value, part):
            importlib.import_module(f"{value.__name__}.{part}")
        value = getattr(value, part)
    return value


def functions_of(verb: str) -> tuple[Callable[..., Any], ...]:
    """The functions that do what a verb does."""
    if verb in FUNCTIONS:
        return tuple(find(name) for name in FUNCTIONS[verb])
    group, _, name = verb.rpartition(" ")
    home = importlib.import_module(GROUPS[group]) if group else encoscope
    return (getattr(home, name.replace("-", "_")),)


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name != "self"
    }


def flags_of(command: App) -> dict[str, Any]:
    """The flags of a command with their defaults, by what they are called in the code."""
    flags = {}
    for argument in command.assemble_argument_collection(parse_docstring=False):
        if argument.parse and not argument.children:
            default = argument.field_info.default
            name = argument.keys[-1] if argument.keys else argument.field_info.name
            flags[name.rstrip("_")] = default
    return flags


def find_literals(function: Callable[..., Any]) -> set[str]:
    """The parameters whose defaults are written out in a function or a command: no name of a constant, nor unset."""
    return {
        name.rstrip("_")
        for name, default in find_defaults(function)
        if any(
            isinstance(node, ast.Constant) and node.value is not None and node.value is not False
            for node in ast.walk(default)
        )
    }


def find_defaults(function: Callable[..., Any]) -> Iterator[tuple[str, ast.expr]]:
    """The defaults of parameters as they are written, also of those that a dataclass of flags brings."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    if isinstance(tree, ast.ClassDef):
        (tree,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    assert isinstance(tree, ast.FunctionDef)
    positional = [*tree.args.posonlyargs, *tree.args.args]
    first = len(positional) - len(tree.args.defaults)
    yield from zip((argument.arg for argument in positional[first:]), tree.args.defaults, strict=True)
    for argument, default in zip(tree.args.kwonlyargs, tree.args.kw_defaults, strict=True):
        if default is not None:
            yield argument.arg, default
    for kind in find_flags(function):
        (body,) = ast.parse(inspect.getsource(kind)).body
        assert isinstance(body, ast.ClassDef)
        for line in body.body:
            if isinstance(line, ast.AnnAssign) and line.value is not None:
                yield ast.unparse(line.target), line.value


def find_flags(function: Callable[..., Any]) -> Iterator[type]:
    """The dataclasses of flags that a command takes, but for those that are made from a method's settings."""
    for parameter in inspect.signature(function).parameters.values():
        if "None" in str(parameter.annotation) and function.__module__.startswith("encoscope.cli"):
            hint = eval(str(parameter.annotation), vars(inspect.getmodule(function)))
            for kind in typing.get_args(hint):
                if dataclasses.is_dataclass(kind) and not issubclass(typing.cast(type, kind), MethodFlags):
                    yield typing.cast(type, kind)


def match(flag: str, parameters: dict[str, Any]) -> str | None:
    """The parameter that a flag stands for: of the same name, or n_NAME, NAMEs, NAME_size."""
    names = {"seed": ["random_state"], "model": ["encoder", "models", "model"], "set": ["options"]}
    names |= {"dataset": ["dataset", "datasets", "images"], "out": ["path", "out"]}
    names |= {"grid": ["token_layout"], "prefix": ["token_layout"]}
    choices = [*names.get(flag, []), flag, f"n_{flag}", f"{flag}s", f"{flag}_size"]
    return next((name for name in choices if name in parameters), None)


def as_text(value: Any) -> Any:
    """A default as the command line writes it: lists with commas, and nothing for no entries."""
    if value is inspect.Parameter.empty or value is None or value == ():
        return None
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int | float | Path) and not isinstance(value, bool) else value


def test_no_verb_needs_a_model() -> None:
    named = {"compare", "reproduce", "atlas serve"}  # two of them; what the experiment needs; what the atlas is of
    verbs = [verb for verb in VERBS if "model" in flags_of(VERBS[verb]) and verb not in named]
    assert {"segment", "layers", "audit", "classes", "evaluate corloc", "atlas build", "study build"} <= set(verbs)
    for verb in verbs:
        assert flags_of(VERBS[verb])["model"] is DEFAULT_MODEL, verb


@pytest.mark.parametrize("function", [encoscope.load, encoscope.layers, encoscope.Nave, encoscope.Falcon])
def test_functions_of_a_model_alone_have_the_same_default(function: Callable[..., Any]) -> None:
    assert next(iter(parameters_of(function).values())) is DEFAULT_MODEL


def test_all_verbs_are_seen() -> None:
    assert {"segment", "layers", "circuit", "explain-failure", "evaluate corloc", "atlas build", "zoo list"} <= set(
        VERBS
    )
    assert set(FUNCTIONS) <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_its_public_function(verb: str) -> None:
    for function in functions_of(verb):
        assert callable(function)
        assert inspect.getdoc(function)
    first = functions_of(verb)[0]
    group = verb.rpartition(" ")[0]
    name = FUNCTIONS[verb][0] if verb in FUNCTIONS else verb.rpartition(" ")[2].replace("-", "_")
    home = importlib.import_module(f"encoscope.{name.rpartition('.')[0]}") if "." in name else encoscope
    home = importlib.import_module(GROUPS[group]) if group in GROUPS else home
    assert name.rpartition(".")[2] in home.__all__, f"{first.__name__} is not public"


@pytest.mark.parametrize("verb", VERBS)
def test_a_flag_is_a_parameter_of_the_same_default(verb: str) -> None:
    loading = {name: default for name, default in parameters_of(encoscope.load).items() if name != "source"}
    parameters: dict[str, Any] = {}
    for function in functions_of(verb):
        parameters = {**parameters_of(function), **parameters}
    own = TERMINAL[""] | TERMINAL.get(verb, set())
    default_model = parameters_of(encoscope.load)["source"]
    takes_model = {field.name for field in dataclasses.fields(Common)} <= set(flags_of(VERBS[verb]))
    for flag, default in flags_of(VERBS[verb]).items():
        everywhere = parameters | (loading if takes_model else {})
        name = match(flag, everywhere)
        if name is None:
            assert flag in own, f"{verb} --{flag} has no parameter in Python"
        elif flag == "model" and name in REQUIRED and everywhere[name] is inspect.Parameter.empty:
            assert default == default_model, f"{verb} --model"  # in Python the network stands before the images
        elif flag not in own:
            assert as_text(default) == as_text(everywhere[name]), f"{verb} --{flag} and {name}"


@pytest.mark.parametrize("verb", VERBS)
def test_a_default_stands_once(verb: str) -> None:
    """Of a flag that is also a function's parameter: neither writes its default out, both name where it stands."""
    command = VERBS[verb].default_command
    assert command is not None
    functions = [*functions_of(verb), encoscope.load]
    for flag, default in flags_of(VERBS[verb]).items():
        if default is None or default is False or flag in TERMINAL[""]:
            continue
        for function in functions:
            name = match(flag, parameters_of(function))
            written = [command.__name__] * (flag in find_literals(command))
            written += [function.__name__] * (name in find_literals(function))
            assert name is None or not written, f"the default of {verb} --{flag} is written in {', '.join(written)}"


SHARED = {"random_state", "seed", "batch_size", "precision", "max_pixels"}
"""Parameters and fields whose default stands in ``encoscope.defaults``, for functions that are not public, too."""


def list_written_out(code: str) -> list[str]:
    """The shared defaults that a module writes out: of parameters, and of fields of classes."""
    pairs: list[tuple[str, ast.expr | None]] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            positional = [*node.args.posonlyargs, *node.args.args][::-1]
            pairs += zip([item.arg for item in positional], node.args.defaults[::-1], strict=False)
            pairs += zip([item.arg for item in node.args.kwonlyargs], node.args.kw_defaults, strict=True)
        elif isinstance(node, ast.ClassDef):
            fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            pairs += [(ast.unparse(line.target), line.value) for line in fields]
    return [
        name
        for name, value in pairs
        if name in SHARED and isinstance(value, ast.Constant) and value.value not in (None, ...)
    ]


def test_a_shared_default_stands_once_in_the_whole_library() -> None:
    code = (
        "def f(x, seed=1, *, batch_size: int = 2, precision=None): ...\nclass C:\n  random_state: int = 0\n  a: int = 3"
    )
    assert list_written_out(code) == ["seed", "batch_size", "random_state"]
    source = Path(encoscope.__file__).parent
    written = {str(file.relative_to(source)): list_written_out(file.read_text()) for file in source.rglob("*.py")}
    assert {file: names for file, names in written.items() if names} == {}


def test_a_default_that_is_written_out_is_found() -> None:
    def command(
        model: str = "zoo:vit",
        *,
        width: int = 3,
        shift: int = -1,
        start: int = 0,
        layers: str = ",".join(("a", "b")),
        out: Path = Path("results"),
        size: str = str(BATCH_SIZE),
        batch: int = BATCH_SIZE,
        fresh: bool = False,
        limit: int | None = None,
    ) -> None: ...

    assert find_literals(command) == {"model", "width", "shift", "start", "layers", "out"}
    assert "progress" in find_literals(segment_command) and "seed" not in find_literals(segment_command)


@pytest.mark.parametrize("verb", VERBS)
def test_a_parameter_has_a_flag(verb: str) -> None:
    flags = flags_of(VERBS[verb])
    matched = {match(flag, parameters_of(function)) for function in functions_of(verb) for flag in flags}
    own = PYTHON[""] | PYTHON.get(verb, set())
    for function in functions_of(verb):
        missing = set(parameters_of(function)) - matched - own
        assert not missing, f"{verb} has no flags for {', '.join(sorted(missing))}"


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_that_does_not_fit_is_explained(verb: str) -> None:
    function = functions_of(verb)[0]
    parameters = inspect.signature(function).parameters
    required = [
        name
        for name, item in parameters.items()
        if item.default is item.empty and item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    ]
    open_ended = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    if required:
        with pytest.raises(UsageError, match=f"needs .*{required[0]}.*; {required[0]}: "):
            function()
    for name in [*required[1:], *required[:1]]:  # each on its own
        with pytest.raises(UsageError, match=f"needs {name}"):
            function(**{other: object() for other in required if other != name})
    if parameters and not open_ended:
        last = list(parameters)[-1]
        with pytest.raises(UsageError, match=rf"has no argument '{last}x' \(nearest: .*\b{last}\b"):
            function(**{f"{last}x": 1})
        with pytest.raises(UsageError, match=f"without names, and got {len(parameters) + 1} values"):
            function(*range(len(parameters) + 1))
