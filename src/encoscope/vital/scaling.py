"""What has a scale in VITAL's objective, chosen so that it fits any network: step size, losses, regularizers."""

from __future__ import annotations

from dataclasses import replace

from encoscope.errors import UsageError
from encoscope.images import Preprocess
from encoscope.vital.recipes import Recipe
from encoscope.vital.references.statistics import ColorStatistics, Prototype
from encoscope.vital.settings import VitalSettings
from encoscope.vital.synthesis.parametrization import pixel_bounds

_LR_PYRAMID = 0.1
_LR_PIXELS = 0.1  # of the range from black to white, where losses are scaled by the references
_LR_PUBLISHED = 1.0
_HINGE = 3.0  # of pixels alone: a pyramid is smooth by itself
_SMALLEST = 0.01
"""The smallest spread of references, as a share of their mean square: a single reference has none."""


def choose_parametrization(recipe: Recipe, settings: VitalSettings) -> str:
    """Choose what is optimized.

    Args:
        recipe: The recipe.
        settings: The settings.

    Returns:
        "pyramid" or "pixels".
    """
    if settings.parametrization != "auto":
        return settings.parametrization
    return "pixels" if recipe.published else "pyramid"


def choose_scale(recipe: Recipe, settings: VitalSettings) -> str:
    """Choose what losses count in.

    Args:
        recipe: The recipe.
        settings: The settings.

    Returns:
        "references" or "absolute".
    """
    if settings.scale != "auto":
        return settings.scale
    return "absolute" if recipe.published else "references"


def choose_lr(recipe: Recipe, settings: VitalSettings, preprocess: Preprocess) -> float:
    """Choose the learning rate.

    Args:
        recipe: The recipe.
        settings: The settings.
        preprocess: The network's preprocessing, which says how far black is from white.

    Returns:
        The learning rate.
    """
    if settings.lr is not None:
        return settings.lr
    if choose_parametrization(recipe, settings) == "pyramid":
        return _LR_PYRAMID
    if choose_scale(recipe, settings) == "absolute":
        return _LR_PUBLISHED
    black, white = pixel_bounds(preprocess)
    return _LR_PIXELS * float((white - black).mean())


def scale_regularizers(recipe: Recipe, settings: VitalSettings) -> Recipe:
    """Give a recipe regularizers that fit the scale of the losses.

    Where losses count in the references' own, total variation and l2 norm count above the references' own; a pyramid
    needs neither.

    Args:
        recipe: The recipe, with the published weights of regularizers.
        settings: The settings.

    Returns:
        The recipe.
    """
    if choose_scale(recipe, settings) == "absolute":
        return recipe
    weight = 0.0 if choose_parametrization(recipe, settings) == "pyramid" else _HINGE
    return replace(recipe, tv_weight=weight, l2_weight=weight)


def check_statistics(recipe: Recipe, settings: VitalSettings, prototype: Prototype) -> None:
    """Refuse statistics that lack what the settings need, before any step is made.

    Args:
        recipe: The recipe.
        settings: The settings.
        prototype: The statistics of the references.

    Raises:
        UsageError: For statistics without colors, or without the references' own loss.
    """
    relative = choose_scale(recipe, settings) == "references"
    if relative:
        for layer in recipe.matched:
            require_spread(prototype, layer)
    if choose_parametrization(recipe, settings) == "pyramid" or (relative and (recipe.tv_weight or recipe.l2_weight)):
        require_colors(prototype)


def require_spread(prototype: Prototype, layer: str) -> float:
    """Give what a layer's loss is divided by.

    Args:
        prototype: The statistics of the references.
        layer: The layer.

    Returns:
        The references' own loss; at least a hundredth of their mean square, since a single reference has none.

    Raises:
        UsageError: For statistics without it.
    """
    if prototype.spread is None:
        raise UsageError(
            'these statistics do not hold the references\' own loss: make them again, or use scale="absolute"'
        )
    square = float(prototype.values[layer].double().square().mean())
    if layer not in prototype.spread:
        raise UsageError(f"the statistics hold {', '.join(prototype.values)}, not {layer!r}: compute them anew")
    spread = prototype.spread[layer]
    return max(spread, _SMALLEST * (square + spread)) or 1.0


def require_colors(prototype: Prototype) -> ColorStatistics:
    """Give the colors of a unit's references.

    Args:
        prototype: The statistics of the references.

    Returns:
        The colors.

    Raises:
        UsageError: For statistics without them.
    """
    if prototype.colors is None:
        raise UsageError(
            'these statistics do not hold the references\' colors: make them again, or use parametrization="pixels"'
        )
    return prototype.colors
