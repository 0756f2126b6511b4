"""The rules of LRP for any other network, one for each kind of operation.

- Layers with weights, pooling, and attention over its values: by the contributions of the output's own sign.
- Activation functions, norms, casts, and whatever is added or multiplied that is not computed from the image: relevance
  is handed on.
- What only moves values (padding, concatenation, windows, ...): relevance moves back.
- Sums: each branch gets the share of its magnitude, as at the residual sum of ResNets.
- Products: the gate (a sigmoid, a weight of attention, a factor for a whole channel) is a constant, and the signal gets
  all; of two signals each gets half.

Source: Otsuki et al., ECCV 2024 (sums); Ali et al., ICML 2022 (constants); Achtibat et al., ICML 2024 (AttnLRP:
activation functions, norms, and two signals).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from encoscope.relevance.attention import find_attention_rule
from encoscope.relevance.calls import RelevanceRule, TorchCall, ValueFacts, find_tensors
from encoscope.relevance.combinations import (
    DIFFERENCES,
    QUOTIENTS,
    find_gating_rule,
    find_product_rule,
    find_scaled_sum_rule,
    find_sum_rule,
)
from encoscope.relevance.operations import OperationRule, ValueRecord, follow, hand_on, make_linear_rule
from encoscope.relevance.rules import PositiveWeights, max_pooling_as_average
from encoscope.relevance.same_sign import Direction, make_averaging_rule

_Finder: TypeAlias = Callable[[TorchCall, ValueRecord, PositiveWeights], OperationRule | None]


def find_signed_rule(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    """Find the rule of an operation; this has to be done before the operation is called.

    Args:
        call: The call.
        record: What is known of its inputs.
        positive: The positive weights of the network.

    Returns:
        The rule; None if there is none.
    """
    finder = _FINDERS.get(call.name)
    return None if finder is None else finder(call, record, positive)


def _first(call: TorchCall) -> Tensor | None:
    first = call.argument(0, "input")
    return first if isinstance(first, Tensor) else None


def _find_unchanged(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    first = _first(call)
    return None if first is None else hand_on(first, record.get_facts(first))


def _find_dropout(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    return None if call.argument(2, "training", True) else _find_unchanged(call, record, positive)


def _find_activation(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    first = _first(call)
    if first is None:
        return None
    name, facts = call.name.rstrip("_"), record.get_facts(first)
    low = high = None
    if name == "hardtanh":
        low, high = call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0)
    elif name in ("clamp", "clip", "clamp_min"):
        low = call.argument(1, "min")
        high = call.argument(2, "max") if name != "clamp_min" else None
    nonnegative = name in _NONNEGATIVE or (isinstance(low, int | float) and low >= 0) or facts.nonnegative
    bounded = name in _BOUNDED or (low is not None and high is not None) or facts.bounded
    return hand_on(first, facts, nonnegative=nonnegative, bounded=bounded)


def _find_norm(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    first = _first(call)
    if first is None:
        return None
    rule = hand_on(first, record.get_facts(first), nonnegative=False, bounded=False)
    weight = call.argument(3 if call.name == "batch_norm" else 2, "weight")
    if call.name not in ("batch_norm", "layer_norm"):
        return rule
    rises: Tensor | bool = True
    if isinstance(weight, Tensor):
        shape = (-1, *[1] * (first.ndim - 2)) if call.name == "batch_norm" else weight.shape
        rises = weight.detach().reshape(shape) > 0
    return follow(rule, record.get_direction(first), rises)


def _find_weighted(call: TorchCall, record: ValueRecord, positive: PositiveWeights) -> OperationRule | None:
    first, weight = _first(call), call.argument(1, "weight")
    if first is None or not isinstance(weight, Tensor):
        return None
    rest = call.args[3:]
    named = {key: value for key, value in call.kwargs.items() if key not in ("input", "weight", "bias")}

    def compute(values: Tensor, own: Tensor) -> Tensor:
        return call.function(values, own, None, *rest, **named)

    facts, computed = record.get_facts(first), record.get_facts(weight).computed
    if not computed:
        return make_linear_rule(compute, first, weight, call.name, positive)
    if facts.computed:  # weights that are computed from the image: a gate
        return make_linear_rule(compute, first, weight, call.name, None)
    return None


def _find_attention(call: TorchCall, _record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    direction = Direction()
    attention = find_attention_rule(call, direction)
    if attention is None:
        return None
    value, rule = attention

    def make(output: Tensor, _index: int) -> RelevanceRule:
        direction.set(output.detach() > 0)
        return rule

    return OperationRule((value,), make, direction=direction)


def _find_average(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    first = _first(call)
    if first is None or call.kwargs.get("mode", "nearest") not in _POSITIVE_MODES:
        return None
    direction, facts = Direction(), record.get_facts(first)

    def make(output: Tensor, _index: int) -> RelevanceRule:
        direction.set(output.detach() > 0)
        if call.name == "max_pool2d":
            average = max_pooling_as_average(call, first.shape, output.shape)
            return make_averaging_rule(average, first, direction, call.name)
        return make_averaging_rule(lambda a: call.replace({id(first): a}), first, direction, call.name)

    return OperationRule((first,), make, facts.nonnegative, facts.bounded)


def _find_movement(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    moved = [tensor for tensor in find_tensors((call.args, call.kwargs)) if record.get_facts(tensor).computed]
    moved = [tensor for tensor in moved if tensor.is_floating_point()]
    if not moved:
        return None
    shapes = [(tensor.shape, tensor.stride()) for tensor in moved]
    device = moved[0].device
    if call.name in _RESHAPES:
        return _hand_back_shape(moved[0], record.get_facts(moved[0]))

    def make(_output: Tensor, index: int) -> RelevanceRule:
        def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
            leaves = [
                torch.empty_strided(shape, stride, dtype=relevance.dtype, device=device).requires_grad_()
                for shape, stride in shapes
            ]
            with torch.enable_grad():
                results = call.replace({id(tensor): leaf for tensor, leaf in zip(moved, leaves, strict=True)})
            result = list(find_tensors(results))[index]
            gradients = torch.autograd.grad(result, leaves, relevance, allow_unused=True)
            return tuple(
                torch.zeros_like(leaf) if gradient is None else gradient
                for leaf, gradient in zip(leaves, gradients, strict=True)
            )

        return propagate

    facts = [record.get_facts(tensor) for tensor in moved]
    padded = call.name in ("pad", "constant_pad_nd") and (call.argument(3, "value") or 0) < 0
    nonnegative = all(fact.nonnegative for fact in facts) and not padded
    return OperationRule(tuple(moved), make, nonnegative, all(fact.bounded for fact in facts))


def _hand_back_shape(source: Tensor, facts: ValueFacts) -> OperationRule:
    shape = source.shape
    return OperationRule((source,), lambda _o, _i: lambda r: (r.reshape(shape),), facts.nonnegative, facts.bounded)


def _find_maximum(call: TorchCall, record: ValueRecord, _positive: PositiveWeights) -> OperationRule | None:
    """The largest of some values gets all relevance."""
    first = _first(call)
    if first is None or not isinstance(call.argument(1, "dim"), int | tuple | list):
        return None
    facts, kept = record.get_facts(first), first.detach()

    def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
        leaf = kept.float().requires_grad_()
        with torch.enable_grad():
            largest = next(find_tensors(call.replace({id(first): leaf})))
        return torch.autograd.grad(largest, leaf, relevance)

    return OperationRule((first,), lambda _output, _index: propagate, facts.nonnegative, facts.bounded)


_ACTIVATIONS = (
    "relu", "relu6", "threshold", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish",
    "softplus", "softsign", "hardswish", "hardtanh", "hardsigmoid", "sigmoid", "logsigmoid", "tanh", "hardshrink",
    "softshrink", "tanhshrink", "softmax", "log_softmax", "clamp", "clip", "clamp_min", "clamp_max", "abs", "square",
    "sqrt", "exp", "log", "pow", "__pow__", "normalize",
)  # fmt: skip
_NONNEGATIVE = {"relu", "relu6", "softplus", "hardsigmoid", "sigmoid", "softmax", "abs", "square", "sqrt", "exp"}
_BOUNDED = {"relu6", "hardsigmoid", "sigmoid", "tanh", "softmax"}
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm")
_UNCHANGED = (
    "clone", "contiguous", "detach", "float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda",
    "requires_grad_", "identity",
)  # fmt: skip
WEIGHTED = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
)  # fmt: skip
_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "einsum")
_AVERAGES = (
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "max_pool2d", "mean", "sum", "interpolate", "upsample", "grid_sample", "fold",
)  # fmt: skip
_MOVEMENTS = (
    "flatten", "unflatten", "reshape", "reshape_as", "view", "view_as", "squeeze", "unsqueeze", "permute", "transpose",
    "swapaxes", "swapdims", "movedim", "moveaxis", "t", "chunk", "split", "split_with_sizes", "tensor_split", "unbind",
    "select", "narrow", "__getitem__", "index_select", "gather", "roll", "flip", "rot90", "pad", "constant_pad_nd",
    "expand", "expand_as", "repeat", "repeat_interleave", "tile", "broadcast_to", "cat", "concat", "concatenate",
    "stack", "hstack", "vstack", "dstack", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "unfold", "masked_fill", "masked_fill_", "__get__",
)  # fmt: skip
_POSITIVE_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area")
_RESHAPES = ("flatten", "unflatten", "reshape", "reshape_as", "view", "view_as", "squeeze", "unsqueeze")
_MAXIMA = ("amax", "max", "adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool1d")


def _with_variants(*names: str) -> list[str]:
    """A function's name, as a method that changes its tensor in place, and as an operator."""
    return [form for name in names for form in (name, f"{name}_", f"__{name}__")]


_FINDERS: Mapping[str, _Finder] = {
    **dict.fromkeys(_with_variants(*_ACTIVATIONS), _find_activation),
    **dict.fromkeys(_NORMS, _find_norm),
    **dict.fromkeys(_UNCHANGED, _find_unchanged),
    **dict.fromkeys(("dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"), _find_dropout),
    **dict.fromkeys(WEIGHTED, _find_weighted),
    **dict.fromkeys(_PRODUCTS, find_product_rule),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward"), _find_attention),
    **dict.fromkeys(_AVERAGES, _find_average),
    **dict.fromkeys(_MOVEMENTS, _find_movement),
    **dict.fromkeys(_MAXIMA, _find_maximum),
    **dict.fromkeys(_with_variants("addcmul", "addcdiv"), find_scaled_sum_rule),
    **dict.fromkeys(_with_variants("add", "radd", "iadd", *DIFFERENCES), find_sum_rule),
    **dict.fromkeys(_with_variants("mul", "multiply", "rmul", "imul", *QUOTIENTS), find_gating_rule),
}
