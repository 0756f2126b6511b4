"""Find the layers of a network whose output is a spatial map, and its linear head, by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from encoscope.encoder.capture import OutputLocation, capture, draw_random_pixels, evaluation_mode
from encoscope.encoder.layouts import Layout, Size, TokenLayout, find_map_layout, list_token_grids, read_activation
from encoscope.encoder.module_trial import BATCH, ModuleTrial, OutputKey, run_module_trial
from encoscope.encoder.roles import assign_roles, is_block
from encoscope.encoder.sequences import Sequence, TrialSubject, settle_layouts
from encoscope.encoder.types import LayerInfo

Unwinder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SpatialLayer:
    """A layer with a spatial output.

    Attributes:
        info: What users see of it.
        layout: How to read its output.
        location: Where in a forward pass its tensor is found.
    """

    info: LayerInfo
    layout: Layout
    location: OutputLocation


@dataclass(frozen=True)
class LayerDiscovery:
    """What the trial runs found.

    Attributes:
        layers: The spatial layers by name, in the order in which their last calls end.
        outputs: The width K of the network's output if that is ``[batch, K]``, else None.
        dense: The number of channels of the network's output if that is a map at the image's own resolution, as that
            of a segmentation network; else None.
        unplaced: The modules whose output is a sequence of tokens that respond to where the image changes, and yet lie
            on no grid that could be found, by name with the number of tokens. They are no layers.
        unplaced_blocks: The last of these that is a block and comes after all stages and blocks; None if none does.
    """

    layers: Mapping[str, SpatialLayer]
    outputs: int | None
    dense: int | None = None
    unplaced: Mapping[str, int] = field(default_factory=dict)
    unplaced_blocks: tuple[str, int] | None = None


def discover_layers(
    module: nn.Module,
    size: Size,
    channels: int,
    forward: Callable[[Tensor], Any] | None = None,
    token_layout: TokenLayout | None = None,
) -> LayerDiscovery:
    """Run a network on images of its own input size and find its layers.

    The first run, on noise, gives the shapes of all outputs. The second, on images that differ in parts, tells where
    tokens lie; a network without sequences of tokens and without maps that have their channels last needs none.

    Args:
        module: The network.
        size: (height, width) of its own input in pixels.
        channels: Number of input channels.
        forward: A function to call in place of ``module(pixels)``.
        token_layout: Where the patch tokens stand, if the user states it.

    Returns:
        The layers, and what is no layer though it responds to the image.

    Raises:
        UsageError: If no layer has the stated token layout.
    """
    trial = run_module_trial(module, size, channels, forward)
    layouts, sequences = _read_shapes(trial, size, _find_unwinders(module))
    subject = TrialSubject(module, forward or module, trial.locations, (channels, *size))
    layouts, unplaced = settle_layouts(subject, layouts, sequences, token_layout)
    layers = _make_layers({key: layouts[key] for key in trial.shapes if key in layouts}, trial)
    infos = {name: layer.info for name, layer in layers.items()}
    roles = assign_roles(module, infos, trial.followers, trial.outputs, trial.dense)
    layers = {name: replace(layer, info=replace(layer.info, role=roles[name])) for name, layer in layers.items()}
    layers = dict(_add_functions(layers, trial))
    blocks = _find_unplaced_blocks(module, layers, unplaced, list(dict.fromkeys(name for name, _ in trial.shapes)))
    return LayerDiscovery(layers, trial.outputs, trial.dense, unplaced, blocks)


def _add_functions(layers: Mapping[str, SpatialLayer], trial: ModuleTrial) -> Iterator[tuple[str, SpatialLayer]]:
    """The layers, and after each that the network reads after functions the layer that these give, in its role."""
    for name, layer in layers.items():
        functions = trial.functions.get(name, ())
        if functions:
            after = f"{name}#{functions[-1]}"
            yield name, replace(layer, info=replace(layer.info, role="inner", followed_by=functions[-1]))
            location = replace(layer.location, functions=functions)
            yield after, replace(layer, info=replace(layer.info, name=after), location=location)
        else:
            yield name, layer


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
            outputs, _ = capture(module, pixels, {name: layer.location}, forward=forward)
        activation = read_activation(outputs[name], layer.layout, canvas)
    except Exception:  # whatever the network raises, it does not take this size
        return False
    return activation is not None and tuple(activation.maps.shape[2:]) != layer.info.grid


def _read_shapes(
    trial: ModuleTrial, size: Size, unwinders: Mapping[str, Unwinder | None]
) -> tuple[dict[OutputKey, Layout], dict[OutputKey, Sequence]]:
    """The layouts of maps as their shapes tell them, and the sequences of tokens."""
    layouts: dict[OutputKey, Layout] = {}
    sequences: dict[OutputKey, Sequence] = {}
    grids: set[Size] = set()
    lengths: set[int] = set()
    for key, shape in trial.shapes.items():
        layout = find_map_layout(shape, BATCH, size, grids, lengths)
        if layout is not None:
            grids.add(layout.grid)
            layouts[key] = layout
        if len(shape) != 3 or BATCH not in shape[:2]:
            continue
        batch_first = shape[0] == BATCH
        count = shape[1] if batch_first else shape[0]
        lengths.add(count)
        candidates = list_token_grids(count, size, grids)
        if key[0] not in unwinders:
            sequences[key] = Sequence(count, shape[2], batch_first, tuple(candidates))
            continue
        unwind = unwinders[key[0]]
        own = [grid for grid in candidates if grid[0] * grid[1] == count]
        if unwind is not None and own:
            layouts[key] = Layout("tokens", shape[2], own[0], size, batch_first=batch_first, unwind=unwind)
    return layouts, sequences


def _make_layers(layouts: Mapping[OutputKey, Layout], trial: ModuleTrial) -> dict[str, SpatialLayer]:
    """The layers by name: the module's name, and ``NAME#i`` for each map of a module that gives several."""
    count: dict[str, int] = {}
    for name, _ in layouts:
        count[name] = count.get(name, 0) + 1
    layers: dict[str, SpatialLayer] = {}
    for key, layout in layouts.items():
        module, index = key
        name = module if count[module] == 1 else f"{module}#{index}"
        kind = "tokens" if layout.form == "tokens" else "map"
        info = LayerInfo(name, kind, layout.channels, layout.grid, layout.prefix)
        layers[name] = SpatialLayer(info, layout, trial.locations[key])
    return layers


def _find_unplaced_blocks(
    module: nn.Module, layers: Mapping[str, SpatialLayer], unplaced: Mapping[str, int], order: list[str]
) -> tuple[str, int] | None:
    main = [layer.location.module for layer in layers.values() if layer.info.role in ("stage", "block")]
    last = max((order.index(name) for name in main), default=-1)
    blocks = [name for name in unplaced if order.index(name) > last and is_block(module, name)]
    return (blocks[-1], unplaced[blocks[-1]]) if blocks else None


def _find_unwinders(module: nn.Module) -> dict[str, Unwinder | None]:
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
