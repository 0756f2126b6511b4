"""Read keys and attention of a transformer's block, whichever way timm, torch.hub and transformers build it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from encoscope.encoder import Encoder
from encoscope.encoder.capture import removing_hooks
from encoscope.encoder.lock import hold_module
from encoscope.encoder.roles import module_of
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import Batch

# query, key: timm and EVA, transformers 5 and CLIP; transformers 4 and BEiT
_SPLIT = (("q_proj", "k_proj"), ("query", "key"))
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_POSITIONS = ("rope", "position_embeddings", "rotary_pos_emb")  # arguments that rotate queries and keys


@dataclass(frozen=True, eq=False)
class AttentionKeys:
    """Keys and attention of one block for a batch.

    Attributes:
        name: The name of the attention module.
        keys: The keys of every head and token, as the block's key projection gives them, before any rotation by
            position.
        attention: The attention of each token (third axis) to each token (fourth axis); rows sum to 1. None if it
            depends on more than queries and keys (rotary or relative positions).
        prefix: Number of tokens that belong to no patch; they come first, then the patches in row-major order.
        grid: (rows, columns) of the patches.
    """

    name: str
    keys: Float[Tensor, "batch heads tokens width"]
    attention: Float[Tensor, "batch heads tokens tokens"] | None
    prefix: int
    grid: tuple[int, int]


def read_attention_keys(encoder: Encoder, batch: Batch | Tensor, layer: str | None = None) -> AttentionKeys:
    """Read keys and attention of a block of a vision transformer.

    Args:
        encoder: The encoder.
        batch: From ``encoder.prepare``, or a normalized tensor ``[batch, channels, height, width]``.
        layer: The name of an attention module or of the block around it, such as "blocks.11"; None takes the last.

    Returns:
        The keys and, if queries and keys alone determine it, the attention.

    Raises:
        UsageError: For an unknown layer, and for a network without such attention (a CNN, attention in windows, or
            attention in plain functions).
    """
    name, module = _find_attention(encoder, layer)
    _ = encoder.layers, encoder.outputs  # the trial runs that find them must not be recorded
    recorded: list[_AttentionCall] = []
    with hold_module(encoder.module), removing_hooks([]) as handles:
        handles.append(module.register_forward_pre_hook(_record_call(module, recorded), with_kwargs=True))
        if not isinstance(module, nn.MultiheadAttention):
            for role, child in _projections(module):
                handles.append(child.register_forward_hook(_record_projection(recorded, role)))
        encoder.features(batch)
    pixels = batch.pixels if isinstance(batch, Batch) else batch
    if not recorded or any(not call.projected for call in recorded):
        raise UsageError(f"{name} of {encoder.source} does not call its key projection as a module")
    results = [_compute_keys(module, call) for call in recorded]
    keys = torch.cat([key for key, _ in results])
    attention = [attended for _, attended in results if attended is not None]
    key_order = _find_order(encoder, name, keys, (pixels.shape[0], pixels.shape[2], pixels.shape[3]))
    keys = keys[:, :, key_order.order]
    attended = (
        torch.cat(attention)[:, :, key_order.order][:, :, :, key_order.order]
        if len(attention) == len(results)
        else None
    )
    return AttentionKeys(name, keys, attended, key_order.prefix, key_order.grid)


@dataclass(frozen=True)
class _KeyOrder:
    """The order that puts tokens of no cell first and then the patches in row-major order, and how many are which."""

    order: list[int]
    prefix: int
    grid: tuple[int, int]


@dataclass
class _AttentionCall:
    """One call of the attention module: its projections' outputs, and whether positions take part."""

    projected: dict[str, Tensor]
    positions: bool


