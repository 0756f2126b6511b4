"""Modes of torch in which gradients are attributions: guided at ReLUs, or with constant statistics and attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

RECTIFIERS = frozenset(
    form
    for name in (
        *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "threshold", "hardtanh"),
        *("hardswish", "silu", "gelu", "mish", "softplus"),
    )
    for form in (name, f"{name}_")
)
"""The torch functions that are ReLU, or a capped, leaky or smooth form of it."""


class GuidedMode(TorchFunctionMode):
    """In this mode a rectifier passes on only the positive part of the gradient at its output (guided backprop).

    What it passes on is multiplied by its own derivative, as in the plain gradient. This holds for modules and
    functions, for ReLU and its capped and smooth forms (ReLU6, hardtanh, hardswish, SiLU, GELU, ...).

    Attributes:
        count: Number of rectifiers that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function; the step back through a rectifier gets a hook.

        The gradient at the rectifier's output itself, which is recorded as a layer's, is not clipped.
        """
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in RECTIFIERS or (name in ("clamp", "clamp_", "clip", "clip_", "clamp_min") and _is_low(args, kwargs)):
            self.count += 1
            if output.grad_fn is not None:
                output.grad_fn.register_prehook(_clip)
        return output


def _is_low(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a clamp cuts at 0, as a rectifier does."""
    low = args[1] if len(args) > 1 else kwargs.get("min")
    return isinstance(low, int | float) and low == 0


def _clip(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(gradient.clamp(min=0) for gradient in gradients)


class DetachedMode(TorchFunctionMode):
    """In this mode the statistics of normalization and the weights of attention count as constants in the gradient.

    The gradient then treats each such step as the linear map that it is for the given input, including the centring,
    so that gradient times input is conserved across the step. Values are those of the plain forward pass.

    Source: Ali et al., ICML 2022.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or a replacement of the same value with the other gradient."""
        kwargs = kwargs or {}
        replaced = _REPLACED.get(getattr(func, "__name__", ""))
        return func(*args, **kwargs) if replaced is None else replaced(func, *args, **kwargs)


def _constant(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return func(*args, **kwargs).detach()


def _attention(func: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Attention whose gradient goes through the values alone."""
    return func(query.detach(), key.detach(), value, *args, **kwargs)


def _layer_norm(
    _func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(_standardize(input, dims, eps), weight, bias)


def _rms_norm(
    _func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _affine(input * (input.pow(2).mean(dims, keepdim=True) + eps).rsqrt().detach(), weight, None)


def _group_norm(
    _func: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    grouped = input.unflatten(1, (num_groups, -1)).flatten(2)
    normal = _standardize(grouped, (2,), eps).reshape(input.shape)
    shape = (-1, *[1] * (input.ndim - 2))
    return _affine(
        normal, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )


def _standardize(values: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    inverse_std = (values.var(dims, unbiased=False, keepdim=True) + eps).rsqrt().detach()
    return (values - values.mean(dims, keepdim=True)) * inverse_std


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    values = values if weight is None else values * weight
    return values if bias is None else values + bias


_REPLACED: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "rsqrt": _constant,  # in normalizations that networks compute themselves
    "softmax": _constant,  # in attention that networks compute themselves
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _attention,
}
