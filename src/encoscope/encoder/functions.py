"""Norms and activations that a network applies as functions: find those after a module, and their results.

A network that writes ``F.relu(self.norm(x))`` uses what ``relu`` gives, which no module returns. In the trial run all
functions are recorded that are applied to a module's output. The output is read at the first value after its norms and
activations through which all its uses pass: ``x * torch.sigmoid(x)`` at the product, and an output that is also used as
it is, as in a residual sum, as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from encoscope.encoder.containers import list_tensors

_NORMS = {"batchnorm", "groupnorm", "instancenorm"}
_ACTIVATIONS = {name.lower() for name in nn.modules.activation.__all__ if "max" not in name.lower()}
_BY_HAND = {"clamp", "clampmin", "clip", "maximum", "threshold", "where", "setitem", "maskedfill"}
_IDLE = 1e-4  # of the largest value: what changes less is no activation, as of values that have no negative ones

Function: TypeAlias = Callable[..., Any]


@dataclass(eq=False)
class _Output:
    """A module's output, and the functions by which the network goes on with it and nothing else.

    The output is value 0, and the result of function i is value i + 1. In place, a function gives the same tensor.
    """

    shape: tuple[int, ...]
    names: list[str] = field(default_factory=list)
    used: list[set[int]] = field(default_factory=list)  # for each function the values that it is applied to
    ends: list[bool] = field(default_factory=list)  # for each function whether a value of the output's shape results
    last: int | None = None  # the last norm or activation
    outside: set[int] = field(default_factory=set)  # the values that anything else uses
    readers: list[tuple[int, str]] = field(default_factory=list)  # values that modules read, and these modules

    def find_reading(self) -> int | None:
        """The first value after the last norm or activation through which all uses pass."""
        for end in range(len(self.names) if self.last is None else self.last, len(self.names)):
            before = set(range(end + 1))
            if self.ends[end] and not before & self.outside and not any(before & used for used in self.used[end + 1 :]):
                return end + 1
        return None


class FunctionRecorder(TorchFunctionMode):
    """Records in a ``with`` block which functions are applied to the outputs of modules, which tell of themselves.

    Args:
        pixels: What the network gets.
    """

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self._outputs: dict[str, _Output] = {}
        self._values: Any = WeakIdKeyDictionary()  # of tensors: {output: number of the value}
        self._computed: Any = WeakIdKeyDictionary()  # tensors that depend on the image
        self._computed[pixels] = True
        self._running: list[tuple[str, list[tuple[Tensor, int]]]] = []

    def enter(self, name: str, inputs: Sequence[Tensor]) -> None:
        """Tell that a module is called.

        Args:
            name: Its name.
            inputs: What it reads.
        """
        for tensor in inputs:
            for output, number in self._number(tensor).items():
                output.readers.append((number, name))
        self._running.append((name, [(tensor, _get_version(tensor)) for tensor in inputs]))

    def leave(self, name: str, tensor: Tensor | None, outputs: Sequence[Tensor]) -> None:
        """Tell that a module returns.

        Args:
            name: Its name.
            tensor: The tensor that carries its output; None for a module that has none.
            outputs: All tensors in its output.
        """
        inputs: list[tuple[Tensor, int]] = []
        while self._running:  # those whose forward was left without an output, too
            running, inputs = self._running.pop()
            if running == name:
                break
        for each, version in inputs:
            if not any(each is other and version == _get_version(other) for other in outputs):  # else it only passes on
                self._use(each)
        self.finish(outputs, name)
        for each in outputs:
            self._computed[each] = True
        self._outputs.pop(name, None)
        if tensor is not None and tensor.ndim >= 3:
            self._outputs[name] = _Output(tuple(tensor.shape))
            self._values[tensor] = {**self._number(tensor), self._outputs[name]: 0}

    def finish(self, outputs: Sequence[Tensor], name: str = "") -> None:
        """Tell what a module returns: of the outputs of modules in it, a value after functions is used as it is.

        Args:
            outputs: All tensors in its output.
            name: Its name; "" is the network.
        """
        inside = {output for producer, output in self._outputs.items() if not name or producer.startswith(f"{name}.")}
        for each in outputs:
            for output, number in self._number(each).items():
                if output in inside and output.names:
                    output.outside.add(number)

    def find_functions(self) -> dict[str, tuple[str, ...]]:
        """Find the functions after which modules' outputs are read.

        Returns:
            For modules with such functions all functions up to that value, in the order in which they are called.
        """
        ends = {name: output.find_reading() for name, output in self._outputs.items()}
        return {name: tuple(self._outputs[name].names[:end]) for name, end in ends.items() if end is not None}

    def list_readers(self, name: str) -> list[str]:
        """List the modules that read a module's output after such functions.

        Args:
            name: The module's name.

        Returns:
            The names of these modules.
        """
        end = self._outputs[name].find_reading() if name in self._outputs else None
        return [] if end is None else [reader for number, reader in self._outputs[name].readers if number == end]

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and record it."""
        kwargs = kwargs or {}
        inputs = list_tensors([*args, *kwargs.values()])
        versions = [_get_version(tensor) for tensor in inputs]
        result = func(*args, **kwargs)
        name = get_function_name(func)
        value = args[0] if name == "setitem" else result
        results = list_tensors(value)
        computed = any(tensor in self._computed for tensor in inputs)
        if not results or not computed or _is_passed_on(value, inputs, versions):
            return result
        before = [dict(self._number(tensor)) for tensor in inputs]
        for each in results:
            self._computed[each] = True
            self._values.pop(each, None)  # what was computed in place is another value
        producers = {output: producer for producer, output in self._outputs.items()}
        for output in {output for each in before for output in each}:
            numbers = {each[output] for each in before if output in each}
            alone = all(
                output in each or tensor not in self._computed for tensor, each in zip(inputs, before, strict=True)
            )
            own = all(producers.get(output, "").startswith(f"{running}.") for running, _ in self._running)
            if not (alone and own and isinstance(value, Tensor)):
                output.outside |= numbers
                continue
            changes = len(numbers) > 1 or not _is_idle(inputs, value)
            output.names.append(name)
            output.used.append(numbers)
            output.ends.append(tuple(value.shape) == output.shape)
            if changes and (len(numbers) > 1 or is_norm_or_activation(name)):
                output.last = len(output.names) - 1
            self._values[value] = {**self._number(value), output: len(output.names)}
        return result

    def _number(self, tensor: Tensor) -> dict[_Output, int]:
        """For each output that a tensor is a value of: which one."""
        return self._values.get(tensor, {})

    def _use(self, tensor: Tensor) -> None:
        for output, number in self._number(tensor).items():
            output.outside.add(number)


