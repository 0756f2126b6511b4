"""The rules of LRP for ResNets, one for each operation of such a network.

A linear operation (convolution, linear layer, average pooling) on inputs a takes the relevance R of its outputs to
``a * W+^T(R / (W+ a + 1e-5))``, with W+ the positive part of its weights and without its bias. Batch norm and ReLU
pass R on unchanged, max pooling counts as average pooling over 2 x 2, and at a residual sum each branch gets the share
of R that its magnitude has in |F| + |skip|; half of R if both are zero.

Source: Otsuki et al., ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoscope.errors import EncoscopeError

EPSILON = 1e-5
"""Added to the denominator."""

RelevanceRule: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
"""Takes the relevance of an operation's output to the relevance of each of its inputs."""


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


@dataclass(frozen=True)
class TorchCall:
    """A call of a torch function, as a rule gets it.

    Attributes:
        name: The function's name.
        function: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Get an argument, passed by position or by name.

        Args:
            position: Its position.
            name: Its name.
            default: Its value if it was not passed.

        Returns:
            Its value.
        """
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


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


def find_rule(call: TorchCall, positive: PositiveWeights) -> tuple[tuple[Tensor, ...], RelevanceRule] | None:
    """Find the rule of an operation; this has to be done before the operation is called.

    Args:
        call: The call.
        positive: The positive weights of the network.

    Returns:
        The operation's inputs and its rule; None if LRP has no rule for it.
    """
    first = call.argument(0, "input")
    if not isinstance(first, Tensor):
        return None
    if call.name in ("conv2d", "linear"):
        return _make_weighted_rule(call, first, positive)
    if call.name in ("avg_pool2d", "adaptive_avg_pool2d", "mean"):
        kept = SavedTensor(first, call.name)
        rest, named = call.args[1:], {key: value for key, value in call.kwargs.items() if key != "input"}
        return (first,), lambda r: (propagate_through(lambda a: call.function(a, *rest, **named), kept(), r),)
    if call.name == "max_pool2d":
        kept = SavedTensor(first, call.name)
        return (first,), lambda r: (propagate_through(_max_pooling_as_average(call, kept(), r), kept(), r),)
    if call.name in ("add", "add_", "__add__", "__radd__", "__iadd__"):
        return _make_residual_rule(call, first)
    if call.name in _SHAPES:
        shape = first.shape
        return (first,), lambda r: (r.reshape(shape),)
    if call.name in _PASSED or (call.name == "dropout" and not call.argument(2, "training", True)):
        return (first,), lambda r: (r,)
    return None


_PASSED = frozenset({"batch_norm", "relu", "relu_", "clone", "contiguous", "float", "to", "type_as"})
_SHAPES = frozenset({"flatten", "reshape", "view", "squeeze", "unsqueeze"})


class SavedTensor:
    """A tensor without its graph, which can be read again unless it was changed in place.

    Args:
        tensor: The tensor.
        name: The operation that it belongs to, for messages.
    """

    def __init__(self, tensor: Tensor, name: str) -> None:
        self._tensor, self._version, self._name = tensor.detach(), tensor._version, name

    def __call__(self) -> Tensor:
        """The tensor; EncoscopeError if it was overwritten."""
        if self._tensor._version != self._version:
            raise EncoscopeError(
                f"the network changes the input of {self._name} in place afterwards, so LRP cannot use it: "
                "use method='gradient-input'"
            )
        return self._tensor


def _make_weighted_rule(
    call: TorchCall, first: Tensor, positive: PositiveWeights
) -> tuple[tuple[Tensor, ...], RelevanceRule]:
    kept, weight = SavedTensor(first, call.name), call.argument(1, "weight")
    if call.name == "linear":
        return (first,), lambda r: (propagate_through(lambda a: F.linear(a, positive(weight)), kept(), r),)
    stride, padding, dilation, groups = (
        call.argument(position, name, default)
        for position, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))
    )

    def convolve(a: Tensor) -> Tensor:
        return F.conv2d(a, positive(weight), None, stride, padding, dilation, groups)

    return (first,), lambda r: (propagate_through(convolve, kept(), r),)


def _max_pooling_as_average(call: TorchCall, inputs: Tensor, relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Average pooling over 2 x 2 if the map gets the same size (odd sides: a partial last window).

    Else average pooling with the arguments of the max pooling.
    """
    target, sides = relevance.shape[2:], inputs.shape[2:]
    for ceil in (False, True):
        if tuple(target) == tuple((side + ceil) // 2 for side in sides):
            return lambda a: F.avg_pool2d(a, 2, ceil_mode=ceil)
    kernel = call.argument(1, "kernel_size")
    stride, padding = call.argument(2, "stride"), call.argument(3, "padding", 0)
    ceil_mode = bool(call.argument(5, "ceil_mode", False))
    return lambda a: F.avg_pool2d(a, kernel, stride or kernel, padding, ceil_mode=ceil_mode)


def _make_residual_rule(call: TorchCall, first: Tensor) -> tuple[tuple[Tensor, ...], RelevanceRule] | None:
    other = call.argument(1, "other")
    if not isinstance(other, Tensor) or other.shape != first.shape or call.kwargs.get("alpha", 1) != 1:
        return None
    with torch.no_grad():  # before the call: an addition in place overwrites one of the two
        magnitude, other_magnitude = first.detach().float().abs(), other.detach().float().abs()
        total = magnitude + other_magnitude
        share = torch.where(total > 0, magnitude / total, 0.5)
    return (first, other), lambda r: (r * share, r * (1 - share))
