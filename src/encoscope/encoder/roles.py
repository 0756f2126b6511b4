"""Find which layers are stages, blocks and stem, from the structure of the network alone.

The *trunk* is the chain of outermost modules through which the map passes: the root's children. A module that
contains several resolutions (``features``, ``blocks``, ``encoder``) is replaced by its own children. A hierarchical
network's stages are the last trunk modules at each resolution, each read where the network reads it: after the norm and
activation that follow it in the trunk. A network whose tokens keep one grid has no stages; its blocks are the repeated
modules of its containers. A module that gives several maps stands in the trunk with each of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from encoscope.encoder.types import LayerInfo, LayerRole


def module_of(layer: str) -> str:
    """Give the name of the module that a layer is an output of.

    Args:
        layer: The layer's name: the module's, ``NAME#i`` for one of several outputs, or ``NAME#relu`` for what a
            function gives that the network applies to the module's output.

    Returns:
        The module's name.
    """
    return layer.partition("#")[0]


def assign_roles(
    module: nn.Module,
    layers: Mapping[str, LayerInfo],
    followers: Mapping[str, Sequence[str]] | None = None,
    outputs: int | None = None,
    dense: int | None = None,
) -> dict[str, LayerRole]:
    """Find the role of every layer.

    Args:
        module: The network.
        layers: Its spatial layers by name, in the network's order.
        followers: For each module those that read its output as it is.
        outputs: Number of the network's outputs; maps of so many channels, made by a single convolution, belong to its
            classifier.
        dense: Number of channels of an output that is a map at the image's own resolution; the last parts of the trunk
            with as many channels give that map, and are no stages.

    Returns:
        The role of each layer by name.
    """
    network = _Network(module, layers, followers or {}, outputs)
    trunk = network.find_trunk()
    while len(trunk) > 1 and layers[trunk[-1]].channels == dense:
        trunk.pop()
    stem = network.find_stem(trunk)
    roles: dict[str, LayerRole] = dict.fromkeys(layers, "inner")
    blocks = [name for name in network.find_blocks(trunk) if name != stem]
    for name in blocks:
        roles[name] = "block"
    if not (blocks and network.keeps_one_grid(trunk, stem)):
        for name in network.find_stages(trunk, stem):
            roles[network.find_reading(name, trunk)] = "stage"
    if stem is not None and roles[stem] == "inner":
        roles[stem] = "stem"
    return roles


def is_block(module: nn.Module, name: str) -> bool:
    """Tell whether a module is an item of a Sequential or ModuleList and made of other modules.

    Args:
        module: The network.
        name: The module's name.

    Returns:
        Whether it is.
    """
    return _is_list(module.get_submodule(name.rpartition(".")[0])) and _is_composite(module.get_submodule(name))


class _Network:
    """The modules with a spatial output and how they nest."""

    def __init__(
        self,
        module: nn.Module,
        layers: Mapping[str, LayerInfo],
        followers: Mapping[str, Sequence[str]],
        outputs: int | None,
    ) -> None:
        self.module = module
        self.layers = layers
        self.followers = followers
        self.outputs = outputs
        self.main: dict[str, str] = {}  # the first layer of each module
        for name in layers:
            self.main.setdefault(module_of(name), name)
        self.children: dict[str, list[str]] = defaultdict(list)  # by the nearest enclosing module; "" is the network
        for name in layers:
            self.children[self._enclosing(name)].append(name)

    def find_trunk(self) -> list[str]:
        """The outermost layers; a layer with several resolutions is replaced by its children."""

        def expand(name: str, alone: bool) -> Iterator[str]:
            inside = self.children[module_of(name)]
            if name and not self._is_container(name, inside, alone):
                yield name
                return
            if name and name != self.main[module_of(name)]:
                return
            composite = [child for child in inside if _is_composite(self.get(child))]
            for child in inside:
                yield from expand(child, alone=composite == [child])

        return list(expand("", alone=True))

    def _is_container(self, name: str, inside: list[str], alone: bool) -> bool:
        """Whether a layer only contains stages, so that its children replace it in the trunk."""
        main = self.main[module_of(name)]
        if name not in self.main:  # one of several outputs: the module is a container if no item of its gives the first
            items = [child for child in inside if self._is_item(child) and _is_list(self._parent(child))]
            return bool(items) and all(self.layers[item].grid != self.layers[main].grid for item in items)
        grids = {self.layers[child].grid for child in inside}
        if len(grids) > 2 or (alone and len(grids) > 1):
            return True
        if alone and not _is_list(self.get(name)) and self.repeats(name):
            return True
        # Blocks and then a downsampling step, as in transformers' Swin: the stage's output is the blocks', before it.
        items = [child for child in inside if self._is_item(child) and _is_list(self._parent(child))]
        return not _is_list(self.get(name)) and any(self.layers[item].grid != self.layers[name].grid for item in items)

    def find_stem(self, trunk: list[str]) -> str | None:
        """The first trunk layer with weights; None if it has the class of the next one and so is a stage itself."""
        weighted = [name for name in trunk if _has_weights(self.get(name))]
        if not weighted:
            return None
        first, *others = (self.get(name) for name in weighted)
        composite = next((other for other in others if _is_composite(other)), None)
        alike = _is_composite(first) and not _is_list(first) and type(first) is type(composite)
        return None if alike else weighted[0]

    def find_stages(self, trunk: list[str], stem: str | None) -> list[str]:
        """The last composite trunk layer at each resolution after the stem; if there is none, the last with weights."""
        by_grid: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in trunk:
            by_grid[self.layers[name].grid].append(name)
        composite = [
            [name for name in names if name != stem and _is_composite(self.get(name))] for names in by_grid.values()
        ]
        if any(composite):
            first = next(index for index, name in enumerate(trunk) if any(name in names for names in composite))
            after = trunk[first:]  # convolutions before belong to the stem
            steps = [
                [name for name in names if name in inside or (name in after and self._is_unit(name, trunk))]
                for names, inside in zip(by_grid.values(), composite, strict=True)
            ]
            return [names[-1] for names in steps if names]
        return [names[-1] for names in by_grid.values() if any(_has_weights(self.get(name)) for name in names)]

    def find_reading(self, name: str, trunk: list[str]) -> str:
        """Where the network reads a stage: after the norms and activations that follow it in the trunk."""
        following = (
            other
            for other in self.followers.get(module_of(name), ())
            if other in trunk and _shape(self.layers[other]) == _shape(self.layers[name])
        )
        after = next((other for other in following if _is_norm_or_activation(self.get(other))), None)
        return name if after is None else self.find_reading(after, [other for other in trunk if other != after])

    def _is_unit(self, name: str, trunk: list[str]) -> bool:
        """Whether a single convolution with its norm and activation is a step of the trunk, and not its classifier."""
        info = self.layers[name]
        single = _has_weights(self.get(name)) and not _is_composite(self.get(name))
        return single and info.channels != self.outputs and self.find_reading(name, trunk) != name

    def find_blocks(self, trunk: list[str]) -> list[str]:
        """The repeated composite items of Sequentials and ModuleLists whose output has the shape of the trunk's."""
        blocks: list[str] = []
        for index, name in enumerate(trunk):
            if _is_list(self._parent(name)) and self._is_item(name) and not self.repeats(name):
                alike = [other for other in trunk if type(self.get(other)) is type(self.get(name)) and other != name]
                if any(_shape(self.layers[other]) == _shape(self.layers[name]) for other in [*trunk[:index], *alike]):
                    # A step between stages has a shape that no layer before it and none of its class has.
                    blocks.append(name)
                continue
            here: list[str] = []
            for items in self._lists(name):
                here += [item for item in items if not any(item.startswith(f"{outer}.") for outer in here)]
            info = self.layers[name]
            blocks += [item for item in here if _shape(self.layers[item]) == _shape(info)]
        return [name for name in self.layers if name in set(blocks)]

    def keeps_one_grid(self, trunk: list[str], stem: str | None) -> bool:
        """Whether the network has one grid throughout (ViT, Mixer), except in its stem."""
        main = [self.layers[name] for name in trunk if name != stem and _is_composite(self.get(name))]
        return bool(main) and all(info.grid == main[-1].grid for info in main if info.kind == main[-1].kind)

    def repeats(self, name: str) -> bool:
        """Whether a container in the layer repeats one class at the layer's resolution: a stage then, not a block."""
        for items in self._lists(name):
            classes = [type(self.get(item)) for item in items if self.layers[item].grid == self.layers[name].grid]
            if len(classes) > len(set(classes)):
                return True
        return False

    def get(self, name: str) -> nn.Module:
        return self.module.get_submodule(module_of(name))

    def _parent(self, name: str) -> nn.Module:
        return self.get(module_of(name).rpartition(".")[0])

    def _enclosing(self, name: str) -> str:
        name = module_of(name)
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self.main:
                return name
        return ""

    def _lists(self, name: str) -> Iterator[list[str]]:
        """The composite items of each container in a layer, the outer containers first."""
        for key, owner in self.get(name).named_modules(prefix=module_of(name)):
            if _is_list(owner):
                yield [
                    item for item in (f"{key}.{child}" for child, _ in owner.named_children()) if self._is_item(item)
                ]

    def _is_item(self, name: str) -> bool:
        return name in self.layers and _is_composite(self.get(name)) and not _is_list(self.get(name))


def _shape(info: LayerInfo) -> tuple[int, tuple[int, int]]:
    return info.channels, info.grid


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))


def _is_composite(module: nn.Module) -> bool:
    """Made of other modules, with a matrix or kernel among their parameters (unlike a norm with its activation)."""
    return any(True for _ in module.children()) and _has_weights(module)


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _is_norm_or_activation(module: nn.Module) -> bool:
    """Whether a module has no matrix or kernel and is no layer norm, which belongs to what follows residual sums.

    A module that only passes on what it gets, such as Identity, is none either.
    """
    leaves = [each for each in module.modules() if not any(True for _ in each.children()) and not _is_list(each)]
    idle = all(isinstance(each, (nn.Identity, nn.modules.dropout._DropoutNd)) for each in leaves)
    return (
        not idle
        and not _has_weights(module)
        and not any(isinstance(each, (nn.LayerNorm, nn.RMSNorm)) for each in leaves)
    )