class FunctionFollower(TorchFunctionMode):
    """Follows tensors through functions in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self._followed: list[_Followed] = []

    def follow(self, tensor: Tensor, names: Sequence[str], reach: Callable[[Tensor], Tensor | None]) -> None:
        """Follow a tensor.

        Args:
            tensor: The tensor.
            names: The functions, as ``FunctionRecorder`` finds them.
            reach: Called with the last function's result; what it returns takes its place, None leaves it.
        """
        self._followed.append(_Followed([tensor], list(names), reach))

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and compare it with those that are waited for."""
        kwargs = kwargs or {}
        name = get_function_name(func)
        waiting = [each for each in self._followed if each.names[0] == name]
        if not waiting:
            return func(*args, **kwargs)
        inputs = list_tensors([*args, *kwargs.values()])
        versions = [_get_version(tensor) for tensor in inputs]
        result = func(*args, **kwargs)
        value = args[0] if name == "setitem" else result
        if not isinstance(value, Tensor) or _is_passed_on(value, inputs, versions):
            return result
        for each in waiting:
            if not any(tensor is other for tensor in inputs for other in each.values):
                continue
            each.names.pop(0)
            each.values.append(value)
            if each.names:
                continue
            self._followed.remove(each)
            other = each.reach(value)
            if other is not None and any(value is tensor for tensor in inputs):
                value.copy_(other)  # the network goes on with the tensor that was changed in place
            elif other is not None:
                return other
        return result


@dataclass(eq=False)
class _Followed:
    values: list[Tensor]
    names: list[str]
    reach: Callable[[Tensor], Tensor | None]


@contextmanager
def following_functions(module: nn.Module) -> Iterator[FunctionFollower]:
    """Follow tensors through functions in the block.

    Attention of torch's own computes by another kernel, with other last bits, while functions are followed: it is
    called without.

    Args:
        module: The network.

    Yields:
        What follows them.
    """
    follower, handles = FunctionFollower(), []
    paused = False

    def pause(_module: nn.Module, _args: Any) -> None:
        nonlocal paused
        paused = True
        follower.__exit__(None, None, None)

    def resume(_module: nn.Module, _args: Any, _output: Any) -> None:
        nonlocal paused
        paused = False
        follower.__enter__()

    follower.__enter__()
    try:
        for child in module.modules():
            if isinstance(child, nn.MultiheadAttention):
                handles.append(child.register_forward_pre_hook(pause))
                handles.append(child.register_forward_hook(resume))
        yield follower
    finally:
        for handle in handles:
            handle.remove()
        if not paused:  # a pass may end inside of an attention
            follower.__exit__(None, None, None)


def get_function_name(func: Function) -> str:
    """Give a function's name as all its forms share it: in place, as an operator, as a method.

    Args:
        func: The function.

    Returns:
        The name without underscores around it.
    """
    return getattr(func, "__name__", "").strip("_")


def is_norm_or_activation(name: str) -> bool:
    """Tell whether a function of torch is a norm or an activation by its name.

    A layer norm is none, for it belongs to what follows a residual sum.

    Args:
        name: The function's name.

    Returns:
        Whether it is.
    """
    return name.replace("_", "") in _NORMS | _ACTIVATIONS | _BY_HAND


def _is_passed_on(value: Any, inputs: Sequence[Tensor], versions: Sequence[int]) -> bool:
    """Whether a function gave an input as it is, such as dropout in evaluation mode."""
    return any(value is tensor and _get_version(tensor) == old for tensor, old in zip(inputs, versions, strict=True))


def _is_idle(inputs: Sequence[Tensor], value: Tensor) -> bool:
    """Whether a function's result is its first input, as that of relu for values that are not negative."""
    first = inputs[0]
    if first is value or first.shape != value.shape or not (first.is_floating_point() and value.is_floating_point()):
        return False
    with torch._C.DisableTorchFunction():
        return bool((value - first).abs().max() <= _IDLE * first.abs().max())


def _get_version(tensor: Tensor) -> int:
    """Torch's counter of changes in place; tensors of inference mode have none."""
    return -1 if tensor.is_inference() else tensor._version
