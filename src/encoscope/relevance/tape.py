"""A record of a forward pass: the inputs, the output and LRP's rule of each operation."""

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
    """One operation.

    Attributes:
        name: Its name.
        inputs: The numbers of its input values.
        output: The number of its output value.
        rule: LRP's rule; None if LRP has no rule for it.
    """

    name: str
    inputs: tuple[int, ...]
    output: int
    rule: RelevanceRule | None


class Tape(TorchFunctionMode):
    """Records the torch functions that are called in a ``with`` block, by modules or directly.

    Tensors are numbered by value: an operation in place gives its tensor a new number, so that the branches of a
    residual sum differ from the sum even if they share memory. The results of the functions do not change.

    Args:
        positive: The positive weights of the network.
    """

    def __init__(self, positive: PositiveWeights) -> None:
        super().__init__()
        self.steps: list[TapeStep] = []
        self._positive = positive
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._count = 0

    def get_number(self, tensor: Tensor) -> int:
        """Get the number of the value that a tensor has now.

        Args:
            tensor: The tensor.

        Returns:
            Its number, a new one if the value is not known.
        """
        known = self._numbers.get(id(tensor))
        # A deleted tensor's id may belong to another tensor now.
        return known[1] if known is not None and known[0]() is tensor else self._assign_number(tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and record it if it computes tensors from tensors."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "an unnamed operation")
        if name == "__get__":  # .shape, .dtype, ..., which are read very often
            return func(*args, **kwargs)
        known = find_rule(TorchCall(name, func, args, kwargs), self._positive)
        sources, rule = known if known is not None else (tuple(_find_tensors((args, kwargs))), None)
        inputs = tuple(self.get_number(tensor) for tensor in sources)
        output = func(*args, **kwargs)
        results = args[0] if name == "__setitem__" else output
        for tensor in _find_tensors(results):
            self.steps.append(TapeStep(name, inputs, self._assign_number(tensor), rule))
        return output

    def _assign_number(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[id(tensor)] = (weakref.ref(tensor), self._count)
        return self._count

    def propagate(self, starts: Mapping[int, Tensor], requested: Mapping[str, int]) -> dict[str, Tensor]:
        """Propagate relevance backwards from values to earlier values.

        Args:
            starts: The initial relevance by the number of its value.
            requested: The numbers of the values whose relevance is requested, by name.

        Returns:
            ``{name: relevance}``, without the values that no relevance reaches.

        Raises:
            UsageError: If an operation between them has no rule.
        """
        ends = set(requested.values())
        useful = set(ends)  # values computed from a requested one: only their relevance is needed
        for step in self.steps:
            if any(value in useful for value in step.inputs):
                useful.add(step.output)
        pending = {value: start for value, start in starts.items() if value in useful}
        for step in reversed(self.steps):
            needed = [value in useful for value in step.inputs]
            if step.output not in pending or not any(needed):
                continue
            relevance = pending[step.output] if step.output in ends else pending.pop(step.output)
            if step.rule is None:
                raise UsageError(
                    f"LRP has no rule for {step.name!r}, which the network uses before the unit: "
                    "LRP is for ResNets and plain convolutional networks; use method='gradient-input'"
                )
            for value, is_needed, share in zip(step.inputs, needed, step.rule(relevance), strict=True):
                if is_needed:
                    pending[value] = pending[value] + share if value in pending else share
        return {name: pending[value] for name, value in requested.items() if value in pending}


def _find_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _find_tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _find_tensors(item)
