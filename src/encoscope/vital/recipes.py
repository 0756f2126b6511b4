"""Which layers are matched with which weights: the paper's five networks, and a default for any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from encoscope.encoder import Encoder, LayerInfo
from encoscope.encoder.roles import module_of
from encoscope.errors import UsageError
from encoscope.units import Unit

OWN = ":unit"  # no layer's name begins with a colon
"""The name under which the unit's own map is matched, beside the layers."""

# weights of the two regularizers
_REGULARIZER = 3e-4  # of a network without a recipe: real colors without pixel noise; 1e-3 is paler, 0 noisier
_REGULARIZER_TOKENS = 1e-2  # of one whose blocks have one grid: with less, each patch of a small ViT is noise
_REGULARIZER_WITH_RELEVANCE = 1e-5  # of a class
_REGULARIZER_INSIDE, _REGULARIZER_INSIDE_AUTHORS = 3e-6, 3e-7
_AUTHORS_SHARE = 1 / 30  # relevance in [0, 1] and channel weights make the loss so much smaller
_INNER_STEM = 0.1
_OWN = 0.1  # of the unit's own map: between 0.03, with which units respond too little, and 0.3, whose images are noisy
_BLOCKS = 4


@dataclass(frozen=True)
class Recipe:
    """What of a network is matched for a unit.

    Attributes:
        name: The name of the recipe: a network's, "default" or "own".
        layers: The layers, in the network's order.
        weights: The weight w_l of each layer.
        tv_weight: The weight a_TV of total variation.
        l2_weight: The weight a_l2 of the l2 norm.
        published: Whether it is the paper's, for one of its five networks.
        own_weight: The weight of the unit's own map, beside the layers; 0 where it is not matched by itself.
    """

    name: str
    layers: tuple[str, ...]
    weights: tuple[float, ...]
    tv_weight: float
    l2_weight: float
    published: bool = False
    own_weight: float = 0.0

    @property
    def matched(self) -> Mapping[str, float]:
        """The weight of all that is matched, by name: the layers, and the unit's own map."""
        weights = dict(zip(self.layers, self.weights, strict=True))
        return weights | ({OWN: self.own_weight} if self.own_weight else {})


@dataclass(frozen=True)
class _Form:
    """How one library builds a network: the layers that are matched, and what tells the network from its relatives.

    Attributes:
        layers: The layers' names.
        shapes: The shapes of some weights.
        last: Its last block.
        beyond: The name that one more block would have.
    """

    layers: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    last: str
    beyond: str


@dataclass(frozen=True)
class _Named:
    """A row of the paper's table. regularizer: a_TV = a_l2."""

    forms: tuple[_Form, ...]
    weights: tuple[float, ...]
    regularizer: float = 0.0


def _make_vit_forms(patch: int) -> tuple[_Form, _Form]:
    """torchvision's and timm's ViT-L with patches of this side."""
    shape = (1024, 3, patch, patch)
    blocks = (2, 9, 20, 23)
    layer = "encoder.layers.encoder_layer_"
    return (
        _Form(
            ("conv_proj", *(f"{layer}{block}" for block in blocks)),
            {"conv_proj.weight": shape},
            f"{layer}23",
            f"{layer}24",
        ),
        _Form(
            ("patch_embed", *(f"blocks.{block}" for block in blocks)),
            {"patch_embed.proj.weight": shape},
            "blocks.23",
            "blocks.24",
        ),
    )


