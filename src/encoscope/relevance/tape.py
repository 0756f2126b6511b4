"""A record of a forward pass: the inputs, the output and LRP's rule of each operation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from encoscope.errors import UsageError
from encoscope.relevance.calls import RelevanceRule, TorchCall, ValueFacts, copy_containers, find_tensors
from encoscope.relevance.operations import OperationRule
from encoscope.relevance.rules import SHARED_RULES, PositiveWeights, find_resnet_rule
from encoscope.relevance.same_sign import Direction
from encoscope.relevance.signed_rules import WEIGHTED, find_signed_rule

_TURNED = {"T", "mT", "H", "mH"}
_SAME_VALUES = {"data", "real"}


@dataclass(frozen=True)
class TapeStep:
    """One operation.

    Attributes:
        name: Its name.
        inputs: The numbers of its input values.
        output: The number of its output value.
        rule: LRP's rule for any network; None if LRP has no rule for it.
        resnet_rule: LRP's rule for ResNets and plain networks; None for an operation that these do not have.
    """

    name: str
    inputs: tuple[int, ...]
    output: int
    rule: RelevanceRule | None
    resnet_rule: RelevanceRule | None = None


class Tape(TorchFunctionMode):
    """Records the torch functions that are called in a ``with`` block, by modules or directly.

    Tensors are numbered by value: an operation in place gives its tensor a new number, so that the branches of a
    residual sum differ from the sum even if they share memory. The results of the functions do not change. Only what is
    computed from the images is recorded.

    Args:
        positive: The positive weights of the network.
    """

    def __init__(self, positive: PositiveWeights) -> None:
        super().__init__()
        self.steps: list[TapeStep] = []
        self._positive = positive
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._facts: dict[int, ValueFacts] = {}
        self._directions: dict[int, Direction] = {}
        self._count = 0

    def start_from(self, images: Tensor) -> None:
        """Record what is computed from a tensor, from here on.

        Args:
            images: The tensor.
        """
        self._facts[self._assign_number(images)] = ValueFacts(computed=True)

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

    def get_facts(self, tensor: Tensor) -> ValueFacts:
        """Get what the network's structure says of a value.

        Args:
            tensor: The tensor.

        Returns:
            The facts.
        """
        known = self._numbers.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return self._facts.get(known[1], ValueFacts())
        # Parameters have no graph; a tensor with a graph that no recorded call gave comes from elsewhere.
        return ValueFacts(computed=True, hidden=True, untraced=True) if tensor.grad_fn is not None else ValueFacts()

    def get_direction(self, tensor: Tensor) -> Direction | None:
        """Get the direction of the layer with weights that gave a value.

        Args:
            tensor: The tensor.

        Returns:
            The direction; None for values that no such layer gave.
        """
        return self._directions.get(self.get_number(tensor))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and record it if it computes tensors from the images."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "an unnamed operation")
        if name == "__get__":  # .shape, .dtype, ..., which are read very often
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute not in _TURNED | _SAME_VALUES:
                return func(*args, **kwargs)
            name = "detach" if attribute in _SAME_VALUES else name
        tensors = [tensor for tensor in find_tensors((args, kwargs)) if self.get_facts(tensor).computed]
        if not tensors:
            output = func(*args, **kwargs)
            for tensor in find_tensors(output):  # computed of parameters alone
                self._assign_number(tensor)
            return output
        call = TorchCall(name, func, *copy_containers((args, dict(kwargs))))
        facts = [self.get_facts(tensor) for tensor in tensors]
        hidden = name in WEIGHTED or any(fact.hidden for fact in facts)
        rule = find_signed_rule(call, self, self._positive)
        if any(fact.untraced for fact in facts):
            rule, name = None, f"{name} of a tensor that is computed outside of torch's functions"
        shared = rule is not None and _is_shared(call, rule)
        resnet = None if rule is None or shared else self._find_resnet_rule(call, rule)
        inputs = tuple(self.get_number(tensor) for tensor in (tensors if rule is None else rule.sources))
        output = func(*args, **kwargs)
        results = args[0] if name == "__setitem__" else output
        for index, tensor in enumerate(find_tensors(results)):
            number = self._assign_number(tensor)
            self._facts[number] = ValueFacts(True, hidden, rule is not None and rule.nonnegative, _is_bounded(rule))
            if rule is not None and rule.direction is not None:
                self._directions[number] = rule.direction
            own_rule = None if rule is None else rule.make(tensor, index)
            self.steps.append(TapeStep(name, inputs, number, own_rule, own_rule if shared else resnet))
        return output

    def _find_resnet_rule(self, call: TorchCall, rule: OperationRule) -> RelevanceRule | None:
        """The rule of a ResNet's operation, if its input is rectified or comes before all layers with weights."""
        facts = [self.get_facts(source) for source in rule.sources]
        rectified = all(fact.nonnegative or not fact.hidden for fact in facts)
        return find_resnet_rule(call, self._positive) if rectified else None

    def _assign_number(self, tensor: Tensor) -> int:
        self._count += 1
        self._numbers[id(tensor)] = (weakref.ref(tensor), self._count)
        return self._count

    def is_resnet(self, values: Iterable[int]) -> bool:
        """Tell whether the rules for ResNets and plain networks reach from values to the first layer with weights.

        Args:
            values: The numbers of the values.

        Returns:
            Whether each operation that they are computed by has one.
        """
        reached = set(values)
        for step in reversed(self.steps):
            if step.output in reached and self._facts[step.output].hidden:
                if step.resnet_rule is None:
                    return False
                reached.update(step.inputs)
        return True

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
        resnet = self.is_resnet(starts)
        pending = {value: start for value, start in starts.items() if value in useful}
        for step in reversed(self.steps):
            needed = [value in useful for value in step.inputs]
            if step.output not in pending or not any(needed):
                continue
            relevance = pending[step.output] if step.output in ends else pending.pop(step.output)
            rule = step.resnet_rule if resnet else step.rule
            if rule is None:
                raise UsageError(
                    f"LRP has no rule for {step.name!r}, which the network uses before the unit: "
                    "use method='gradient-input'"
                )
            for value, is_needed, share in zip(step.inputs, needed, rule(relevance), strict=True):
                if is_needed:
                    pending[value] = pending[value] + share if value in pending else share
        return {name: pending[value] for name, value in requested.items() if value in pending}


def _is_bounded(rule: OperationRule | None) -> bool:
    return rule is not None and rule.bounded


def _is_shared(call: TorchCall, rule: OperationRule) -> bool:
    """Whether the rule of an operation is that of ResNets, too."""
    alike = len({source.shape for source in rule.sources}) == 1 and call.kwargs.get("alpha", 1) == 1
    return call.name in SHARED_RULES and alike
