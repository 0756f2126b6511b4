"""The rule of one operation, and the rules that many operations share: handed on, and linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from encoscope.relevance.calls import RelevanceRule, ValueFacts
from encoscope.relevance.rules import PositiveWeights
from encoscope.relevance.same_sign import Direction, make_weighted_rule


@runtime_checkable
class ValueRecord(Protocol):
    """What is known of the values that an operation gets."""

    def get_facts(self, tensor: Tensor) -> ValueFacts:
        """Get what the network's structure says of a value.

        Args:
            tensor: The value.

        Returns:
            The facts.
        """
        ...

    def get_direction(self, tensor: Tensor) -> Direction | None:
        """Get the direction of the layer with weights that gave a value.

        Args:
            tensor: The value.

        Returns:
            The direction; None if no such layer gave it.
        """
        ...


@dataclass(frozen=True)
class OperationRule:
    """How relevance goes through one operation.

    Attributes:
        sources: The inputs that it goes to.
        make: Makes the rule, from an output of the operation and its index among the outputs.
        nonnegative: Whether the output cannot be below 0.
        bounded: Whether the output is a gate, see ``ValueFacts``.
        direction: The direction of the output, for a layer with weights and what follows it.
    """

    sources: tuple[Tensor, ...]
    make: Callable[[Tensor, int], RelevanceRule]
    nonnegative: bool = False
    bounded: bool = False
    direction: Direction | None = None


def hand_on(
    source: Tensor, facts: ValueFacts, *, nonnegative: bool | None = None, bounded: bool | None = None
) -> OperationRule:
    """Make the rule of an operation that hands relevance on.

    Args:
        source: Its input.
        facts: What is known of the input.
        nonnegative: Whether the output cannot be below 0; None for as the input.
        bounded: Whether the output is a gate; None for as the input.

    Returns:
        The rule.
    """
    shape = source.shape
    return OperationRule(
        (source,),
        lambda _output, _index: lambda r: (r.sum_to_size(shape),),
        facts.nonnegative if nonnegative is None else nonnegative,
        facts.bounded if bounded is None else bounded,
    )


def follow(rule: OperationRule, before: Direction | None, rises: Tensor | bool) -> OperationRule:
    """Let the output of an operation set the direction of the layer before.

    Args:
        rule: The rule of the operation.
        before: The direction of its input; None leaves everything as it is.
        rises: Where the output rises with the input.

    Returns:
        The same rule, which does so.
    """
    direction = Direction(before, rises)

    def make(output: Tensor, index: int) -> RelevanceRule:
        if before is not None:
            direction.set(output.detach() > 0)
        return rule.make(output, index)

    return OperationRule(rule.sources, make, rule.nonnegative, rule.bounded, direction if before is not None else None)


def make_linear_rule(
    compute: Callable[[Tensor, Tensor], Tensor],
    source: Tensor,
    weight: Tensor,
    name: str,
    positive: PositiveWeights | None,
) -> OperationRule:
    """Make the rule of an operation that is linear in one of its inputs.

    Args:
        compute: Takes that input and the weights to the output, without a bias.
        source: The input.
        weight: The weights, which count as constants.
        name: The operation.
        positive: The positive weights of the network; None for weights that are no parameters of it.

    Returns:
        The rule.
    """
    direction = Direction()
    rule = make_weighted_rule(compute, source, weight, direction, name, positive)

    def make(output: Tensor, _index: int) -> RelevanceRule:
        direction.set(output.detach() > 0)
        return rule

    return OperationRule((source,), make, direction=direction)
