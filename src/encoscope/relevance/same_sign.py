"""LRP through layers whose inputs have both signs: relevance goes to the contributions of the output's own sign.

An output of a linear layer is a sum of contributions ``w a``, some above 0 and some below. Of an output above 0, each
positive contribution gets its share among the positive ones, and of an output below 0 each negative one among the
negative ones. On rectified inputs and outputs this is the z+ rule; unlike it, it neither divides by numbers near 0 nor
takes what lowers a negative output for what raises it. Shares are never negative and their sum is 1, so that relevance
cannot grow on its way, and is lost only where an output has no contribution of its own sign (but a bias).

Source: the generalized gamma rule (Andeol et al., 2021) for an infinite gamma; of rectified inputs z+ (Montavon et al.,
2017).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoscope.relevance.calls import RelevanceRule, SavedTensor
from encoscope.relevance.rules import PositiveWeights

_SMALLEST = 1e-30  # contributions of less than this in all count as none

PartialSum: TypeAlias = Callable[[Tensor, Tensor | None], Tensor | None]
"""Takes the inputs above 0 and those below (None where there are none) to the contributions of one sign."""


class Direction:
    """Which of a layer's outputs count as positive: those that raise what is computed of them.

    This is an output's own sign, unless it is shifted or flipped by a bias or a norm that follows. Whatever follows
    sets it.

    Args:
        before: The direction of the value that this one is computed from, element by element.
        rises: Where this value rises with that one.
    """

    def __init__(self, before: Direction | None = None, rises: Tensor | bool = True) -> None:
        self._before, self._rises = before, rises
        self.positive: Bool[Tensor, "*_"] | None = None

    def set(self, positive: Bool[Tensor, "*_"]) -> None:
        """Set it, and with it those before.

        Args:
            positive: Where the output counts as positive.
        """
        self.positive = positive
        if self._before is not None:
            self._before.set(positive if self._rises is True else positive == self._rises)


def as_float(values: Tensor) -> Tensor:
    """Give values without a graph in float32, or in float64 if they are.

    Args:
        values: The values.

    Returns:
        The values.
    """
    return values.detach() if values.dtype == torch.float64 else values.detach().float()


def propagate_same_sign(
    inputs: Float[Tensor, "*_"],
    relevance: Float[Tensor, "*_"],
    positive: Bool[Tensor, "*_"],
    raising: PartialSum,
    lowering: PartialSum,
) -> Float[Tensor, "*_"]:
    """Propagate relevance to the contributions of the output's sign.

    Args:
        inputs: The inputs of the layer.
        relevance: The relevance of its outputs.
        positive: Where the output counts as positive.
        raising: The sum of the positive contributions.
        lowering: The sum of the negative ones.

    Returns:
        The relevance of the inputs.
    """
    values = as_float(inputs)
    up = values.clamp(min=0).requires_grad_()
    down = values.clamp(max=0).requires_grad_() if bool((values < 0).any()) else None
    leaves = [up] if down is None else [up, down]
    result = torch.zeros_like(values)
    for chosen, compute in ((positive, raising), (~positive, lowering)):
        share = relevance.to(values.dtype).masked_fill(~chosen, 0)
        if not share.any():
            continue
        with torch.enable_grad():
            sums = compute(up, down)
        if sums is None:
            continue
        ratio = torch.where(sums.detach().abs() > _SMALLEST, share / sums.detach(), 0)
        for leaf, gradient in zip(leaves, torch.autograd.grad(sums, leaves, ratio, allow_unused=True), strict=True):
            if gradient is not None:
                result += leaf.detach() * gradient
    return result


def make_weighted_rule(
    compute: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    weight: Tensor,
    direction: Direction,
    name: str,
    positive_weights: PositiveWeights | None = None,
) -> RelevanceRule:
    """Make the rule of a layer that is linear in its inputs, for weights that count as constants.

    Args:
        compute: Takes inputs and weights to outputs, without a bias.
        inputs: The inputs.
        weight: The weights.
        direction: Where the outputs count as positive.
        name: The layer's operation, for messages.
        positive_weights: The positive weights of the network, which are computed once.

    Returns:
        The rule.
    """
    kept, kept_weight = SavedTensor(inputs, name), SavedTensor(weight, name)

    def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
        values = kept()
        kind = as_float(values).dtype
        own = as_float(kept_weight()).to(kind)
        above = own.clamp(min=0) if positive_weights is None else positive_weights(weight).to(kind)
        below = own - above
        signed = bool((own < 0).any())

        def raising(up: Tensor, down: Tensor | None) -> Tensor | None:
            return _add(compute(up, above), compute(down, below) if signed and down is not None else None)

        def lowering(up: Tensor, down: Tensor | None) -> Tensor | None:
            return _add(
                compute(up, below) if signed else None,
                compute(down, above) if down is not None else None,
            )

        assert direction.positive is not None
        return (propagate_same_sign(values, relevance, direction.positive, raising, lowering),)

    return propagate


def make_averaging_rule(
    compute: Callable[[Tensor], Tensor], inputs: Tensor, direction: Direction, name: str
) -> RelevanceRule:
    """Make the rule of an operation that is linear with weights that are not negative, such as average pooling.

    Args:
        compute: The operation.
        inputs: The inputs.
        direction: Where the outputs count as positive.
        name: The operation, for messages.

    Returns:
        The rule.
    """
    kept = SavedTensor(inputs, name)

    def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
        assert direction.positive is not None
        relevance_below = propagate_same_sign(
            kept(),
            relevance,
            direction.positive,
            lambda up, _: compute(up),
            lambda _, down: None if down is None else compute(down),
        )
        return (relevance_below,)

    return propagate


def _add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
