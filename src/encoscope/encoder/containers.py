"""Tensors in what a module returns, whatever holds them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

ModuleOutput = Any  # whatever a module's forward returns


def list_items(output: ModuleOutput) -> list[Any]:
    """List what a container holds.

    Args:
        output: What a module returned.

    Returns:
        The values of a mapping, the items of a tuple or list, the fields of a dataclass; nothing of anything else.
    """
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, (tuple, list)):
        return list(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return []


def list_tensors(output: ModuleOutput) -> list[Tensor]:
    """List the tensors in a module's output.

    Args:
        output: What the module returned: a tensor, or tuples, lists, mappings and dataclasses of tensors.

    Returns:
        The tensors in order, those of containers within containers too.
    """
    if isinstance(output, Tensor):
        return [output]
    return [tensor for item in list_items(output) for tensor in list_tensors(item)]


def find_first_tensor(output: ModuleOutput) -> Tensor | None:
    """Find the tensor that carries a module's output.

    Args:
        output: What the module returned: a tensor, or tuples, lists, mappings and dataclasses of tensors.

    Returns:
        The output itself if it is a tensor, else its ``last_hidden_state``, else the first tensor of real numbers in
        it, else its first tensor; None if it holds no tensor.
    """
    preferred = output.get("last_hidden_state") if isinstance(output, Mapping) else None
    if isinstance(preferred, Tensor):
        return preferred
    tensors = list_tensors(output)
    return next((tensor for tensor in tensors if tensor.is_floating_point()), tensors[0] if tensors else None)


def replace_tensor(output: ModuleOutput, old: Tensor, new: Tensor) -> ModuleOutput:
    """Put another tensor in the place of one.

    Args:
        output: What the module returned.
        old: The tensor in it.
        new: The other tensor.

    Returns:
        The same output with the other tensor.
    """
    if output is old:
        return new
    if isinstance(output, Mapping):
        other: Any = copy.copy(output)  # its own class: a model output of transformers, not a plain dict
        for name, value in output.items():
            if _holds(value, old):
                other[name] = replace_tensor(value, old, new)
        return other
    if isinstance(output, (tuple, list)):
        items = [replace_tensor(item, old, new) if _holds(item, old) else item for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        other = copy.copy(output)
        for field in dataclasses.fields(output):
            value = getattr(output, field.name)
            if _holds(value, old):
                object.__setattr__(other, field.name, replace_tensor(value, old, new))  # frozen ones, too
        return other
    return output


def _holds(output: ModuleOutput, tensor: Tensor) -> bool:
    return any(each is tensor for each in list_tensors(output))
