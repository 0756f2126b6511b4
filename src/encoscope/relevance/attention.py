"""LRP through attention: relevance goes to the values that are mixed; the weights of the mixture are constants."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from encoscope.relevance.calls import RelevanceRule, SavedTensor, TorchCall
from encoscope.relevance.same_sign import Direction, as_float, make_averaging_rule, make_weighted_rule

_PACKED = inspect.signature(torch.nn.functional.multi_head_attention_forward)


def find_attention_rule(call: TorchCall, direction: Direction) -> tuple[Tensor, RelevanceRule] | None:
    """Find the rule of a call of torch's attention.

    Args:
        call: A call of ``scaled_dot_product_attention`` or ``multi_head_attention_forward``.
        direction: Where the outputs count as positive.

    Returns:
        The values that are mixed (before their projection), and the rule; None for a form that has no rule.

    Source: Ali et al., ICML 2022 (weights of attention as constants).
    """
    if call.name == "scaled_dot_product_attention":
        if call.argument(4, "dropout_p", 0.0):
            return None
        value = call.argument(2, "value")
        query, key = (SavedTensor(call.argument(index, name), call.name) for index, name in ((0, "query"), (1, "key")))
        mask = call.argument(3, "attn_mask")
        settings = {name: call.kwargs[name] for name in ("is_causal", "scale", "enable_gqa") if name in call.kwargs}
        settings |= {"is_causal": call.args[5]} if len(call.args) > 5 else {}

        def mix(values: Tensor) -> Tensor:
            q, k = (as_float(kept()).to(values.dtype) for kept in (query, key))
            bias = mask if mask is None or mask.dtype == torch.bool else as_float(mask).to(values.dtype)
            return torch.nn.functional.scaled_dot_product_attention(q, k, values, bias, **settings)

        return value, make_averaging_rule(mix, value, direction, call.name)
    return _find_packed_rule(call, direction)


def _find_packed_rule(call: TorchCall, direction: Direction) -> tuple[Tensor, RelevanceRule] | None:
    """The rule of nn.MultiheadAttention: through its three steps, values, mixture and output projection."""
    bound = _PACKED.bind(*call.args, **call.kwargs)
    bound.apply_defaults()
    known: dict[str, Any] = dict(bound.arguments)
    if known["bias_k"] is not None or known["bias_v"] is not None or known["add_zero_attn"]:
        return None
    if (known["training"] and known["dropout_p"]) or known["static_k"] is not None or known["static_v"] is not None:
        return None
    value: Tensor = known["value"]
    saved = {name: SavedTensor(known[name], call.name) for name in ("query", "key", "value")}
    heads, width = known["num_heads"], known["embed_dim_to_check"]
    weight = known["v_proj_weight"] if known["use_separate_proj_weight"] else known["in_proj_weight"][2 * width :]
    bias = None if known["in_proj_bias"] is None else known["in_proj_bias"][2 * width :]

    def propagate(relevance: Tensor) -> tuple[Tensor, ...]:
        seen: dict[str, Any] = known | {name: kept() for name, kept in saved.items()}
        seen |= {"need_weights": True, "average_attn_weights": False}
        _, mixture = torch.nn.functional.multi_head_attention_forward(**seen)
        assert mixture is not None
        values = seen["value"]
        batched = values.ndim == 3
        if not batched:
            values, relevance, mixture = values[:, None], relevance[:, None], mixture[None]

        def mix(projected: Tensor) -> Tensor:  # [tokens, batch, width] by heads, and back
            parts = projected.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
            return (mixture.to(projected.dtype) @ parts).permute(2, 0, 1, 3).flatten(2)

        projected = torch.nn.functional.linear(values, weight, bias).detach()
        mixed = mix(projected)
        linear, positive = torch.nn.functional.linear, direction.positive
        assert positive is not None
        steps = (
            (mixed, known["out_proj_weight"], positive if batched else positive[:, None]),
            (projected, None, mixed > 0),
            (values, weight, projected > 0),
        )
        for inputs, matrix, signs in steps:
            own = Direction()
            own.set(signs)
            if matrix is None:
                (relevance,) = make_averaging_rule(mix, inputs, own, call.name)(relevance)
            else:
                (relevance,) = make_weighted_rule(linear, inputs, matrix, own, call.name)(relevance)
        return (relevance if batched else relevance[:, 0],)

    return value, propagate
