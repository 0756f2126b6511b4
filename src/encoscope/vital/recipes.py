"""Which layers are matched with what weights: the paper's five networks, and a default for any other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from encoscope.encoder import Encoder, LayerInfo
from encoscope.errors import UsageError
from encoscope.units import Unit

Preset: TypeAlias = Literal["paper", "authors"]
PRESETS: tuple[Preset, ...] = ("paper", "authors")

_SMOOTH = 3e-4  # of an unnamed network: real colours without pixel noise; 1e-3 is smoother and paler, 0 noisier
_SMOOTH_TOKENS = 1e-2  # of an unnamed one of one grid: with less, each patch of a small ViT is noise of its own
_WITH_RELEVANCE = 1e-5  # of a class
_AUTHORS_SHARE = (
    1 / 30
)  # of an unnamed network's: relevance in [0, 1] and channel weights make the loss so much smaller
_INNER: Mapping[str, float] = {"paper": 3e-6, "authors": 3e-7}
_INNER_STEM = 0.1
_BLOCKS = 4


@dataclass(frozen=True)
class Recipe:
    """What of a network is matched for a unit.

    name: of the recipe. layers: in the network's order. weights: w_l of each. tv, l2: factors of the regularisers.
    """

    name: str
    layers: tuple[str, ...]
    weights: tuple[float, ...]
    tv: float
    l2: float


@dataclass(frozen=True)
class _Named:
    """A row of the paper's table. layers: torchvision's names, then timm's. smooth: a_TV = a_l2."""

    layers: tuple[tuple[str, ...], tuple[str, ...]]
    weights: tuple[float, ...]
    smooth: float = 0.0


