"""Forward passes whose gradients are attributions: guided at ReLUs, or with statistics and attention held constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class GuidedMode(TorchFunctionMode):
    """Inside, the gradient that gets to a ReLU's output goes on only where it is positive (guided backprop).

    Modules' and functional ReLUs alike; ``count`` is how many were passed.
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
        """Call the function; a ReLU's result is given a hook on its gradient."""
        output = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("relu", "relu_"):
            self.count += 1
            if output.requires_grad:
                output.register_hook(lambda gradient: gradient.clamp(min=0))
        return output


class DetachedMode(TorchFunctionMode):
    """Inside, normalisation divides by, and attention weighs by, what counts as constant in the gradient.

    The gradient then sees each such step as the linear map it is on the given input, centring included, so that
    gradient times input is conserved across it (Ali et al., ICML 2022). Values are those of the plain pass.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or what has the same value and the other gradient."""
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
    return _affine(_standardised(input, dims, eps), weight, bias)


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
    normal = _standardised(grouped, (2,), eps).reshape(input.shape)
    shape = (-1, *[1] * (input.ndim - 2))
    return _affine(
        normal, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )


def _standardised(values: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    deviation = (values.var(dims, unbiased=False, keepdim=True) + eps).rsqrt().detach()
    return (values - values.mean(dims, keepdim=True)) * deviation


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    values = values if weight is None else values * weight
    return values if bias is None else values + bias


_REPLACED: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "rsqrt": _constant,  # normalisations written out
    "softmax": _constant,  # attention written out
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _attention,
}
