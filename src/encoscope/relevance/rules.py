"""The rules of LRP for ResNets and plain networks of rectified convolutions, one for each operation.

A linear operation (convolution, linear layer, average pooling) on inputs a takes the relevance R of its outputs to
``a * W+^T(R / (W+ a + 1e-5))``, with W+ the positive part of its weights and without its bias. Batch norm and ReLU
pass R on unchanged, max pooling counts as average pooling over 2 x 2, and at a residual sum each branch gets the share
of R that its magnitude has in |F| + |skip|; half of R if both are zero.

Source: Otsuki et al., ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.relevance.calls import RelevanceRule, SavedTensor, TorchCall

EPSILON = 1e-5
"""Added to the denominator."""


class PositiveWeights:
    """W+ of a network's parameters. Each is computed once, and again if the parameter was changed."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, tuple[int, int], Tensor]] = {}

    def __call__(self, weight: Tensor) -> Tensor:
        """max(weight, 0) in float32, without a graph."""
        state = (weight._version, weight.data_ptr())
        known = self._known.get(id(weight))
        if known is not None and known[0] is weight and known[1] == state:
            return known[2]
        positive = weight.detach().float().clamp(min=0)
        if isinstance(weight, nn.Parameter):  # not weights that are computed in each pass: they would fill the memory
            self._known[id(weight)] = (weight, state, positive)
        return positive


def propagate_through(
    linear: Callable[[Tensor], Tensor], inputs: Float[Tensor, "batch ..."], relevance: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """Propagate relevance through a linear map W: ``inputs * W^T(relevance / (W inputs + 1e-5))``.

    Args:
        linear: The map W.
        inputs: Its inputs.
        relevance: The relevance of its outputs.

    Returns:
        The relevance of its inputs.
    """
    with torch.enable_grad():
        leaf = inputs.detach().float().requires_grad_()
        outputs = linear(leaf)
    # The gradient of a linear map is its transpose, whatever its strides, padding and groups.
    (transposed,) = torch.autograd.grad(outputs, leaf, relevance / (outputs.detach() + EPSILON))
    return leaf.detach() * transposed


def find_resnet_rule(call: TorchCall, positive: PositiveWeights) -> RelevanceRule | None:
    """Find the rule of an operation whose inputs are rectified; this has to be done before the operation is called.

    Args:
        call: The call.
        positive: The positive weights of the network.

    Returns:
        The rule; None for an operation that has no rule of its own here.
    """
    first = call.argument(0, "input")
    if not isinstance(first, Tensor):
        return None
    kept = SavedTensor(first, call.name)
    if call.name in ("conv2d", "linear"):
        return _make_weighted_rule(call, kept, positive)
    if call.name in ("avg_pool2d", "adaptive_avg_pool2d", "mean"):
        rest, named = call.args[1:], {key: value for key, value in call.kwargs.items() if key != "input"}
        return lambda r: (propagate_through(lambda a: call.function(a, *rest, **named), kept(), r),)
    if call.name == "max_pool2d":
        return lambda r: (propagate_through(max_pooling_as_average(call, kept().shape, r.shape), kept(), r),)
    return None


SHARED_RULES = frozenset(
    {"batch_norm", "relu", "relu_", "clone", "contiguous", "float", "to", "type_as", "dropout"}
    | {"flatten", "reshape", "view", "squeeze", "unsqueeze"}
    | {"add", "add_", "__add__", "__radd__", "__iadd__"}
)
"""Operations of a ResNet whose rules are those of any network: passed on, moved, and the residual sum."""


def _make_weighted_rule(call: TorchCall, kept: SavedTensor, positive: PositiveWeights) -> RelevanceRule:
    weight = call.argument(1, "weight")
    if call.name == "linear":
        return lambda r: (propagate_through(lambda a: F.linear(a, positive(weight)), kept(), r),)
    stride, padding, dilation, groups = (
        call.argument(position, name, default)
        for position, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))
    )

    def convolve(a: Tensor) -> Tensor:
        return F.conv2d(a, positive(weight), None, stride, padding, dilation, groups)

    return lambda r: (propagate_through(convolve, kept(), r),)


def max_pooling_as_average(
    call: TorchCall, inputs: Sequence[int], outputs: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Make the average pooling that max pooling counts as.

    It is over 2 x 2 if the map gets the same size (odd sides: a partial last window), else average pooling with the
    arguments of the max pooling.

    Args:
        call: The call of max pooling.
        inputs: The shape of its input.
        outputs: The shape of its output.

    Returns:
        The average pooling.
    """
    target, sides = outputs[2:], inputs[2:]
    for ceil in (False, True):
        if tuple(target) == tuple((side + ceil) // 2 for side in sides):
            return lambda a: F.avg_pool2d(a, 2, ceil_mode=ceil)
    kernel = call.argument(1, "kernel_size")
    stride, padding = call.argument(2, "stride"), call.argument(3, "padding", 0)
    ceil_mode = bool(call.argument(5, "ceil_mode", False))
    return lambda a: F.avg_pool2d(a, kernel, stride or kernel, padding, ceil_mode=ceil_mode)
