"""A forward pass written down: which operation made what from what, with LRP's rule for each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from encoscope.errors import UsageError
from encoscope.relevance.rules import PositiveWeights, RelevanceRule, TorchCall, find_rule


@dataclass(frozen=True)
class TapeStep:
    """One operation: the numbers of the values it took and made. ``back`` is None where LRP has no rule for it."""

    name: str
    inputs: tuple[int, ...]
    output: int
    back: RelevanceRule | None


class Tape(TorchFunctionMode):
    """Records the torch functions called inside ``with``, modules' and functional ones alike.

    Tensors are numbered by value: an operation in place gives its tensor a new number, so that a residual sum's
    branches stay apart from the sum whatever memory they share. The results are the functions' own, graph and all.
    """

    def __init__(self, positive: PositiveWeights) -> None:
        super().__init__()
        self.steps: list[TapeStep] = []
        self._positive = positive
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._count = 0

    def number(self, tensor: Tensor) -> int:
        """The number of the value that a tensor holds at this moment."""
        found = self._numbers.get(id(tensor))
        # The address of a tensor that is gone may be another's by now.
        return found[1] if found is not None and found[0]() is tensor else self._new(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function; write it down if it makes tensors from tensors."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "an unnamed operation")
        if name == "__get__":  # .shape, .dtype, ...: asked all the time
            return func(*args, **kwargs)
        known = find_rule(TorchCall(name, func, args, kwargs), self._positive)
        sources, back = known if known is not None else (tuple(_tensors((args, kwargs))), None)
        inputs = tuple(self.number(tensor) for tensor in sources)
        output = func(*args, **kwargs)
        made = args[0] if name == "__setitem__" else output
        for tensor in _tensors(made):
            self.steps.append(TapeStep(name, inputs, self._new(tensor), back))
        return output

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[id(tensor)] = (weakref.ref(tensor), self._count)
        return self._count

    def backward(self, starts: Mapping[int, Tensor], wanted: Mapping[str, int]) -> dict[str, Tensor]:
        """Take relevance back from some values to others.

        starts: {value: its relevance to begin with}. wanted: {name: value}. Returns {name: relevance}, without those
        that no relevance gets to. Raises UsageError where an operation on the way has no rule.
        """
        ends = set(wanted.values())
        useful = set(ends)  # what is computed from a wanted value: relevance anywhere else is not needed
        for step in self.steps:
            if any(value in useful for value in step.inputs):
                useful.add(step.output)
        pending = {value: start for value, start in starts.items() if value in useful}
        for step in reversed(self.steps):
            onwards = [value in useful for value in step.inputs]
            if step.output not in pending or not any(onwards):
                continue
            relevance = pending[step.output] if step.output in ends else pending.pop(step.output)
            if step.back is None:
                raise UsageError(
                    f"LRP has no rule for {step.name!r}, which the network uses before the unit: "
                    "it reaches ResNets and plain convolutional networks; use method='gradient-input'"
                )
            for value, use, part in zip(step.inputs, onwards, step.back(relevance), strict=True):
                if use:
                    pending[value] = pending[value] + part if value in pending else part
        return {name: pending[value] for name, value in wanted.items() if value in pending}


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping):
        for item in found.values():
            yield from _tensors(item)
    elif isinstance(found, (tuple, list)):
        for item in found:
            yield from _tensors(item)
