"""``py:module:function``: a function of the user's own that returns a network."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from encoscope.encoder.checkpoints import load_checkpoint
from encoscope.encoder.encoder import Encoder
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed
from encoscope.errors import EncoscopeError, UsageError, suggest_nearest


def build(request: SourceRequest) -> LoadedModel | Encoder:
    """What the function returns: an Encoder as it is, or a network with the usual preprocessing."""
    module_name, _, function_name = request.name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"py:{request.name}: write py:module:function, as py:mymodels.nets:resnet")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the installed command does not look in the current folder by itself
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise EncoscopeError(
                f"py:{request.name}: {module_name} needs {error.name}, which is not installed"
            ) from error
        raise UsageError(
            f"py:{request.name}: there is no module {module_name!r} here ({Path.cwd()}) or installed"
        ) from error
    except Exception as error:
        raise EncoscopeError(f"py:{request.name}: importing {module_name} failed: {_line(error)}") from error
    function = getattr(found, function_name, None)
    if not callable(function):
        raise UsageError(
            f"py:{request.name}: {module_name} has no function {function_name!r}"
            f"{suggest_nearest(function_name, vars(found))}"
        )
    with fixed_seed(request.random_state):
        try:
            made = _make(function, request)
        except EncoscopeError:
            raise
        except Exception as error:
            raise EncoscopeError(f"py:{request.name} failed: {_line(error)}") from error
    if not isinstance(made, (nn.Module, Encoder)):
        raise UsageError(
            f"py:{request.name} returned {type(made).__name__}: it must return a torch.nn.Module or an Encoder"
        )
    if request.checkpoint is not None:
        module = made.module if isinstance(made, Encoder) else made
        loaded = load_checkpoint(request.checkpoint, lambda classes=None, channels=None: module)
        if isinstance(made, Encoder):
            made.module = loaded
        else:
            made = loaded
    return made if isinstance(made, Encoder) else LoadedModel(made)


def _make(function: Callable[..., Any], request: SourceRequest) -> Any:
    """Calls the function, with ``pretrained`` if it has that argument; else untrained weights are made here."""
    if "pretrained" in inspect.signature(function).parameters:
        return function(pretrained=request.pretrained)
    made = function()
    if request.untrained:
        _reset(made.module if isinstance(made, Encoder) else made, request.name)
    return made


def _reset(module: nn.Module, name: str) -> None:
    """Random weights again in every layer of the network, by the layers' own initialisation."""
    for key, child in module.named_modules():
        reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
        if callable(reset):
            reset()
        elif any(True for _ in child.parameters(recurse=False)):
            raise UsageError(
                f"py:{name} cannot be had untrained: {key or 'the network'} ({type(child).__name__}) has weights but "
                "no reset_parameters; give the function an argument 'pretrained'"
            )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
