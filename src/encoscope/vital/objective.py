"""VITAL's objective (equation 4): match an image's activations with its references', and keep the image smooth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.units import Unit
from encoscope.vital.features import FeatureReader, LayerFeatures
from encoscope.vital.matching import Values, compute_matching
from encoscope.vital.recipes import Recipe
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.scaling import require_colors, require_spread
from encoscope.vital.smoothness import compute_l2_norm, compute_total_variation
from encoscope.vital.synthesis.loop import Losses
from encoscope.vital.synthesis.transforms import Images
from encoscope.vital.terms import ObjectiveTerm


class DistributionObjective:
    """The loss of each image against its own unit's statistics; an ``Objective`` of the synthesis loop.

    Relevance has no scale of its own: LRP's is some 1e-5 of the activations, and smaller in earlier layers. Where it
    is not scaled to [0, 1] as the authors do, a layer's loss is divided by the references' shrinkage (the mean square
    with relevance as a share of that without), so that the published weights of layers and regularizers keep their
    meaning.

    Neither do activations: those of one network, or one layer, are many times those of another. ``relative`` divides
    each layer's loss by the references' own, so that 1 means as near to the mean as a reference is, and counts the
    regularizers by how far they are above the references'. This is an extension.

    Args:
        reader: How images, and before them the references, are read.
        units: The units of the run.
        prototypes: The statistics of each unit.
        recipe: Layers and weights.
        matching: "sort" or "moments".
        weighted: Whether the prototypes' channel weights count, as in the authors' code with relevance.
        relative: Whether losses count in the references' own.
        terms: What is added to the loss.
        beside: Whether the view of each image is followed by that of a photo, which the terms compare it with.

    Raises:
        UsageError: For statistics that lack a layer of the recipe.

    Source: VITAL, equation 4.
    """

    def __init__(
        self,
        reader: FeatureReader,
        units: Sequence[Unit],
        prototypes: Sequence[Prototype],
        recipe: Recipe,
        *,
        matching: str = "sort",
        weighted: bool = False,
        relative: bool = False,
        terms: Sequence[ObjectiveTerm] = (),
        beside: bool = False,
    ) -> None:
        self._reader, self._units, self._prototypes, self._recipe = reader, tuple(units), tuple(prototypes), recipe
        self._matching = matching
        self._weighted = weighted
        self._relative = relative
        self._terms, self._beside = tuple(terms), beside
        self._scaled = reader.relevance is not None and not reader.scaled and not relative
        self._spreads: dict[str, Tensor] = {}
        self._targets: dict[tuple[str, tuple[int, ...], int], Tensor] = {}
        for prototype in prototypes:
            for name in recipe.matched:
                if name not in prototype.values:
                    raise UsageError(
                        f"these statistics hold {', '.join(prototype.values)}, not {name!r}: compute them for the "
                        f"layers of recipe {recipe.name}, or name their layers"
                    )
        if relative:
            self._spreads = {
                name: torch.tensor([require_spread(prototype, name) for prototype in prototypes])
                for name in recipe.matched
            }

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the matching loss by layer, and the regularizers.

        Args:
            images: Normalized images; with ``beside`` each followed by its photo.
            rows: Which units of the run they belong to.

        Returns:
            The losses of each image.
        """
        recipe = self._recipe
        compared = images
        if self._beside:
            images, compared = images[::2], images[1::2]
        features = self._reader(images, self._units[rows])
        indices = range(*rows.indices(len(self._units)))
        named: dict[str, Tensor] = {}
        for name, weight in recipe.matched.items():
            values = self._fill_silent(name, features, indices)
            target = self._target(name, tuple(indices), values)
            channels = (
                torch.stack([self._weights(name, index, values) for index in indices]) if self._weighted else None
            )
            named[name] = weight * compute_matching(self._matching, values, target, channels)
            if self._scaled:
                named[name] = named[name] / self._shrinkage(name, indices).to(values)
            if self._relative:
                named[name] = named[name] / self._spreads[name][rows].to(values)
        plain = features.values if features.plain is None else features.plain
        for term in self._terms:
            named[term.name] = term(plain, compared, indices)
        main = torch.stack(list(named.values())).sum(0)
        if not (recipe.tv_weight or recipe.l2_weight):
            return Losses(main, None, named)
        variation, norm = compute_total_variation(images), compute_l2_norm(images)
        if self._relative:
            variation, norm = self._exceed_references(variation, norm, indices, images.shape[2] * images.shape[3])
        named["tv"] = recipe.tv_weight * variation
        named["l2"] = recipe.l2_weight * norm
        return Losses(main, named["tv"] + named["l2"], named)

    def _exceed_references(
        self, variation: Tensor, norm: Tensor, indices: Sequence[int], pixels: int
    ) -> tuple[Tensor, Tensor]:
        """By what share total variation and l2 norm are above the references' own; 0 below."""
        colors = [require_colors(self._prototypes[index]) for index in indices]
        own_variation = torch.tensor([each.variation * pixels**0.5 for each in colors]).to(variation)
        own_norm = torch.tensor([(each.power * pixels) ** 0.5 for each in colors]).to(norm)
        return (variation / own_variation - 1).clamp(min=0), (norm / own_norm - 1).clamp(min=0)

    def _fill_silent(self, layer: str, features: LayerFeatures, indices: Sequence[int]) -> Values:
        """What is matched of a layer; where a unit is silent, as if all had the layer's usual relevance.

        Without any relevance there is no gradient, and an image that its unit does not respond to at the start would
        stay as it is. An extension: the paper does not say what happens there.
        """
        values = features.values[layer]
        if features.silent is None or features.plain is None:
            return values
        usual = self._shrinkage(layer, indices).sqrt().to(values)[:, None, None]
        return torch.where(features.silent[:, None, None], features.plain[layer] * usual, values)

    def _target(self, layer: str, indices: tuple[int, ...], values: Tensor) -> Tensor:
        key = (layer, indices, values.shape[2])
        if key not in self._targets:
            sorted_values = [self._prototypes[index].of(layer, values.shape[2]).to(values) for index in indices]
            self._targets[key] = torch.stack(sorted_values)
        return self._targets[key]

    def _shrinkage(self, layer: str, indices: Iterable[int]) -> Tensor:
        shares = [self._prototypes[index].shrinkage for index in indices]
        if any(share is None for share in shares):
            raise UsageError("these statistics were made without relevance: make them with the relevance of this run")
        return torch.tensor([share[layer] for share in shares if share is not None])

    def _weights(self, layer: str, index: int, values: Tensor) -> Tensor:
        weights = self._prototypes[index].channel_weights
        if weights is None:
            raise UsageError("these statistics have no channel weights: they were made without relevance")
        return weights[layer].to(values)
