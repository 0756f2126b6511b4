"""Composite features in fewer numbers, for vectors that are sums of pixels: k-means' centres, once they are means.

Layer i's part of such a vector is F_i a, one coefficient for each cell of the layer's own small grid. Late layers have
many more channels than cells (2048 on 7 x 7); for them the coefficients are the shorter description, and the cells'
inner products G_i = F_i^T F_i all that is needed of the maps: U_i F_i a = D_i W_i (G_i a), ||F_i a||^2 = a^T G_i a.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope.nave.composite import Composite, Factor, PixelSubset, Products


@dataclass(frozen=True)
class CellFactor(Factor):
    """A layer whose vectors are written in cells; its ``maps`` are G_i.

    Attributes:
        whole: ``[B, C, h, w]``, the layer's own maps F_i.
    """

    whole: Float[Tensor, "batch _channels height width"]

    def select(self, images: Int[Tensor, " kept"]) -> CellFactor:
        """Take some images of the batch.

        Args:
            images: Their indices.

        Returns:
            The same factor for these images.
        """
        return replace(self, maps=self.maps[images], scale=self.scale[images], whole=self.whole[images])

    def sums(
        self, weights: Float[Tensor, "batch n m"], subset: PixelSubset | None, grid: tuple[int, int]
    ) -> Float[Tensor, "batch n dim"]:
        """Compute the coefficients of w^T U_i.

        Args:
            weights: ``[B, n, m]``, n weightings of the pixels, or of the subset.
            subset: The pixels that the weights are for; None for all.
            grid: (rows, columns) of the output.

        Returns:
            ``[B, n, cells]``.
        """
        return self.cells(weights, subset, grid)


class Condensed(Products):
    """The products of a ``Composite``, for vectors in condensed form."""

    def norms(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n"]:
        """Compute ||v||^2 in composite space.

        Args:
            vectors: ``[B, n, dim]``.

        Returns:
            ``[B, n]``.
        """
        duals = [
            torch.bmm(part, f.flat) if isinstance(f, CellFactor) else part
            for f, part in zip(self.factors, vectors.split(self._dims, dim=2), strict=True)
        ]
        return (torch.cat(duals, dim=2) * vectors).sum(2).clamp_min(0)

    def expand(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n _channels"]:
        """Write vectors in the layers' channels.

        Args:
            vectors: ``[B, n, dim]``, as they are written here.

        Returns:
            ``[B, n, channels of all layers]``.
        """
        parts = vectors.split(self._dims, dim=2)
        whole = [
            part @ f.whole.flatten(2).mT if isinstance(f, CellFactor) else part
            for f, part in zip(self.factors, parts, strict=True)
        ]
        return torch.cat(whole, dim=2)


def condense(features: Composite) -> Condensed:
    """Write layers of at most half as many cells as channels in cells.

    Args:
        features: The composite features.

    Returns:
        The same features, condensed.
    """
    return Condensed([_condensed(f) for f in features.factors], features.grid, features.squared_norms)


def _condensed(factor: Factor) -> Factor:
    flat = factor.maps.flatten(2)
    if 2 * flat.shape[2] > flat.shape[1]:
        return factor
    gram = (flat.mT @ flat).unflatten(2, factor.maps.shape[2:])
    return CellFactor(gram, factor.rows, factor.columns, factor.scale, factor.maps)
