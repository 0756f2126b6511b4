"""Keys and attention of a transformer's block, found by how attention is built: timm, torch.hub, transformers."""

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
from encoscope.errors import UsageError, suggest_nearest
from encoscope.images import Batch

# query, key: timm and EVA, transformers 5 and CLIP; transformers 4 and BEiT
_SPLIT = (("q_proj", "k_proj"), ("query", "key"))
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_POSITIONS = ("rope", "position_embeddings", "rotary_pos_emb")  # arguments that turn queries and keys


@dataclass(frozen=True, eq=False)
class AttentionKeys:
    """What the attention of one block compares, for a batch.

    keys: of every head and token, as the block's key projection gives them (before any rotation by position).
    attention: from token (third axis) to token, rows summing to 1; None where it depends on more than queries and keys
    (rotary or relative positions). prefix: tokens before the patches. grid: (rows, columns) of the patches.
    """

    name: str
    keys: Float[Tensor, "batch heads tokens width"]
    attention: Float[Tensor, "batch heads tokens tokens"] | None
    prefix: int
    grid: tuple[int, int]


def read_attention_keys(encoder: Encoder, batch: Batch | Tensor, layer: str | None = None) -> AttentionKeys:
    """Keys and attention of a block of a vision transformer.

    batch: from ``encoder.prepare``, or a normalised tensor [B, C, H, W]. layer: an attention module or the block
    around it, such as "blocks.11"; the last one if left out.

    Raises:
        UsageError: the network has no such attention (a CNN, windows, attention in plain functions), or an unknown
            layer.
    """
    name, module = _find(encoder, layer)
    _ = encoder.layers  # found by a trial run, which must not be watched
    seen: list[_Seen] = []
    with removing_hooks([]) as handles:
        handles.append(module.register_forward_pre_hook(_watch(module, seen), with_kwargs=True))
        if not isinstance(module, nn.MultiheadAttention):
            for role, child in _projections(module):
                handles.append(child.register_forward_hook(_keep(seen, role)))
        encoder.features(batch)
    pixels = batch.pixels if isinstance(batch, Batch) else batch
    if not seen or any(not one.projected for one in seen):
        raise UsageError(f"{name} of {encoder.source} does not call its key projection as a module")
    parts = [_keys(module, one) for one in seen]
    keys = torch.cat([key for key, _ in parts])
    attention = [attended for _, attended in parts if attended is not None]
    prefix, grid = _place(encoder, name, keys, (pixels.shape[0], pixels.shape[2], pixels.shape[3]))
    return AttentionKeys(name, keys, torch.cat(attention) if len(attention) == len(parts) else None, prefix, grid)


@dataclass
class _Seen:
    """One call of the attention module: what its projections put out, and whether positions take part."""

    projected: dict[str, Tensor]
    positions: bool


def _watch(module: nn.Module, seen: list[_Seen]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        turned = any(kwargs.get(name) is not None for name in _POSITIONS)
        seen.append(_Seen({}, turned))
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
            seen[-1].projected |= {"query": query.detach(), "key": key.detach()}

    return hook


def _keep(seen: list[_Seen], role: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        if seen:
            seen[-1].projected[role] = output.detach()

    return hook


def _projections(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The linear layers that make queries and keys, by role; empty for a module that is no attention."""
    fused = getattr(module, "qkv", None)
    if isinstance(fused, nn.Linear):
        return [("qkv", fused)]
    for names in _SPLIT:
        found = [getattr(module, name, None) for name in names]
        if all(isinstance(child, nn.Linear) for child in found):
            return [(role, child) for role, child in zip(("query", "key"), found, strict=True) if child is not None]
    return []


def _heads(module: nn.Module) -> int | None:
    return next((value for name in _HEADS if isinstance(value := getattr(module, name, None), int)), None)


def _find(encoder: Encoder, layer: str | None) -> tuple[str, nn.Module]:
    found = {
        name: module
        for name, module in encoder.module.named_modules()
        if isinstance(module, nn.MultiheadAttention) or (_projections(module) and _heads(module))
    }
    if not found:
        raise UsageError(f"{encoder.source} has no attention with queries and keys: take a vision transformer")
    if layer is None:
        return list(found.items())[-1]
    inside = [name for name in found if name == layer or name.startswith(f"{layer}.")]
    if len(inside) != 1:
        which = f"has {len(inside)}, not one" if inside else f"is not among them{suggest_nearest(layer, found)}"
        raise UsageError(f"layer {layer!r}: of the attention modules of {encoder.source} it {which}")
    return inside[0], found[inside[0]]


def _keys(module: nn.Module, seen: _Seen) -> tuple[Tensor, Tensor | None]:
    """[B, heads, N, d] and [B, heads, N, N] of one call."""
    heads = _heads(module)
    assert heads is not None
    if "qkv" in seen.projected:
        fused = seen.projected["qkv"]
        query, key = fused.unflatten(-1, (3, -1))[..., :2, :].unbind(-2)
    else:
        query, key = seen.projected["query"], seen.projected["key"]
    if key.ndim != 3:
        raise UsageError(f"the keys have shape {tuple(key.shape)}, not one sequence of tokens an image")
    query, key = (values.float().unflatten(-1, (heads, -1)).transpose(1, 2) for values in (query, key))
    # the keys that are compared: after their norm, where the network has one (timm's qk_norm)
    query, key = (_normed(module, name, values) for name, values in (("q_norm", query), ("k_norm", key)))
    if seen.positions or _positional(module):
        return key, None
    scale = next((s for s in (getattr(module, n, None) for n in ("scale", "scaling")) if isinstance(s, float)), None)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(key.shape[-1]) if scale is None else scale)
    return key, scores.softmax(-1)


def _normed(module: nn.Module, name: str, values: Tensor) -> Tensor:
    norm = getattr(module, name, None)
    if not isinstance(norm, nn.Module) or isinstance(norm, nn.Identity):
        return values
    with torch.no_grad():
        return norm(values.to(next((p.dtype for p in norm.parameters()), values.dtype))).float()


def _positional(module: nn.Module) -> bool:
    names = [name for name, _ in _members(module)]
    return any("relative_position" in name or "rel_pos" in name for name in names)


def _members(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
    yield from module.named_children()


def _place(encoder: Encoder, name: str, keys: Tensor, canvas: tuple[int, int, int]) -> tuple[int, tuple[int, int]]:
    """Prefix tokens and patch grid of the keys' tokens, from the layer they belong to."""
    images, *sides = canvas
    infos = {info.name: info for info in encoder.layers if info.kind == "tokens"}
    around = [".".join(name.split(".")[:length]) for length in range(name.count(".") + 1, 0, -1)]
    info = next((infos[outer] for outer in around if outer in infos), None)
    if info is None or keys.shape[0] != images:
        raise UsageError(
            f"{name} of {encoder.source} does not attend over all patches of an image ({keys.shape[0]} sequences of "
            f"{keys.shape[2]} tokens for {images} images): take a plain vision transformer"
        )
    rows, columns = (
        max(1, side * cells // own) for side, cells, own in zip(sides, info.grid, encoder.preprocess.size, strict=True)
    )
    if keys.shape[2] != info.prefix + rows * columns:
        raise UsageError(f"{name} has {keys.shape[2]} tokens, not {info.prefix} and a grid of {rows} x {columns}")
    return info.prefix, (rows, columns)
