"""Composite features (NAVE, Algorithm 1, lines 5-11) as an operator that is never written out.

The literal matrix U has a row per pixel and a column per channel of every layer:
``U_i = D_i W_i F_i^T * weight_i``, where F_i are a layer's maps, W_i the sparse bicubic upsampling, and D_i divides
each pixel's vector by its L2 norm. Clustering needs three products only, and each is cheaper on the small side of W_i:
``U mu = D W (F^T mu)`` upsamples one map a centroid instead of one a channel, its adjoint downsamples one mask a
cluster, and the norms come from inner products of neighbouring cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from encoscope.errors import UsageError

EPS = 1e-12
"""Vectors shorter than this stay what they are (ReLU maps have all-zero pixels) instead of becoming NaN."""

_REACH = 3  # two of the four taps of a bicubic kernel are at most this many cells apart


def layer_weights(channels: Sequence[int], weighting: str | Sequence[float]) -> tuple[float, ...]:
    """The factor on each layer's unit vectors.

    ``"paper"``: 1 / (1 + channels) (Algorithm 1, line 8). ``"equal"``: the same for all, with the squares summing to 1.
    A sequence: these factors as they are. Raises UsageError for anything else.
    """
    if weighting == "paper":
        return tuple(1 / (1 + c) for c in channels)
    if weighting == "equal":
        return (len(channels) ** -0.5,) * len(channels)
    if isinstance(weighting, str):
        raise UsageError(f'weighting is "paper", "equal" or one number a layer, not {weighting!r}')
    weights = tuple(float(w) for w in weighting)
    if len(weights) != len(channels):
        raise UsageError(f"{len(weights)} weights for {len(channels)} layers: give one for each")
    if not all(0 <= w < float("inf") for w in weights) or not any(weights):
        raise UsageError(f"layer weights must be finite, not negative, and not all zero: {weights}")
    return weights


@dataclass(frozen=True)
class _Factor:
    """One layer: its maps, the separable upsampling to the grid (None: already there), and D_i times the weight."""

    maps: Float[Tensor, "batch channels height width"]
    rows: Float[Tensor, "out_height height"] | None
    columns: Float[Tensor, "out_width width"] | None
    scale: Float[Tensor, "batch pixels"]

    def upsample(self, small: Float[Tensor, "batch n height width"]) -> Float[Tensor, "batch n pixels"]:
        if self.rows is not None and self.columns is not None:
            small = self.rows @ small @ self.columns.T
        return small.flatten(2)

    def downsample(
        self, large: Float[Tensor, "batch n pixels"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch n cells"]:
        if self.rows is None or self.columns is None:
            return large
        return (self.rows.T @ large.unflatten(2, grid) @ self.columns).flatten(2)


class Composite:
    """The matrix U of a batch of images that share one geometry, as products (see the module's text).

    grid: (rows, columns) of the output; ``pixels`` = their product. channels: of each layer; ``dim`` = their sum.
    squared_norms: ||u||^2 of every pixel, ``[batch, pixels]``.
    """

    def __init__(
        self, factors: Sequence[_Factor], grid: tuple[int, int], squared_norms: Float[Tensor, "batch pixels"]
    ) -> None:
        self._factors = tuple(factors)
        self.grid = grid
        self.squared_norms = squared_norms
        self.channels = tuple(f.maps.shape[1] for f in self._factors)
        self.batch = self._factors[0].maps.shape[0]

    @property
    def pixels(self) -> int:
        """Cells of the output grid."""
        return self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        """Length of a composite vector: the sum of the layers' channels."""
        return sum(self.channels)

    @property
    def dtype(self) -> torch.dtype:
        """Of all products."""
        return self._factors[0].maps.dtype

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self._factors[0].maps.device

    def scores(self, vectors: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n pixels"]:
        """U v: the inner product of every pixel's composite vector with each of n vectors."""
        total: Tensor | None = None
        for factor, part in zip(self._factors, vectors.split(self.channels, dim=2), strict=True):
            small = (part @ factor.maps.flatten(2)).unflatten(2, factor.maps.shape[2:])
            up, scale = factor.upsample(small), factor.scale.unsqueeze(1)
            total = up * scale if total is None else total.addcmul_(up, scale)
        assert total is not None
        return total

    def sums(self, weights: Float[Tensor, "batch n pixels"]) -> Float[Tensor, "batch n dim"]:
        """w^T U: for each of n weightings of the pixels, the weighted sum of their composite vectors."""
        parts = [f.downsample(weights * f.scale.unsqueeze(1), self.grid) @ f.maps.flatten(2).mT for f in self._factors]
        return torch.cat(parts, dim=2)

    def rows(self, index: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n dim"]:
        """The composite vectors of chosen pixels (row-major positions on the grid)."""
        parts = []
        for f in self._factors:
            scale = f.scale.gather(1, index).unsqueeze(2)
            flat = f.maps.flatten(2)
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
        for f in self._factors:
            flat = f.maps.flatten(2)
            inner = flat.mT @ flat
            for _ in range(2):
                inner = f.upsample(inner.unflatten(2, f.maps.shape[2:])).mT
            total += f.scale.unsqueeze(2) * inner * f.scale.unsqueeze(1)
        return total

    def dense(self) -> Float[Tensor, "batch pixels dim"]:
        """U itself, written out; for small problems only."""
        return torch.cat([(f.upsample(f.maps) * f.scale.unsqueeze(1)).mT for f in self._factors], dim=2)

    def select(self, images: Int[Tensor, " kept"]) -> Composite:
        """The same operator for some images of the batch."""
        kept = [_Factor(f.maps[images], f.rows, f.columns, f.scale[images]) for f in self._factors]
        return Composite(kept, self.grid, self.squared_norms[images])


def composite(
    maps: Sequence[Float[Tensor, "batch _c _h _w"]],
    grid: tuple[int, int],
    *,
    valid: tuple[int, int] | None = None,
    weighting: str | Sequence[float] = "paper",
) -> Composite:
    """The composite features of a batch (Algorithm 1, lines 5-11) on an output grid.

    maps: one ``[B, C_i, h_i, w_i]`` a layer, all of the same images. grid: (H, W), the resolution that all are brought
    to by bicubic interpolation (``align_corners=False``). valid: only the first rows and columns of that grid hold
    image, the rest is padding and is left out. weighting: see ``layer_weights``.
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
        norms = _squared_norms(layer, rows, columns).sqrt()
        scale = weight / norms.clamp_min(EPS)
        factors.append(_Factor(layer, rows, columns, scale))
        squared += (norms * scale).square()
    return Composite(factors, valid, squared)


def from_vectors(vectors: Float[Tensor, "pixels dim"]) -> Composite:
    """Composite vectors that are already there, one a row, as features to cluster."""
    maps = vectors.T[None, :, :, None]
    ones = torch.ones(1, len(vectors), dtype=vectors.dtype, device=vectors.device)
    return Composite([_Factor(maps, None, None, ones)], (len(vectors), 1), vectors.square().sum(1)[None])


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
    two neighbouring cells: for each offset between two cells (up to 3 apart, half of them by symmetry) one map of
    inner products, upsampled with the products of the two taps' weights.
    """
    if rows is None or columns is None:
        return maps.square().sum(1).flatten(1)
    height, width = maps.shape[2:]
    by_row = maps.transpose(1, 2)  # [B, height, C, width]
    halves = []
    pairs = []
    for dy in range(min(_REACH, height - 1) + 1):
        inner = by_row[:, : height - dy].mT @ by_row[:, dy:]  # of every two cells dy rows apart
        vertical = rows[:, : height - dy] * rows[:, dy:]
        for dx in range(-min(_REACH, width - 1) if dy else 0, min(_REACH, width - 1) + 1):
            twice = 1 if dy == dx == 0 else 2
            halves.append(vertical @ inner.diagonal(dx, 2, 3) * twice)
            pairs.append(columns[:, : width - abs(dx)] * columns[:, abs(dx) :])
    return (torch.cat(halves, dim=2) @ torch.cat(pairs, dim=1).T).clamp_min(0).flatten(1)
