"""``py:module:function``: a function of the user that returns a network."""

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
from encoscope.encoder.input_channels import find_input_channels
from encoscope.encoder.reset import reset_weights
from encoscope.encoder.sources.base import LoadedModel, SourceRequest, fixed_seed
from encoscope.errors import EncoscopeError, UsageError, suggest_nearest
from encoscope.images import Preprocess


def build_model(request: SourceRequest) -> LoadedModel | Encoder:
    """Call a function of the user.

    Args:
        request: The network; its name is module:function.

    Returns:
        What the function returns: an Encoder unchanged, or a network with the default preprocessing.

    Raises:
        UsageError: For an unknown module or function, for a function that returns something else, and for a network
            whose weights cannot be reset if it is requested untrained.
        EncoscopeError: If the module or the function fails, or if a checkpoint does not fit.
    """
    function = find_function(request.name, "mymodels.nets:resnet")
    with fixed_seed(request.random_state):
        try:
            model = _call_function(function, request)
        except EncoscopeError as error:
            if request.untrained:
                raise UsageError(f"py:{request.name} has no untrained form: {error}") from error
            raise
        except Exception as error:
            raise EncoscopeError(f"py:{request.name} failed: {_shorten(error)}") from error
    if not isinstance(model, (nn.Module, Encoder)):
        raise UsageError(
            f"py:{request.name} returned {type(model).__name__}: it must return a torch.nn.Module or an Encoder"
        )
    if request.checkpoint is not None:
        network = model.module if isinstance(model, Encoder) else model
        loaded = load_checkpoint(request, lambda classes=None, channels=None: network)
        if isinstance(model, Encoder):
            model.module = loaded
        else:
            model = loaded
    if isinstance(model, Encoder):
        return model
    preprocess = Preprocess(channels=find_input_channels(model, Preprocess().size))
    return LoadedModel(model, preprocess, assumed=None if request.untrained else "the usual settings")


def find_function(name: str, example: str) -> Callable[..., Any]:
    """Import a function of the user.

    Args:
        name: module:function; modules in the current folder are found, too.
        example: Another name, for the message where this one is no such name.

    Returns:
        The function.

    Raises:
        UsageError: For an unknown module or function.
        EncoscopeError: If importing the module fails.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"py:{name}: write py:module:function, such as py:{example}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # the installed command does not search the current folder
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise EncoscopeError(f"py:{name}: {module_name} needs {error.name}, which is not installed") from error
        raise UsageError(
            f"py:{name}: there is no module {module_name!r} in {Path.cwd()}, and none is installed"
        ) from error
    except Exception as error:
        raise EncoscopeError(f"py:{name}: importing {module_name} failed: {_shorten(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(
            f"py:{name}: {module_name} has no function {function_name!r}{suggest_nearest(function_name, vars(module))}"
        )
    return function


def _call_function(function: Callable[..., Any], request: SourceRequest) -> Any:
    """Call the function, with ``pretrained`` if it has that argument; else the weights are reset if so requested."""
    if "pretrained" in inspect.signature(function).parameters:
        return function(pretrained=request.pretrained)
    model = function()
    if request.untrained:
        if isinstance(model, Encoder) and model._make_untrained is not None:
            return model._make_untrained()
        reset_weights(model.module if isinstance(model, Encoder) else model, request.random_state)
    return model


def _shorten(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
