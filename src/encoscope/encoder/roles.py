"""Which layers are stages, blocks and stem, from the shape of the network alone.

The *trunk* is the chain of outermost modules that carry the map through the network: the root's children, and
in place of a module that itself goes through several resolutions (``features``, ``blocks``, ``encoder``) its own
children. A hierarchical network's stages are the last trunk modules at each resolution. A network whose tokens
keep one grid has no stages; its blocks are the repeated modules of its containers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import nn

from encoscope.encoder.types import LayerInfo, LayerRole


def assign_roles(module: nn.Module, layers: Mapping[str, LayerInfo]) -> dict[str, LayerRole]:
    """A role for every layer; ``layers`` in the network's order."""
    trunk = _trunk(module, layers)
    roles: dict[str, LayerRole] = dict.fromkeys(layers, "inner")
    weighted = [name for name in trunk if _has_weights(module.get_submodule(name))]
    stem = weighted[0] if weighted else None
    blocks = _blocks(module, layers, stem)
    for name in blocks:
        roles[name] = "block"
    if not (blocks and _keeps_one_grid(layers, blocks)):
        for name in _stages(module, layers, trunk, stem):
            roles[name] = "stage"
    if stem is not None and roles[stem] == "inner":
        roles[stem] = "stem"
    return roles


def _trunk(module: nn.Module, layers: Mapping[str, LayerInfo]) -> list[str]:
    children: dict[str, list[str]] = defaultdict(list)
    for name in layers:
        children[_parent(name, layers)].append(name)

    def expand(name: str, alone: bool) -> Iterable[str]:
        inside = children[name]
        grids = {layers[child].grid for child in inside}
        if not name or len(grids) > 2 or (alone and len(grids) > 1):
            composite = [child for child in inside if _is_composite(module.get_submodule(child))]
            for child in inside:
                yield from expand(child, alone=composite == [child])
        else:
            yield name

    return list(expand("", alone=True))


def _parent(name: str, layers: Mapping[str, LayerInfo]) -> str:
    """The nearest enclosing layer; "" for the network itself."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in layers:
            return name
    return ""


def _stages(module: nn.Module, layers: Mapping[str, LayerInfo], trunk: list[str], stem: str | None) -> list[str]:
    """At each resolution the last composite trunk module after the stem; in a trunk of bare operations, the last one."""
    by_grid: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in trunk:
        by_grid[layers[name].grid].append(name)
    composite = {
        grid: [name for name in names if name != stem and _is_composite(module.get_submodule(name))]
        for grid, names in by_grid.items()
    }
    if any(composite.values()):
        return [names[-1] for names in composite.values() if names]
    return [names[-1] for names in by_grid.values() if any(_has_weights(module.get_submodule(name)) for name in names)]


def _blocks(module: nn.Module, layers: Mapping[str, LayerInfo], stem: str | None) -> list[str]:
    """Outermost composite items of Sequentials and ModuleLists, except the stem and items that hold such a list."""
    found: list[str] = []
    for owner_name, owner in module.named_modules():  # outer modules come first
        if _is_list(owner) and not _inside(owner_name, [*found, *([stem] if stem else [])]):
            items = _items(owner_name, owner, layers)
            found += [name for name, item in items if name != stem and not _holds_list(name, item, layers)]
    return [name for name in layers if name in found]


def _items(owner_name: str, owner: nn.Module, layers: Mapping[str, LayerInfo]) -> list[tuple[str, nn.Module]]:
    named = [(f"{owner_name}.{key}" if owner_name else key, item) for key, item in owner.named_children()]
    return [(name, item) for name, item in named if name in layers and _is_composite(item) and not _is_list(item)]


def _holds_list(name: str, item: nn.Module, layers: Mapping[str, LayerInfo]) -> bool:
    """Whether the item is a stage of its own: a container in it repeats one class at the item's own resolution."""
    for key, inner in item.named_modules():
        if _is_list(inner):
            classes = [
                type(child)
                for child_name, child in _items(f"{name}.{key}", inner, layers)
                if layers[child_name].grid == layers[name].grid
            ]
            if len(classes) > len(set(classes)):
                return True
    return False


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))


def _keeps_one_grid(layers: Mapping[str, LayerInfo], blocks: list[str]) -> bool:
    """Whether the network is one run of blocks on one grid (ViT, Mixer), whatever its stem does before them."""
    last = layers[blocks[-1]]
    same_kind = [layers[name] for name in blocks if layers[name].kind == last.kind]
    return all(info.grid == last.grid for info in same_kind)


def _inside(name: str, owners: Iterable[str]) -> bool:
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners)


def _is_composite(module: nn.Module) -> bool:
    """Made of other modules, with a matrix or kernel among their parameters (unlike a norm with its activation)."""
    return any(True for _ in module.children()) and _has_weights(module)


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())
