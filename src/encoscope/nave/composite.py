"""Composite features (NAVE, Algorithm 1, lines 5-11) as an operator that is never written out.

The literal matrix U has a row per pixel and a column per channel of every layer:
``U_i = D_i W_i F_i^T * weight_i``, where F_i are a layer's maps, W_i the sparse bicubic upsampling, and D_i divides
each pixel's vector by its L2 norm. Clustering needs three products only, and each is cheaper on the small side of W_i:
``U mu = D W (F^T mu)`` upsamples one map a centroid instead of one a channel, its adjoint downsamples one mask a
cluster, and the norms come from inner products of neighbouring cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from encoscope.errors import UsageError

AnyProducts = TypeVar("AnyProducts", bound="Products")

EPS = 1e-12
"""Vectors shorter than this stay what they are (ReLU maps have all-zero pixels) instead of becoming NaN."""

_PARTS = 4
_ALIKE = 1e-6  # vectors whose variance is at most this share of their mean square differ by rounding alone
_REACH = 3  # two of the four taps of a bicubic kernel are at most this many cells apart


def layer_weights(channels: Sequence[int], weighting: str | Sequence[float]) -> tuple[float, ...]:
    """Compute the factor on each layer's unit vectors.

    Args:
        channels: The channels of each layer.
        weighting: "paper": 1 / (1 + channels). "equal": the same for all, with squares that sum to 1; "variance" starts
            from these (see `compose_features`). A sequence: these factors as they are, finite, not negative, and not
            all zero.

    Returns:
        One factor for each layer.

    Raises:
        UsageError: For anything else, and for another number of factors than layers.

    Source: NAVE, Algorithm 1, line 8.
    """
    if weighting == "paper":
        return tuple(1 / (1 + c) for c in channels)
    if weighting in ("equal", "variance"):
        return (len(channels) ** -0.5,) * len(channels)
    if isinstance(weighting, str):
        raise UsageError(f'weighting is "paper", "equal", "variance" or one number a layer, not {weighting!r}')
    weights = tuple(float(w) for w in weighting)
    if len(weights) != len(channels):
        raise UsageError(f"{len(weights)} weights for {len(channels)} layers: give one for each")
    if not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise UsageError(f"layer weights must be finite, not negative, and not all zero: {weights}")
    return weights


@dataclass(frozen=True)
class PixelSubset:
    """Chosen pixels of each image.

    Attributes:
        index: ``[B, m]``, their row-major positions on the grid.
        row: ``[B, m]``, their rows.
        column: ``[B, m]``, their columns.
    """

    index: Int[Tensor, "batch m"]
    row: Int[Tensor, "batch m"]
    column: Int[Tensor, "batch m"]


@dataclass(frozen=True)
class Factor:
    """One layer: its maps, the separable upsampling to the output grid, and D_i times the weight.

    Attributes:
        maps: ``[B, C, h, w]``, the layer's maps.
        rows: ``[H, h]``, the interpolation along columns; None where the maps are on the output grid already.
        columns: ``[W, w]``, the interpolation along rows; None likewise.
        scale: ``[B, pixels]``, the factor of each pixel's vector.
    """

    maps: Float[Tensor, "batch channels height width"]
    rows: Float[Tensor, "out_height height"] | None
    columns: Float[Tensor, "out_width width"] | None
    scale: Float[Tensor, "batch pixels"]

    @property
    def dim(self) -> int:
        """Numbers that describe this layer's part of a vector."""
        return self.maps.shape[1]

    def select(self, images: Int[Tensor, " kept"]) -> Factor:
        """Take some images of the batch.

        Args:
            images: Their indices.

        Returns:
            The same factor for these images.
        """
        return replace(self, maps=self.maps[images], scale=self.scale[images])

    # Views that are taken hundreds of times: on small grids they cost as much as the products.
    @cached_property
    def flat(self) -> Float[Tensor, "batch channels cells"]:
        """The maps with their cells in one row."""
        return self.maps.flatten(2)

    @cached_property
    def flat_t(self) -> Float[Tensor, "batch cells channels"]:
        """``flat``, transposed."""
        return self.flat.mT

    @cached_property
    def columns_t(self) -> Float[Tensor, "width out_width"] | None:
        """``columns``, transposed."""
        return None if self.columns is None else self.columns.T

    @cached_property
    def scales(self) -> Float[Tensor, "batch 1 pixels"]:
        """``scale``, to multiply several vectors of pixels with."""
        return self.scale.unsqueeze(1)

    def scores(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n pixels"]:
        """Compute U_i v, without D_i.

        Args:
            vectors: ``[B, n, dim]``, n vectors for each image.

        Returns:
            ``[B, n, pixels]``.
        """
        return self.upsample(_product(vectors, self.flat))

    def sums(
        self, weights: Float[Tensor, "batch n m"], subset: PixelSubset | None, grid: tuple[int, int]
    ) -> Float[Tensor, "batch n dim"]:
        """Compute w^T U_i.

        Args:
            weights: ``[B, n, m]``, n weightings of the pixels, or of the subset.
            subset: The pixels that the weights are for; None for all.
            grid: (rows, columns) of the output.

        Returns:
            ``[B, n, dim]``, n weighted sums.
        """
        if subset is not None and self.rows is None:
            few = self.flat.gather(2, subset.index.unsqueeze(1).expand(-1, self.flat.shape[1], -1))
            return torch.bmm(weights * self.scale.gather(1, subset.index).unsqueeze(1), few.mT)
        return _product(self.cells(weights, subset, grid), self.flat_t)

    def upsample(self, small: Float[Tensor, "batch n cells"]) -> Float[Tensor, "batch n pixels"]:
        """Compute W_i on maps of the layer's own size.

        Args:
            small: ``[B, n, cells]``.

        Returns:
            ``[B, n, pixels]``.
        """
        rows, columns_t = self.rows, self.columns_t
        if rows is None or columns_t is None:
            return small
        batch, n = small.shape[:2]
        # A plain and a batched product: what matmul makes of these shapes costs more than the products themselves.
        wide = (small.reshape(-1, columns_t.shape[0]) @ columns_t).view(batch * n, rows.shape[1], -1)
        return torch.bmm(rows.expand(batch * n, -1, -1), wide).view(batch, n, -1)

    def cells(
        self, weights: Float[Tensor, "batch n m"], subset: PixelSubset | None, grid: tuple[int, int]
    ) -> Float[Tensor, "batch n cells"]:
        """Compute w^T D_i W_i: weights of pixels as weights of the layer's own cells.

        Args:
            weights: ``[B, n, m]``, n weightings of the pixels, or of the subset.
            subset: The pixels that the weights are for; None for all.
            grid: (rows, columns) of the output.

        Returns:
            ``[B, n, cells]``.
        """
        rows, columns, pixels = self.rows, self.columns, grid[0] * grid[1]
        batch, n = weights.shape[:2]
        if subset is None:
            scaled = weights * self.scales
        else:
            scaled = weights * self.scale.gather(1, subset.index).unsqueeze(1)
            if rows is not None and columns is not None and subset.index.shape[1] * columns.shape[1] < pixels:
                taps = (rows[subset.row].unsqueeze(1) * scaled.unsqueeze(3)).flatten(0, 1).mT  # [batch n, height, m]
                across = columns[subset.column]  # [batch, m, width]
                across = across.expand(n, -1, -1) if batch == 1 else across.repeat_interleave(n, 0)
                return torch.bmm(taps, across).view(batch, n, -1)
            dense = scaled.new_zeros(batch, n, pixels)
            scaled = dense.scatter_add_(2, subset.index.unsqueeze(1).expand_as(scaled), scaled)
        if rows is None or columns is None:
            return scaled
        narrow = (scaled.reshape(-1, grid[1]) @ columns).view(batch * n, grid[0], -1)
        return torch.bmm(rows.T.expand(batch * n, -1, -1), narrow).view(batch, n, -1)


class Products:
    """The products with U of a batch of images that share one geometry, in whatever numbers its factors use.

    Args:
        factors: One for each layer.
        grid: (rows, columns) of the output; ``pixels`` is their product.
        squared_norms: ``[B, pixels]``, ||u||^2 of every pixel.
    """

    def __init__(
        self, factors: Sequence[Factor], grid: tuple[int, int], squared_norms: Float[Tensor, "batch pixels"]
    ) -> None:
        self.factors = tuple(factors)
        self.grid = grid
        self.squared_norms = squared_norms
        self.batch = self.factors[0].maps.shape[0]
        self._dims = tuple(f.dim for f in self.factors)

    @property
    def pixels(self) -> int:
        """Cells of the output grid."""
        return self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return sum(self._dims)

    @property
    def dtype(self) -> torch.dtype:
        """Of all products."""
        return self.factors[0].maps.dtype

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self.factors[0].maps.device

    def scores(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n pixels"]:
        """Compute U v: the inner product of every pixel's composite vector with each of n vectors.

        Args:
            vectors: ``[B, n, dim]``.

        Returns:
            ``[B, n, pixels]``.
        """
        total: Tensor | None = None
        for factor, part in zip(self.factors, vectors.split(self._dims, dim=2), strict=True):
            up = factor.scores(part)
            total = up.mul_(factor.scales) if total is None else total.addcmul_(up, factor.scales)
        assert total is not None
        return total

    def sums(
        self, weights: Float[Tensor, "batch n _m"], index: Int[Tensor, "batch _m"] | None = None
    ) -> Float[Tensor, "batch n dim"]:
        """Compute w^T U: for each of n weightings of the pixels, the weighted sum of their composite vectors.

        Args:
            weights: ``[B, n, m]``.
            index: ``[B, m]``, the pixels that the weights are for; None for all. Few pixels take a fraction of the
                work.

        Returns:
            ``[B, n, dim]``.
        """
        subset = None if index is None else PixelSubset(index, index // self.grid[1], index % self.grid[1])
        return torch.cat([f.sums(weights, subset, self.grid) for f in self.factors], dim=2)

    def norms(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n"]:
        """Compute ||v||^2 in composite space.

        Args:
            vectors: ``[B, n, dim]``.

        Returns:
            ``[B, n]``.
        """
        return vectors.square().sum(2)

    def expand(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n _channels"]:
        """Write vectors in the layers' channels.

        Args:
            vectors: ``[B, n, dim]``, as they are written here.

        Returns:
            ``[B, n, channels of all layers]``.
        """
        return vectors

    def select(self: AnyProducts, images: Int[Tensor, " kept"]) -> AnyProducts:
        """Take some images of the batch.

        Args:
            images: Their indices.

        Returns:
            The same products for these images.
        """
        return type(self)([f.select(images) for f in self.factors], self.grid, self.squared_norms[images])


class Composite(Products):
    """The matrix U, its vectors written in channels; ``dim`` is the sum of the layers' channels."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each layer."""
        return self._dims

    def rows(self, index: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n dim"]:
        """Compute the composite vectors of chosen pixels.

        Args:
            index: ``[B, n]``, their row-major positions on the grid.

        Returns:
            ``[B, n, dim]``.
        """
        parts = []
        for f in self.factors:
            scale = f.scale.gather(1, index).unsqueeze(2)
            flat = f.flat
            if f.rows is None or f.columns is None:
                vectors = flat.mT.gather(1, index.unsqueeze(2).expand(-1, -1, flat.shape[1]))
            else:
                taps = f.rows[index // self.grid[1]].unsqueeze(3) * f.columns[index % self.grid[1]].unsqueeze(2)
                vectors = taps.flatten(2) @ flat.mT
            parts.append(vectors * scale)
        return torch.cat(parts, dim=2)

    def gram(self) -> Float[Tensor, "batch pixels pixels"]:
        """U U^T, all inner products between pixels, upsampled on both sides from each layer's own cells."""
        total = torch.zeros(self.batch, self.pixels, self.pixels, dtype=self.dtype, device=self.device)
        for f in self.factors:
            inner = f.flat.mT @ f.flat
            for _ in range(2):
                inner = f.upsample(inner).mT
            total += f.scale.unsqueeze(2) * inner * f.scale.unsqueeze(1)
        return total

    def dense(self) -> Float[Tensor, "batch pixels dim"]:
        """U itself, written out; for small problems only."""
        return torch.cat([(f.upsample(f.flat) * f.scale.unsqueeze(1)).mT for f in self.factors], dim=2)


def compose_features(
    maps: Sequence[Float[Tensor, "batch _c _h _w"]],
    grid: tuple[int, int],
    *,
    valid: tuple[int, int] | None = None,
    weighting: str | Sequence[float] = "paper",
    normalization: str = "unit",
) -> Composite:
    """Compose the features of a batch on an output grid.

    Args:
        maps: One ``[B, C_i, h_i, w_i]`` for each layer, all of the same images.
        grid: (H, W), the resolution that all are brought to by bicubic interpolation (``align_corners=False``).
        valid: Only the first (rows, columns) of that grid hold image; the rest is padding and is left out. None: all.
        weighting: See `layer_weights`. "variance" then divides each layer's vectors by the square root of their
            variance over the image, so that every layer has the same say in a clustering.
        normalization: "unit": each pixel's vector in a layer is divided by its length. "centered": first the image's
            mean vector is subtracted. "none": the vectors as they are.

    Returns:
        The composite features.

    Raises:
        UsageError: For a weighting that cannot be.

    Source: NAVE, Algorithm 1, lines 5 to 11.
    """
    weights = layer_weights([m.shape[1] for m in maps], weighting)
    valid = valid or grid
    factors = []
    squared = torch.zeros(len(maps[0]), valid[0] * valid[1]).to(maps[0])
    for layer, weight in zip(maps, weights, strict=True):
        size = (int(layer.shape[2]), int(layer.shape[3]))
        if size == grid == valid:
            rows = columns = None
        else:
            rows = _bicubic(size[0], grid[0])[: valid[0]].to(layer)
            columns = _bicubic(size[1], grid[1])[: valid[1]].to(layer)
        if normalization == "centered":
            layer = layer - _mean_vector(layer, rows, columns)
        norms = _squared_norms(layer, rows, columns).sqrt()
        scale = torch.full_like(norms, weight) if normalization == "none" else weight / norms.clamp_min(EPS)
        factor = Factor(layer, rows, columns, scale)
        if weighting == "variance":
            factor = replace(factor, scale=scale * _balance(factor, norms, valid))
        factors.append(factor)
        squared += (norms * factor.scale).square()
    return Composite(factors, valid, squared)


def features_from_vectors(vectors: Float[Tensor, "pixels dim"]) -> Composite:
    """Take composite vectors that are there already as features to cluster.

    Args:
        vectors: ``[pixels, dim]``, one in each row.

    Returns:
        The features of one "image" of that many pixels.
    """
    maps = vectors.T[None, :, :, None]
    ones = torch.ones(1, len(vectors), dtype=vectors.dtype, device=vectors.device)
    return Composite([Factor(maps, None, None, ones)], (len(vectors), 1), vectors.square().sum(1)[None])


def _mean_vector(
    maps: Float[Tensor, "batch channels height width"],
    rows: Float[Tensor, "out_height height"] | None,
    columns: Float[Tensor, "out_width width"] | None,
) -> Float[Tensor, "batch channels 1 1"]:
    """The mean of the upsampled vectors. Each upsampled value is a weighted mean, so subtracting this from the maps
    subtracts it from every upsampled vector."""
    if rows is None or columns is None:
        return maps.mean((2, 3), keepdim=True)
    return torch.einsum("bchw,h,w->bc", maps, rows.mean(0), columns.mean(0))[:, :, None, None]


def _balance(factor: Factor, norms: Float[Tensor, "batch pixels"], grid: tuple[int, int]) -> Float[Tensor, "batch 1"]:
    """One over the square root of the variance of a layer's vectors in each image; 0 where they are all alike."""
    mean_square = (norms * factor.scale).square().mean(1, keepdim=True)
    ones = torch.full_like(factor.scales, 1 / norms.shape[1])
    variance = mean_square - factor.sums(ones, None, grid).square().sum(2)
    alike = variance <= _ALIKE * mean_square
    return torch.where(alike, 0.0, variance.masked_fill(alike, 1.0).rsqrt())


def _product(
    few: Float[Tensor, "batch n inner"], many: Float[Tensor, "batch inner outer"]
) -> Float[Tensor, "batch n outer"]:
    """``few @ many``, in parts: libraries share several products among threads better than one with few rows."""
    batch, inner, outer = many.shape
    if batch > 1 or outer % _PARTS or inner * outer < _PARTS * 32_768 or many.device.type != "cpu":
        return torch.bmm(few, many)
    split = many[0].unflatten(1, (_PARTS, -1)).transpose(0, 1)
    return torch.bmm(few.expand(_PARTS, -1, -1), split).transpose(0, 1).reshape(1, -1, outer)


@lru_cache(maxsize=256)
def _bicubic(size: int, out: int) -> Float[Tensor, "out size"]:
    """PyTorch's bicubic interpolation of one axis as a matrix, at most four entries a row."""
    basis = torch.eye(size, dtype=torch.float64).view(1, size, size, 1)
    return functional.interpolate(basis, size=(out, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T.contiguous()


def _squared_norms(
    maps: Float[Tensor, "batch channels height width"],
    rows: Float[Tensor, "out_height height"] | None,
    columns: Float[Tensor, "out_width width"] | None,
) -> Float[Tensor, "batch pixels"]:
    """||W F||^2 of every output pixel.

    An interpolated vector is a sum of taps, so its squared norm is a sum over pairs of taps of the inner product of
    two neighbouring cells: for each offset between two cells (up to 3 apart; up is the same as down) one map of inner
    products, upsampled with the products of the two taps' weights.
    """
    if rows is None or columns is None:
        return maps.square().sum(1).flatten(1)
    height, width = maps.shape[2:]
    by_row = maps.transpose(1, 2)  # [B, height, C, width]
    total = maps.new_zeros(len(maps), len(rows), width * (2 * _REACH + 1))
    for dy in range(min(_REACH, height - 1) + 1):
        inner = by_row[:, : height - dy].mT @ by_row[:, dy:]  # of every two cells dy rows apart
        near = functional.pad(inner, (_REACH, _REACH)).flatten(2).unfold(2, 2 * _REACH + 1, width + 2 * _REACH + 1)
        total += (1 if dy == 0 else 2) * (rows[:, : height - dy] * rows[:, dy:]) @ near.flatten(2)
    pairs = columns.unsqueeze(2) * functional.pad(columns, (_REACH, _REACH)).unfold(1, 2 * _REACH + 1, 1)
    return (total @ pairs.flatten(1).T).clamp_min(0).flatten(1)
