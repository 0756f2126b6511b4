"""Take the wrappers of compilation and parallel training off a network, and refuse networks that cannot be observed."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from encoscope.errors import UsageError


def unwrap_module(module: nn.Module) -> nn.Module:
    """Take off ``torch.compile``, DataParallel and DistributedDataParallel, from a network and from its parts.

    The network itself is not changed: where a part is wrapped, what contains it is copied, and shares all weights.

    Args:
        module: The network.

    Returns:
        The network as it computes without them; the same object if nothing was wrapped.
    """
    return _unwrap(module, {})


def _unwrap(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    inner = getattr(module, "_orig_mod", None)  # of torch.compile(module)
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = module.module
    if isinstance(inner, nn.Module):
        result = _unwrap(inner, known)
    else:
        children = {name: child for name, child in module._modules.items() if child is not None}
        plain = {name: _unwrap(child, known) for name, child in children.items()}
        result = module
        if getattr(module, "_compiled_call_impl", None) is not None or any(
            plain[name] is not child for name, child in children.items()
        ):
            result = copy.copy(module)
            result._modules = {**module._modules, **plain}
            result._compiled_call_impl = None  # of module.compile()
    known[id(module)] = result
    return result


def check_module(module: nn.Module, source: str) -> None:
    """Refuse a network whose layers cannot be observed, or whose weights are no plain numbers.

    Args:
        module: The network, without wrappers.
        source: Its name in messages.

    Raises:
        UsageError: For TorchScript and quantized modules, and for weights without values, naming the module.
    """
    for name, child in module.named_modules():
        problem = _find_problem(child)
        if problem is not None:
            label = f"{name} ({type(child).__name__})" if name else type(child).__name__
            raise UsageError(f"{source}: {label} {problem}")


def _find_problem(child: nn.Module) -> str | None:
    if isinstance(child, torch.jit.ScriptModule):
        return (
            "is a TorchScript module, whose layers cannot be observed: "
            "use the Python module that it was made from, with its state_dict()"
        )
    quantized = "is quantized: use the network in floating point that it was made from"
    if "quantized" in type(child).__module__.split("."):
        return quantized
    for name, value in _own_tensors(child):
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            return f"has a {name} without a shape yet (a lazy module): run the network once before"
        if value.is_meta:
            return f"has a {name} without values (on the meta device): load its weights before"
        if value.is_quantized or (isinstance(value, nn.Parameter) and not _is_real(value)):
            return quantized
        if value.layout != torch.strided:
            return f"has a sparse {name}, which cannot be read: convert it with to_dense()"
        if type(value.detach()) is not torch.Tensor:
            kind = type(value.detach()).__name__
            return f"keeps its {name} as {kind}, not as a plain tensor: use the network from before it was sharded"
    return None


def _own_tensors(child: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from child.named_parameters(recurse=False)
    yield from child.named_buffers(recurse=False)


def _is_real(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()
