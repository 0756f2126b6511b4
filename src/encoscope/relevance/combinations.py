"""LRP where values meet: sums, products, gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from encoscope.relevance.calls import RelevanceRule, TorchCall, find_tensors
from encoscope.relevance.operations import OperationRule, ValueRecord, follow, hand_on, make_linear_rule
from encoscope.relevance.rules import PositiveWeights

DIFFERENCES = ("sub", "subtract", "isub", "rsub")
QUOTIENTS = ("div", "divide", "true_divide", "truediv", "itruediv")


def find_sum_rule(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    """Find the rule of a sum or difference: shares by magnitude, and none for a constant.

    Args:
        call: The call.
        record: What is known of its inputs.
        positive: The positive weights of the network; not used.

    Returns:
        The rule; None if there is none.
    """
    first, other = call.argument(0, "input"), call.argument(1, "other")
    tensors = [each for each in (first, other) if isinstance(each, Tensor)]
    computed = [each for each in tensors if record.get_facts(each).computed]
    facts = [record.get_facts(each) for each in computed]
    minus = call.name.strip("_") in DIFFERENCES
    if len(computed) == 1:
        numbers = [each for each in (first, other) if isinstance(each, int | float)]
        nonnegative = not minus and bool(numbers) and min(numbers) >= 0 and facts[0].nonnegative
        rule = hand_on(computed[0], facts[0], nonnegative=nonnegative)
        rises = not (minus and (computed[0] is other) != (call.name.strip("_") in ("rsub",)))
        constant = tensors[0] if len(tensors) == 2 and tensors[0] is not computed[0] else None
        alike = constant is None or torch.broadcast_shapes(constant.shape, computed[0].shape) == computed[0].shape
        return follow(rule, record.get_direction(computed[0]), rises) if alike and rises else rule
    if len(computed) != 2:
        return None
    scale = abs(call.kwargs.get("alpha", 1))
    with torch.no_grad():  # before the call: an addition in place overwrites one of the two
        magnitude, other_magnitude = (each.detach().float().abs() for each in computed)
        other_magnitude = other_magnitude if scale == 1 else other_magnitude * scale
        total = magnitude + other_magnitude
        share = torch.where(total > 0, magnitude / total, 0.5)
    shapes = computed[0].shape, computed[1].shape

    def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
        return (relevance * share).sum_to_size(shapes[0]), (relevance * (1 - share)).sum_to_size(shapes[1])

    nonnegative = not minus and all(fact.nonnegative for fact in facts)
    bounded = all(fact.bounded for fact in facts)
    return OperationRule((computed[0], computed[1]), lambda _output, _index: propagate, nonnegative, bounded)


def find_gating_rule(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    """Find the rule of a product or quotient, element by element.

    Args:
        call: The call.
        record: What is known of its inputs.
        positive: The positive weights of the network; not used.

    Returns:
        The rule; None if there is none.
    """
    first, other = call.argument(0, "input"), call.argument(1, "other")
    divides = call.name.strip("_") in QUOTIENTS
    tensors = [each for each in (first, other) if isinstance(each, Tensor) and record.get_facts(each).computed]
    if divides and not (isinstance(first, Tensor) and record.get_facts(first).computed):
        return None
    if not tensors:
        return None
    if len(tensors) == 1 or divides:
        signal = tensors[0]
        constant = other if signal is first else first
        facts = record.get_facts(signal)
        keeps_sign = (isinstance(constant, int | float) and constant >= 0) or (
            isinstance(constant, Tensor) and record.get_facts(constant).nonnegative
        )
        rule = hand_on(signal, facts, nonnegative=facts.nonnegative and keeps_sign)
        if (
            isinstance(constant, Tensor)
            and not record.get_facts(constant).computed
            and torch.broadcast_shapes(constant.shape, signal.shape) == signal.shape
        ):
            return follow(rule, record.get_direction(signal), constant.detach() > 0)
        return rule
    left, right = (record.get_facts(each) for each in tensors)
    nonnegative, bounded = left.nonnegative and right.nonnegative, left.bounded and right.bounded
    sizes = [each.numel() for each in tensors]
    if left.bounded != right.bounded or sizes[0] != sizes[1]:
        is_first = right.bounded if left.bounded != right.bounded else sizes[0] > sizes[1]
        signal = tensors[0] if is_first else tensors[1]
        return hand_on(signal, record.get_facts(signal), nonnegative=nonnegative, bounded=bounded)
    return OperationRule((tensors[0], tensors[1]), lambda _o, _i: lambda r: (r / 2, r / 2), nonnegative, bounded)


def find_product_rule(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    """Find the rule of a matrix product: by a constant, by weights of attention, or of two signals.

    Args:
        call: The call.
        record: What is known of its inputs.
        positive: The positive weights of the network.

    Returns:
        The rule; None if there is none.
    """
    operands = list(find_tensors((call.args, call.kwargs)))
    if len(operands) != 2:
        return None
    first, second = operands
    left, right = record.get_facts(first), record.get_facts(second)

    def by(constant: Tensor, signal: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda values, weight: call.replace({id(signal): values, id(constant): weight})

    if not (left.computed and right.computed) or left.bounded != right.bounded:
        signal_first = left.computed and (not right.computed or right.bounded)
        signal, constant = (first, second) if signal_first else (second, first)
        return make_linear_rule(by(constant, signal), signal, constant, call.name, None)
    by_second = make_linear_rule(by(second, first), first, second, call.name, None)
    by_first = make_linear_rule(by(first, second), second, first, call.name, None)

    def make(output: Tensor, index: int) -> RelevanceRule:
        rules = by_second.make(output, index), by_first.make(output, index)
        return lambda r: (*rules[0](r / 2), *rules[1](r / 2))

    return OperationRule((first, second), make)


def find_scaled_sum_rule(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    """Find the rule of ``addcmul`` and ``addcdiv`` with constants in all places but one.

    Args:
        call: The call.
        record: What is known of its inputs.
        positive: The positive weights of the network.

    Returns:
        The rule; None if there is none.
    """
    tensors = [call.argument(index, name) for index, name in enumerate(("input", "tensor1", "tensor2"))]
    computed = [each for each in tensors if isinstance(each, Tensor) and record.get_facts(each).computed]
    if len(computed) != 1:
        return None
    return hand_on(computed[0], record.get_facts(computed[0]), nonnegative=False)
