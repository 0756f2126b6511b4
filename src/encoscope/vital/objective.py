"""VITAL's objective (equation 4): match an image's activations with its references', and keep the image smooth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.units import Unit
from encoscope.vital.features import FeatureReader, LayerFeatures
from encoscope.vital.matching import Values, compute_matching
from encoscope.vital.recipes import Recipe
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.synthesis.loop import Losses
from encoscope.vital.synthesis.transforms import Images


def compute_total_variation(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Compute the sum of four unsquared l2 norms of differences: horizontal, vertical, and along both diagonals.

    Args:
        images: The images.

    Returns:
        The total variation of each image.

    Source: VITAL, equation 4; the four norms are from the authors' code.
    """
    differences = (
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1, :] - images[:, :, 1:, :],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    )
    return sum((_norm(difference) for difference in differences[1:]), start=_norm(differences[0]))


def compute_l2_norm(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Compute ||x||_2 over channels and space, in the network's normalized units.

    Args:
        images: The images.

    Returns:
        The norm of each image.
    """
    return _norm(images)


def _norm(values: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    return values.flatten(1).norm(dim=1)


class DistributionObjective:
    """The loss of each image against its own unit's statistics; an ``Objective`` of the synthesis loop.

    Relevance has no scale of its own: LRP's is some 1e-5 of the activations, and smaller in earlier layers. Where it
    is not scaled to [0, 1] as the authors do, a layer's loss is divided by the references' shrinkage (the mean square
    with relevance as a share of that without), so that the published weights of layers and regularizers keep their
    meaning.

    Args:
        reader: How images, and before them the references, are read.
        units: The units of the run.
        prototypes: The statistics of each unit.
        recipe: Layers and weights.
        matching: "sort" or "moments".
        weighted: Whether the prototypes' channel weights count, as in the authors' code with relevance.

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
    ) -> None:
        self._reader, self._units, self._prototypes, self._recipe = reader, tuple(units), tuple(prototypes), recipe
        self._matching = matching
        self._weighted = weighted
        self._scaled = reader.relevance is not None and not reader.scaled
        self._targets: dict[tuple[str, tuple[int, ...], int], Tensor] = {}
        for prototype in prototypes:
            for name in recipe.layers:
                if name not in prototype.values:
                    raise UsageError(
                        f"these statistics hold {', '.join(prototype.values)}, not {name!r}: compute them for the "
                        f"layers of recipe {recipe.name}, or name their layers"
                    )

    def __call__(self, images: Images, rows: slice) -> Losses:
        """Compute the matching loss by layer, and the regularizers.

        Args:
            images: Normalized images.
            rows: Which units of the run they belong to.

        Returns:
            The losses of each image.
        """
        recipe = self._recipe
        features = self._reader(images, self._units[rows])
        indices = range(*rows.indices(len(self._units)))
        named: dict[str, Tensor] = {}
        for name, weight in zip(recipe.layers, recipe.weights, strict=True):
            values = self._fill_silent(name, features, indices)
            target = self._target(name, tuple(indices), values)
            channels = (
                torch.stack([self._weights(name, index, values) for index in indices]) if self._weighted else None
            )
            named[name] = weight * compute_matching(self._matching, values, target, channels)
            if self._scaled:
                named[name] = named[name] / self._shrinkage(name, indices).to(values)
        main = torch.stack(list(named.values())).sum(0)
        if not (recipe.tv_weight or recipe.l2_weight):
            return Losses(main, None, named)
        named["tv"] = recipe.tv_weight * compute_total_variation(images)
        named["l2"] = recipe.l2_weight * compute_l2_norm(images)
        return Losses(main, named["tv"] + named["l2"], named)

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