def _record_call(module: nn.Module, recorded: list[_AttentionCall]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rotated = any(kwargs.get(name) is not None for name in _POSITIONS)
        recorded.append(_AttentionCall({}, rotated))
        if isinstance(module, nn.MultiheadAttention):
            tokens = args[0] if args else kwargs["query"]
            keys = args[1] if len(args) > 1 else kwargs["key"]
            if module.in_proj_weight is None:
                return
            width = module.embed_dim
            biases = (None, None) if module.in_proj_bias is None else module.in_proj_bias.split(width)[:2]
            query, key = (
                linear(values, weight, bias)
                for values, weight, bias in zip(
                    (tokens, keys), module.in_proj_weight.split(width), biases, strict=False
                )
            )
            if not module.batch_first:
                query, key = query.transpose(0, 1), key.transpose(0, 1)
            recorded[-1].projected |= {"query": query.detach(), "key": key.detach()}

    return hook


def _record_projection(recorded: list[_AttentionCall], role: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        if recorded:
            recorded[-1].projected[role] = output.detach()

    return hook


def _projections(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The linear layers that make queries and keys, by role; empty for a module without attention."""
    fused = getattr(module, "qkv", None)
    if isinstance(fused, nn.Linear):
        return [("qkv", fused)]
    for names in _SPLIT:
        children = [getattr(module, name, None) for name in names]
        if all(isinstance(child, nn.Linear) for child in children):
            return [(role, child) for role, child in zip(("query", "key"), children, strict=True) if child is not None]
    return []


def _count_heads(module: nn.Module) -> int | None:
    return next((value for name in _HEADS if isinstance(value := getattr(module, name, None), int)), None)


def _find_attention(encoder: Encoder, layer: str | None) -> tuple[str, nn.Module]:
    modules = {
        name: module
        for name, module in encoder.module.named_modules()
        if isinstance(module, nn.MultiheadAttention) or (_projections(module) and _count_heads(module))
    }
    if not modules:
        raise UsageError(f"{encoder.source} has no attention with queries and keys: use a vision transformer")
    if layer is None:
        return list(modules.items())[-1]
    inside = [name for name in modules if name == layer or name.startswith(f"{layer}.")]
    if len(inside) != 1:
        reason = (
            f"holds {len(inside)} attention modules, not one"
            if inside
            else f"is none of the attention modules{suggest_nearest(layer, modules)}"
        )
        raise UsageError(f"layer {layer!r} of {encoder.source} {reason}")
    return inside[0], modules[inside[0]]


def _compute_keys(module: nn.Module, call: _AttentionCall) -> tuple[Tensor, Tensor | None]:
    """[B, heads, N, d] and [B, heads, N, N] of one call."""
    heads = _count_heads(module)
    if heads is None:
        raise UsageError(f"{type(module).__name__} does not say how many heads it has")
    if "qkv" in call.projected:
        fused = call.projected["qkv"]
        query, key = fused.unflatten(-1, (3, -1))[..., :2, :].unbind(-2)
    else:
        query, key = call.projected["query"], call.projected["key"]
    if key.ndim != 3:
        raise UsageError(f"the keys have shape {tuple(key.shape)}, not [images, tokens, channels]")
    query, key = (values.float().unflatten(-1, (heads, -1)).transpose(1, 2) for values in (query, key))
    # after their norm, if the network has one (timm's qk_norm)
    query, key = (_apply_norm(module, name, values) for name, values in (("q_norm", query), ("k_norm", key)))
    if call.positions or _has_positions(module):
        return key, None
    scale = next((s for s in (getattr(module, n, None) for n in ("scale", "scaling")) if isinstance(s, float)), None)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(key.shape[-1]) if scale is None else scale)
    return key, scores.softmax(-1)


def _apply_norm(module: nn.Module, name: str, values: Tensor) -> Tensor:
    norm = getattr(module, name, None)
    if not isinstance(norm, nn.Module) or isinstance(norm, nn.Identity):
        return values
    with torch.no_grad():
        return norm(values.to(next((p.dtype for p in norm.parameters()), values.dtype))).float()


def _has_positions(module: nn.Module) -> bool:
    names = [name for name, _ in _list_members(module)]
    return any("relative_position" in name or "rel_pos" in name for name in names)


def _list_members(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
    yield from module.named_children()


def _find_order(encoder: Encoder, name: str, keys: Tensor, canvas: tuple[int, int, int]) -> _KeyOrder:
    """Where the keys lie on the image, from the layer that they belong to."""
    images, *sides = canvas
    infos = {module_of(info.name): info for info in encoder.layers if info.kind == "tokens"}
    around = [".".join(name.split(".")[:length]) for length in range(name.count(".") + 1, 0, -1)]
    info = next((infos[outer] for outer in around if outer in infos), None)
    if info is None or keys.shape[0] != images:
        raise UsageError(
            f"{name} of {encoder.source} does not attend over all patches of an image ({keys.shape[0]} sequences of "
            f"{keys.shape[2]} tokens for {images} images): use a plain vision transformer"
        )
    grid, order = encoder.order_tokens(info.name, (sides[0], sides[1]), keys.shape[2])
    return _KeyOrder(order, info.prefix, grid)
