"""Find the layers of a network that hold a spatial map, and its linear head, by running it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import capture, draw_random_pixels, evaluation_mode, find_first_tensor, removing_hooks
from encoscope.encoder.layouts import Layout, Size, find_layout, read_activation
from encoscope.encoder.roles import assign_roles
from encoscope.encoder.types import LayerInfo

_BATCH = 2  # in the trial run; tells the batch axis from windows, heads and tokens


@dataclass(frozen=True)
class SpatialLayer:
    """A spatial layer: what users see of it, how to read its output, and how often a forward pass calls it."""

    info: LayerInfo
    layout: Layout
    calls: int


@dataclass(frozen=True)
class LayerDiscovery:
    """What one trial run showed.

    layers: by name, in the network's order (that of their last call's end).
    head: name of the linear layer (or 1x1 convolution) whose output is the network's output, or None.
    outputs: width K of the network's output if that is [B, K], else None.
    """

    layers: Mapping[str, SpatialLayer]
    head: str | None
    outputs: int | None


def discover_layers(
    module: nn.Module, size: Size, channels: int, forward: Callable[[Tensor], Any] | None = None
) -> LayerDiscovery:
    """Run the network on a seeded batch of its own input size and read off its layers."""
    seen = _run(module, size, channels, forward)
    layouts = _layouts(seen.shapes, size)
    unclear = [name for name, found in layouts.items() if found.form != "tokens" and found.channels == found.grid[0]]
    if unclear:  # [B, 16, 16, 16]: an oblong image tells the channels from the sides
        wide = (size[0], 2 * size[1])
        forms = _layouts(_run(module, wide, channels, forward, lenient=True).shapes, wide)
        # NCHW, by far the more common, where the network does not get as far with such an image.
        layouts |= {name: replace(layouts[name], form=forms[name].form) for name in unclear if name in forms}
    layers = _layers(layouts, seen.calls, _unwinders(module))
    roles = assign_roles(module, {name: layer.info for name, layer in layers.items()})
    layers = {name: replace(layer, info=replace(layer.info, role=roles[name])) for name, layer in layers.items()}
    return LayerDiscovery(layers, seen.head, seen.outputs)


@dataclass(frozen=True)
class _Run:
    """One trial run: the shape of each module's last output, in the order in which those calls ended."""

    shapes: dict[str, tuple[int, ...]]
    calls: dict[str, int]
    head: str | None
    outputs: int | None


def follows_input_size(
    module: nn.Module, layer: SpatialLayer, channels: int, canvas: Size, forward: Callable[[Tensor], Any] | None = None
) -> bool:
    """Whether the network takes images of another size, and the layer's grid changes with it."""
    pixels = draw_random_pixels(1, channels, canvas, next(module.parameters(), None))
    name = layer.info.name
    try:
        with evaluation_mode(module), torch.no_grad():
            kept, _ = capture(module, pixels, {name: layer.calls}, forward=forward)
        found = read_activation(kept[name], layer.layout, canvas)
    except Exception:  # whatever the network raises, it does not take this size
        return False
    return found is not None and tuple(found.maps.shape[2:]) != layer.info.grid


def _run(
    module: nn.Module, size: Size, channels: int, forward: Callable[[Tensor], Any] | None, lenient: bool = False
) -> _Run:
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}
    linear: dict[str, Tensor] = {}  # kept alive, so that the same memory means the same tensor
    names = {child: name for name, child in module.named_modules() if name}

    def note(child: nn.Module, _args: Any, output: Any) -> None:
        tensor = find_first_tensor(output)
        if tensor is None:
            return
        name = names[child]
        calls[name] = calls.get(name, 0) + 1
        shapes.pop(name, None)
        shapes[name] = tuple(tensor.shape)
        if isinstance(child, (nn.Linear, nn.Conv2d)) and tensor.flatten(1).shape[1] == tensor.shape[1]:
            linear[name] = tensor

    pixels = draw_random_pixels(_BATCH, channels, size, next(module.parameters(), None))
    output = None
    with evaluation_mode(module), torch.no_grad(), removing_hooks([]) as handles:
        handles.extend(child.register_forward_hook(note) for child in names)
        with suppress(Exception) if lenient else nullcontext():
            output = find_output_tensor((forward or module)(pixels))

    wide = output is not None and output.ndim == 2 and output.shape[0] == _BATCH
    head = next((name for name, tensor in linear.items() if wide and _same_memory(tensor, output)), None)
    return _Run(shapes, calls, head, output.shape[1] if output is not None and wide else None)


def find_output_tensor(output: Any) -> Tensor | None:
    """The network's answer: ``logits`` where an output object has them, else its first tensor."""
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    return find_first_tensor(output)


def _layouts(shapes: Mapping[str, tuple[int, ...]], size: Size) -> dict[str, Layout]:
    layouts: dict[str, Layout] = {}
    grids: set[Size] = set()
    lengths: set[int] = set()
    for name, shape in shapes.items():
        layout = find_layout(shape, _BATCH, size, grids, lengths)
        if layout is None:
            continue
        if layout.form == "tokens":
            lengths.add(layout.prefix + layout.grid[0] * layout.grid[1])
        else:
            grids.add(layout.grid)
        layouts[name] = layout
    return layouts


def _layers(
    layouts: Mapping[str, Layout],
    calls: Mapping[str, int],
    unwinders: Mapping[str, Callable[[Tensor], Tensor] | None],
) -> dict[str, SpatialLayer]:
    layers: dict[str, SpatialLayer] = {}
    for name, layout in layouts.items():
        kind = "tokens" if layout.form == "tokens" else "map"
        if kind == "tokens" and name in unwinders:
            unwind = unwinders[name]
            if unwind is None:
                continue
            layout = replace(layout, unwind=unwind)
        layers[name] = SpatialLayer(
            LayerInfo(name, kind, layout.channels, layout.grid, layout.prefix), layout, calls[name]
        )
    return layers


def _unwinders(module: nn.Module) -> dict[str, Callable[[Tensor], Tensor] | None]:
    """For networks with tokens in an order of their own (Hiera): how each block's output is put back on the grid.

    timm's ``reroll`` takes the number of the block, transformers' that of the stage. None stands for modules inside
    a block, whose tokens have no such way back.
    """
    found: dict[str, Callable[[Tensor], Tensor] | None] = {}
    for owner_name, owner in module.named_modules():
        reroll = getattr(owner, "reroll", None)
        for list_name, depth in (("blocks", 1), ("stages", 3)):  # stages.0, stages.0.layers.1
            items = getattr(owner, list_name, None)
            if callable(reroll) and isinstance(items, (nn.ModuleList, nn.Sequential)):
                for index, item in enumerate(items):
                    name = ".".join(part for part in (owner_name, list_name, str(index)) if part)
                    for inner, _ in item.named_modules(prefix=name):
                        deep = inner.removeprefix(name).count(".") + 1 > depth
                        found[inner] = None if deep else _reroll(reroll, index)
    return found


def _reroll(reroll: Callable[..., Any], index: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: reroll(tokens, index)


def _same_memory(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.data_ptr() == b.data_ptr() and a.numel() == b.numel()
