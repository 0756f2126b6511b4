"""Find the layers of a network whose output is a spatial map, and its linear head, by running it once."""

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

_BATCH = 2  # images in the trial run; tells the batch axis from windows, heads and tokens


@dataclass(frozen=True)
class SpatialLayer:
    """A layer with a spatial output.

    Attributes:
        info: What users see of it.
        layout: How to read its output.
        calls: How often one forward pass calls it.
    """

    info: LayerInfo
    layout: Layout
    calls: int


@dataclass(frozen=True)
class LayerDiscovery:
    """The result of one trial run.

    Attributes:
        layers: The spatial layers by name, in the order in which their last calls end.
        head: The name of the linear layer (or 1x1 convolution) whose output is the network's output; None if there is
            no such layer.
        outputs: The width K of the network's output if that is ``[batch, K]``, else None.
    """

    layers: Mapping[str, SpatialLayer]
    head: str | None
    outputs: int | None


def discover_layers(
    module: nn.Module, size: Size, channels: int, forward: Callable[[Tensor], Any] | None = None
) -> LayerDiscovery:
    """Run a network on random pixels of its own input size and find its layers and head.

    Args:
        module: The network.
        size: (height, width) of its own input in pixels.
        channels: Number of input channels.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        The layers, the head, and the width of the output.
    """
    trial = _run(module, size, channels, forward)
    layouts = _find_layouts(trial.shapes, size)
    unclear = [
        name for name, layout in layouts.items() if layout.form != "tokens" and layout.channels == layout.grid[0]
    ]
    if unclear:  # [B, 16, 16, 16]: an oblong image tells the channels from the sides
        wide = (size[0], 2 * size[1])
        forms = _find_layouts(_run(module, wide, channels, forward, lenient=True).shapes, wide)
        # If the network fails on such an image before the layer, NCHW is assumed, by far the more common layout.
        layouts |= {name: replace(layouts[name], form=forms[name].form) for name in unclear if name in forms}
    layers = _make_layers(layouts, trial.calls, _find_unwinders(module))
    roles = assign_roles(module, {name: layer.info for name, layer in layers.items()})
    layers = {name: replace(layer, info=replace(layer.info, role=roles[name])) for name, layer in layers.items()}
    return LayerDiscovery(layers, trial.head, trial.outputs)


@dataclass(frozen=True)
class _Run:
    """One trial run; ``shapes`` of each module's last output, in the order in which those calls ended."""

    shapes: dict[str, tuple[int, ...]]
    calls: dict[str, int]
    head: str | None
    outputs: int | None


def follows_input_size(
    module: nn.Module, layer: SpatialLayer, channels: int, canvas: Size, forward: Callable[[Tensor], Any] | None = None
) -> bool:
    """Tell whether a network takes images of another size, and a layer's grid changes with that size.

    Args:
        module: The network.
        layer: The layer.
        channels: Number of input channels.
        canvas: (height, width) of the other input size in pixels.
        forward: A function to call in place of ``module(pixels)``.

    Returns:
        False if the forward pass fails, or if the layer gives no map or one of its usual grid.
    """
    pixels = draw_random_pixels(1, channels, canvas, next(module.parameters(), None))
    name = layer.info.name
    try:
        with evaluation_mode(module), torch.no_grad():
            outputs, _ = capture(module, pixels, {name: layer.calls}, forward=forward)
        activation = read_activation(outputs[name], layer.layout, canvas)
    except Exception:  # whatever the network raises, it does not take this size
        return False
    return activation is not None and tuple(activation.maps.shape[2:]) != layer.info.grid


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
    """Find the tensor that is the network's output.

    Args:
        output: What the network returned.

    Returns:
        The ``logits`` of an output object that has them, else the first tensor; None if there is no tensor.
    """
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    return find_first_tensor(output)


def _find_layouts(shapes: Mapping[str, tuple[int, ...]], size: Size) -> dict[str, Layout]:
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


def _make_layers(
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


def _find_unwinders(module: nn.Module) -> dict[str, Callable[[Tensor], Tensor] | None]:
    """For networks with tokens in an order of their own (Hiera): functions that put a block's tokens on the grid.

    timm's ``reroll`` takes the number of the block, transformers' that of the stage. The value is None for modules
    inside a block, whose tokens cannot be put on the grid.
    """
    unwinders: dict[str, Callable[[Tensor], Tensor] | None] = {}
    for owner_name, owner in module.named_modules():
        reroll = getattr(owner, "reroll", None)
        for list_name, depth in (("blocks", 1), ("stages", 3)):  # stages.0, stages.0.layers.1
            items = getattr(owner, list_name, None)
            if callable(reroll) and isinstance(items, (nn.ModuleList, nn.Sequential)):
                for index, item in enumerate(items):
                    name = ".".join(part for part in (owner_name, list_name, str(index)) if part)
                    for inner, _ in item.named_modules(prefix=name):
                        deep = inner.removeprefix(name).count(".") + 1 > depth
                        unwinders[inner] = None if deep else _bind_reroll(reroll, index)
    return unwinders


def _bind_reroll(reroll: Callable[..., Any], index: int) -> Callable[[Tensor], Tensor]:
    return lambda tokens: reroll(tokens, index)


def _same_memory(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.data_ptr() == b.data_ptr() and a.numel() == b.numel()