_RESNET = ("conv1", "layer1", "layer2", "layer3", "layer4")
_DENSENET = ("features.conv0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4)))
_CONVNEXT = ("features.0", "features.2.1", "features.4.1", "features.6.1", "features.7.2")
_CONVNEXT_TIMM = ("stem", *(f"stages.{stage}.downsample.1" for stage in (1, 2, 3)), "stages.3.blocks.2")
_VIT = ("conv_proj", *(f"encoder.layers.encoder_layer_{block}" for block in (2, 9, 20, 23)))
_VIT_TIMM = ("patch_embed", *(f"blocks.{block}" for block in (2, 9, 20, 23)))

_TABLE: Mapping[str, _Named] = {
    "resnet50": _Named((_RESNET, _RESNET), (1, 1, 1, 1, 1)),
    "densenet121": _Named((_DENSENET, _DENSENET), (1, 1, 1, 1, 100)),
    "convnext_base": _Named((_CONVNEXT, _CONVNEXT_TIMM), (10, 1, 1, 1, 1)),
    "vit_l_16": _Named((_VIT, _VIT_TIMM), (1, 1, 1, 1, 1), 3e-3),
    "vit_l_32": _Named((_VIT, _VIT_TIMM), (1, 1, 1, 1, 0.1), 3e-4),
}
_ALIASES = {"vit_large_patch16": "vit_l_16", "vit_large_patch32": "vit_l_32"}


def choose_recipe(encoder: Encoder, unit: Unit, *, preset: Preset = "paper", relevance: bool = False) -> Recipe:
    """The layers and weights for a unit of an encoder.

    Class neurons and pooled features are matched on all layers of the recipe; a unit inside the network on those
    strictly below its own (statement 1: l' < l), the stem with weight 0.1. Networks other than the paper's five get
    the stem and the last layer of each stage, or the patch embedding and four blocks spread over the depth, weights 1
    and a_TV = a_l2 = 3e-4, or 1e-2 where all blocks have one grid.
    relevance: whether activations are multiplied by relevance: the paper's networks then have factors of their own.

    Raises UsageError for an unknown preset, and for a unit in a layer that has none of these below it.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset is one of {', '.join(PRESETS)}, not {preset!r}")
    made = _named(encoder) or _default(encoder, unit)
    if unit.layer is not None:
        made = _below(made, encoder, unit.layer)
    if relevance:
        smooth = _WITH_RELEVANCE if unit.layer is None else _INNER[preset]
        if made.name == "default":
            smooth = made.tv * (_AUTHORS_SHARE if preset == "authors" else 1)
        made = replace(made, tv=smooth, l2=smooth)
    return made


def override_recipe(
    encoder: Encoder, unit: Unit, base: Recipe, layers: Sequence[str], weights: Sequence[float] | None
) -> Recipe:
    """A user's own layers and weights (1 each if left out) in place of a recipe's."""
    order = [info.name for info in encoder.layers]
    names = [encoder.layer(name).name for name in layers]
    if weights is not None and len(weights) != len(names):
        raise UsageError(f"{len(weights)} weights for {len(names)} layers: give one for each")
    pairs = sorted(zip(names, weights or [1.0] * len(names), strict=True), key=lambda pair: order.index(pair[0]))
    if unit.layer is not None and order.index(pairs[-1][0]) >= order.index(unit.layer):
        raise UsageError(f"{unit.text} is matched on layers below its own: {pairs[-1][0]} is not below {unit.layer}")
    return replace(base, name="own", layers=tuple(name for name, _ in pairs), weights=tuple(float(w) for _, w in pairs))


def _named(encoder: Encoder) -> Recipe | None:
    """The paper's recipe, if the encoder's source names one of its networks and the layers are there."""
    architecture = re.split(r"[@.]", encoder.source.rpartition(":")[2])[0]
    architecture = next((name for start, name in _ALIASES.items() if architecture.startswith(start)), architecture)
    row = _TABLE.get(architecture)
    known = {info.name for info in encoder.layers}
    layers = next((names for names in row.layers if known.issuperset(names)), None) if row else None
    if row is None or layers is None:
        return None
    return Recipe(architecture, layers, tuple(float(weight) for weight in row.weights), row.smooth, row.smooth)


def _default(encoder: Encoder, unit: Unit) -> Recipe:
    infos = encoder.layers
    stages = [info for info in infos if info.role == "stage"]
    blocks = [info for info in infos if info.role == "block"]
    smooth = _SMOOTH
    if len(stages) < 2 and len(blocks) >= _BLOCKS:  # one grid: a ViT, a Mixer
        smooth = _SMOOTH_TOKENS
        above = [info.name for info in infos].index(unit.layer) if unit.layer is not None else len(infos)
        below = [info for info in blocks if infos.index(info) < above]
        stages = _spread(below, _BLOCKS)
    stem = next((info for info in infos if info.role == "stem"), None)
    layers = [info for info in (stem, *(stages or blocks or infos)) if info is not None]
    names = tuple(dict.fromkeys(info.name for info in layers))
    return Recipe("default", names, (1.0,) * len(names), smooth, smooth)


def _spread(blocks: Sequence[LayerInfo], count: int) -> list[LayerInfo]:
    """So many blocks in even steps, the last among them."""
    places = {round(len(blocks) * (number + 1) / count) - 1 for number in range(min(count, len(blocks)))}
    return [blocks[place] for place in sorted(places)]


def _below(made: Recipe, encoder: Encoder, layer: str) -> Recipe:
    order = [info.name for info in encoder.layers]
    kept = [name for name in made.layers if order.index(name) < order.index(layer)]
    if not kept:
        raise UsageError(
            f"{layer} has none of the layers below it that a picture is matched on ({', '.join(made.layers)}): "
            "name layers below it yourself, or choose a unit of a later layer"
        )
    stem = {info.name for info in encoder.layers if info.role == "stem"}
    old = dict(zip(made.layers, made.weights, strict=True))
    alone = set(kept) <= stem
    weights = tuple(_INNER_STEM if name in stem and not alone else min(old[name], 1.0) for name in kept)
    return replace(made, layers=tuple(kept), weights=weights)