_TABLE: Mapping[str, _Named] = {
    "resnet50": _Named(
        (
            _Form(
                ("conv1", "layer1", "layer2", "layer3", "layer4"),
                {"layer1.0.conv2.weight": (64, 64, 3, 3), "layer1.0.conv3.weight": (256, 64, 1, 1)},
                "layer3.5",
                "layer3.6",
            ),
        ),
        (1, 1, 1, 1, 1),
    ),
    "densenet121": _Named(
        (
            _Form(
                ("features.conv0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4))),
                {"features.denseblock3.denselayer24.conv2.weight": (32, 128, 3, 3)},
                "features.denseblock4.denselayer16",
                "features.denseblock4.denselayer17",
            ),
        ),
        (1, 1, 1, 1, 100),
    ),
    "convnext_base": _Named(
        (
            _Form(
                ("features.0", "features.2.1", "features.4.1", "features.6.1", "features.7.2"),
                {"features.2.1.weight": (256, 128, 2, 2)},
                "features.5.26",
                "features.5.27",
            ),
            _Form(
                ("stem", *(f"stages.{stage}.downsample.1" for stage in (1, 2, 3)), "stages.3.blocks.2"),
                {"stages.1.downsample.1.weight": (256, 128, 2, 2)},
                "stages.2.blocks.26",
                "stages.2.blocks.27",
            ),
        ),
        (10, 1, 1, 1, 1),
    ),
    "vit_l_16": _Named(_make_vit_forms(16), (1, 1, 1, 1, 1), 3e-3),
    "vit_l_32": _Named(_make_vit_forms(32), (1, 1, 1, 1, 0.1), 3e-4),
}


def choose_recipe(
    encoder: Encoder, unit: Unit, *, authors: bool = False, relevance: bool = False, own_layer: bool = False
) -> Recipe:
    """Choose layers and weights for a unit of an encoder.

    Class neurons and pooled features are matched on all layers of the recipe; a unit inside the network on those
    strictly below its own (statement 1: l' < l), the stem with weight 0.1. Networks other than the paper's five get
    the stem and the last layer of each stage, or the patch embedding and four blocks spread over the depth, weights 1
    and a_TV = a_l2 = 3e-4, or 1e-2 where all blocks have one grid.

    Args:
        encoder: The encoder.
        unit: The unit.
        authors: Take the authors' weights of regularizers where they differ from the paper's.
        relevance: Whether activations are multiplied by relevance: the regularizers then have other weights.
        own_layer: Whether a unit inside the network is also matched on all channels of its own layer, and by itself; an
            extension.

    Returns:
        The recipe.

    Raises:
        UsageError: For a unit in a layer that has none of these layers below it, unless it is matched on its own.
    """
    recipe = find_published_recipe(encoder.module, [info.name for info in encoder.layers]) or _default(encoder, unit)
    if unit.layer is not None:
        recipe = _below(recipe, encoder, unit.layer, own_layer)
    if relevance:
        inside = _REGULARIZER_INSIDE_AUTHORS if authors else _REGULARIZER_INSIDE
        weight = _REGULARIZER_WITH_RELEVANCE if unit.layer is None else inside
        if recipe.name == "default":
            weight = recipe.tv_weight * (_AUTHORS_SHARE if authors else 1)
        recipe = replace(recipe, tv_weight=weight, l2_weight=weight)
    return recipe


def find_published_recipe(module: nn.Module, layers: Iterable[str]) -> Recipe | None:
    """Find the paper's recipe of a network that is built as one of the paper's five.

    Args:
        module: The network, with any weights.
        layers: The names of its layers.

    Returns:
        The recipe; None for any other network.

    Source: VITAL, appendix B.
    """
    known = set(layers)
    modules = {name for name, _ in module.named_modules()}
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for architecture, row in _TABLE.items():
        for form in row.forms:
            is_alike = all(shapes.get(name) == shape for name, shape in form.shapes.items())
            if is_alike and form.last in modules and form.beyond not in modules and known.issuperset(form.layers):
                weights = tuple(float(weight) for weight in row.weights)
                return Recipe(architecture, form.layers, weights, row.regularizer, row.regularizer, published=True)
    return None


def override_recipe(
    encoder: Encoder, unit: Unit, base: Recipe, layers: Sequence[str], weights: Sequence[float] | None
) -> Recipe:
    """Put a user's own layers and weights in place of a recipe's.

    Args:
        encoder: The encoder.
        unit: The unit.
        base: The recipe, whose regularizers stay.
        layers: The layers.
        weights: A weight for each layer; None gives each 1.

    Returns:
        The recipe, named "own", its layers in the network's order.

    Raises:
        UsageError: For unknown layers, another number of weights, and layers that are not below the unit's own.
    """
    order = [info.name for info in encoder.layers]
    names = [encoder.layer(name).name for name in layers]
    if weights is not None and len(weights) != len(names):
        raise UsageError(f"{len(weights)} weights for {len(names)} layers: give one for each")
    pairs = sorted(zip(names, weights or [1.0] * len(names), strict=True), key=lambda pair: order.index(pair[0]))
    # The unit's own layer is named only where it is matched anyway.
    if unit.layer is not None and order.index(pairs[-1][0]) >= order.index(unit.layer) + bool(base.own_weight):
        raise UsageError(f"{unit.text} is matched on layers below its own: {pairs[-1][0]} is not below {unit.layer}")
    return replace(base, name="own", layers=tuple(name for name, _ in pairs), weights=tuple(float(w) for _, w in pairs))


def _default(encoder: Encoder, unit: Unit) -> Recipe:
    infos = encoder.layers
    stages = [info for info in infos if info.role == "stage"]
    blocks = [info for info in infos if info.role == "block"]
    regularizer = _REGULARIZER
    if len(stages) < 2 and len(blocks) >= _BLOCKS:  # one grid: a ViT, a Mixer
        regularizer = _REGULARIZER_TOKENS
        above = [info.name for info in infos].index(unit.layer) if unit.layer is not None else len(infos)
        below = [info for info in blocks if infos.index(info) < above]
        stages = _spread(below, _BLOCKS)
    stem = next((info for info in infos if info.role == "stem"), None)
    layers = [info for info in (stem, *(stages or blocks or infos)) if info is not None]
    names = tuple(dict.fromkeys(info.name for info in layers))
    return Recipe("default", names, (1.0,) * len(names), regularizer, regularizer)


def _spread(blocks: Sequence[LayerInfo], count: int) -> list[LayerInfo]:
    """Some blocks in even steps, the last among them."""
    indices = {round(len(blocks) * (number + 1) / count) - 1 for number in range(min(count, len(blocks)))}
    return [blocks[index] for index in sorted(indices)]


def _below(recipe: Recipe, encoder: Encoder, layer: str, own_layer: bool) -> Recipe:
    order = [info.name for info in encoder.layers]
    kept = [
        name for name in recipe.layers if order.index(name) < order.index(layer) and module_of(name) != module_of(layer)
    ]
    if not kept and not own_layer:
        raise UsageError(
            f"{layer} has none of the layers below it that a visualization is matched on "
            f"({', '.join(recipe.layers)}): "
            "name layers below it yourself, or choose a unit of a later layer"
        )
    stem = {info.name for info in encoder.layers if info.role == "stem"}
    old = dict(zip(recipe.layers, recipe.weights, strict=True))
    only_stem = set(kept) <= stem
    weights = tuple(_INNER_STEM if name in stem and not only_stem else min(old[name], 1.0) for name in kept)
    own = (layer,) if own_layer else ()
    own_weight = _OWN if own_layer else 0.0
    return replace(recipe, layers=(*kept, *own), weights=(*weights, *(1.0 for _ in own)), own_weight=own_weight)
