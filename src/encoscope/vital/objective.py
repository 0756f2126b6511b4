"""VITAL's objective (paper, equation 4): align a picture's activations with its references', and keep it smooth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.errors import UsageError
from encoscope.units import Unit
from encoscope.vital.features import FeatureReader, LayerFeatures
from encoscope.vital.matching import Matching, Values, matching_loss
from encoscope.vital.recipes import Recipe
from encoscope.vital.references.statistics import Prototype
from encoscope.vital.synthesis.loop import Losses
from encoscope.vital.synthesis.transforms import Images


def compute_total_variation(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Sum of four unsquared l2 norms of an image's differences: horizontal, vertical, and along both diagonals."""
    differences = (
        images[:, :, :, :-1] - images[:, :, :, 1:],
        images[:, :, :-1, :] - images[:, :, 1:, :],
        images[:, :, 1:, :-1] - images[:, :, :-1, 1:],
        images[:, :, :-1, :-1] - images[:, :, 1:, 1:],
    )
    return sum((_norm(difference) for difference in differences[1:]), start=_norm(differences[0]))


def compute_l2_norm(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """||x||_2 over channels and space, in the network's normalised units."""
    return _norm(images)


def _norm(values: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    return values.flatten(1).norm(dim=1)


class DistributionObjective:
    """The loss of each image against its own unit's statistics; an ``Objective`` of the synthesis loop.

    reader: how images, and before them the references, are read. prototypes: of each unit of the run.
    weighted: whether the prototypes' channel weights count (the authors' way with relevance).

    Relevance has no scale of its own: LRP's is some 1e-5 of the activations, less the earlier the layer. Where it is
    not scaled to [0, 1] as the authors do, a layer's loss is divided by the share of the activations' mean square that
    is left of the references', so that the published weights of layers and regularisers keep their meaning.
    """

    def __init__(
        self,
        reader: FeatureReader,
        units: Sequence[Unit],
        prototypes: Sequence[Prototype],
        recipe: Recipe,
        *,
        matching: Matching = "sort",
        weighted: bool = False,
    ) -> None:
        self._reader, self._units, self._prototypes, self._recipe = reader, tuple(units), tuple(prototypes), recipe
        self._matching: Matching = matching
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
        """The matching loss by layer, and the regularisers, of the units in ``rows``."""
        recipe = self._recipe
        seen = self._reader(images, self._units[rows])
        places = range(*rows.indices(len(self._units)))
        named: dict[str, Tensor] = {}
        for name, weight in zip(recipe.layers, recipe.weights, strict=True):
            values = self._woken(name, seen, places)
            target = self._target(name, tuple(places), values)
            channels = torch.stack([self._weights(name, place, values) for place in places]) if self._weighted else None
            named[name] = weight * matching_loss(self._matching, values, target, channels)
            if self._scaled:
                named[name] = named[name] / self._shrinkage(name, places).to(values)
        main = torch.stack(list(named.values())).sum(0)
        if not (recipe.tv or recipe.l2):
            return Losses(main, None, named)
        named["tv"], named["l2"] = recipe.tv * compute_total_variation(images), recipe.l2 * compute_l2_norm(images)
        return Losses(main, named["tv"] + named["l2"], named)

    def _woken(self, layer: str, seen: LayerFeatures, places: Sequence[int]) -> Values:
        """What is matched of a layer; where a unit is silent, as if all had the layer's usual relevance.

        Without any relevance there is no gradient, and a picture that does not excite its unit at the start would stay
        as it is. An extension: the paper does not say what happens there.
        """
        values = seen.values[layer]
        if seen.silent is None or seen.plain is None:
            return values
        usual = self._shrinkage(layer, places).sqrt().to(values)[:, None, None]
        return torch.where(seen.silent[:, None, None], seen.plain[layer] * usual, values)

    def _target(self, layer: str, places: tuple[int, ...], values: Tensor) -> Tensor:
        wanted = (layer, places, values.shape[2])
        if wanted not in self._targets:
            found = [self._prototypes[place].of(layer, values.shape[2]).to(values) for place in places]
            self._targets[wanted] = torch.stack(found)
        return self._targets[wanted]

    def _shrinkage(self, layer: str, places: Iterable[int]) -> Tensor:
        shares = [self._prototypes[place].shrinkage for place in places]
        if any(share is None for share in shares):
            raise UsageError("these statistics were made without relevance: make them with the relevance of this run")
        return torch.tensor([share[layer] for share in shares if share is not None])

    def _weights(self, layer: str, place: int, values: Tensor) -> Tensor:
        weights = self._prototypes[place].channel_weights
        if weights is None:
            raise UsageError("these statistics have no channel weights: they were made without relevance")
        return weights[layer].to(values)
