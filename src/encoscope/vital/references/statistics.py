"""What references have in common: each channel's sorted values, averaged over the images (paper, section 3.2.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from encoscope.concise_repr import concise_repr
from encoscope.errors import UsageError
from encoscope.vital.matching import Values, sort_values
from encoscope.vital.smoothness import compute_total_variation


@dataclass(frozen=True)
class ColorStatistics:
    """The colors of references' pixels, in the network's normalized units.

    Attributes:
        mean: The mean of each channel.
        covariance: The covariance of the channels, a row for each.
        variation: The mean total variation of the references, as ``compute_total_variation`` has it, over the square
            root of the number of pixels, so that it holds for other sizes.
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    variation: float

    @property
    def power(self) -> float:
        """The mean squared length of a pixel's color."""
        own = sum(row[channel] for channel, row in enumerate(self.covariance))
        return own + sum(value**2 for value in self.mean)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColorStatistics:
        """Make it of plain values, as ``dataclasses.asdict`` gives them.

        Args:
            values: The attributes; lists stand for tuples.

        Returns:
            The statistics.
        """
        return cls(
            mean=tuple(values["mean"]),
            covariance=tuple(tuple(row) for row in values["covariance"]),
            variation=values["variation"],
        )

    def root(self) -> Float[Tensor, "channels channels"]:
        """Give the symmetric square root of the covariance, which turns white noise into these colors."""
        values, vectors = torch.linalg.eigh(torch.tensor(self.covariance, dtype=torch.float64))
        return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).float()


@concise_repr
@dataclass(frozen=True)
class Prototype:
    """The statistics S of a unit's references: all that matching needs of them.

    Attributes:
        values: For each layer [channels, positions], ascending over positions: the mean of the references' sorted
            values.
        count: The number of references.
        references: Their names: ids, and boxes of patches.
        notes: What a reader of the result has to know, a sentence each.
        channel_weights: For each layer, the authors' factor of each channel's loss; None without relevance.
        activation: The mean of the unit's value on the references; None if it is not known.
        shrinkage: For each layer, the mean square of what is matched as a share of that of the activations alone, that
            is, how much smaller relevance makes the values; 1 where nothing has relevance, since the unit does not
            respond to its references; None without relevance.
        spread: For each layer, the references' own loss: the mean of mean((sort(v) - S) ** 2) over the references v. An
            image of this loss is as near to the mean as a reference is. None where it was not measured.
        colors: The color statistics of the references; None where they were not measured.

    Source: VITAL, section 3.2.1; spread and colors are an extension.
    """

    values: Mapping[str, Float[Tensor, "channels positions"]]
    count: int
    references: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    channel_weights: Mapping[str, Float[Tensor, " channels"]] | None = None
    activation: float | None = None
    shrinkage: Mapping[str, float] | None = None
    spread: Mapping[str, float] | None = None
    colors: ColorStatistics | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers it holds."""
        return tuple(self.values)

    @cached_property
    def digest(self) -> str:
        """The sha256 (hex) of the numbers that matching uses: two statistics of the same digest give the same images.

        It has nothing of the notes, the references' names and the unit's activation.
        """
        sha = hashlib.sha256()
        for part in (self.values, self.channel_weights or {}):
            for name, numbers in part.items():
                sha.update(f"{name}\0{numbers.dtype}\0{tuple(numbers.shape)}\0".encode())
                plain = numbers.detach().cpu().contiguous().reshape(-1)
                sha.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
            sha.update(b"\0\0")
        sha.update(repr(None if self.shrinkage is None else sorted(self.shrinkage.items())).encode())
        sha.update(repr(None if self.spread is None else sorted(self.spread.items())).encode())
        sha.update(repr(self.colors).encode())
        return sha.hexdigest()

    def of(self, layer: str, positions: int) -> Float[Tensor, "channels positions"]:
        """Give a layer's values for a map of any number of positions, between the ranks where the number differs.

        Args:
            layer: The layer.
            positions: The number of positions of the map.

        Returns:
            The values, ascending over positions.

        Raises:
            UsageError: For a layer that the statistics do not hold.
        """
        if layer not in self.values:
            raise UsageError(f"the statistics hold {', '.join(self.values)}, not {layer!r}: compute them anew")
        return resample_ranks(self.values[layer], positions)


class PrototypeSums:
    """Sums over references, one batch after the other, in float64: ``partial_fit``, ``merge``, ``finalize``."""

    def __init__(self) -> None:
        self.count = 0
        self.names: set[str] = set()
        self._sums: dict[str, Tensor] = {}
        self._peaks: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
        self._powers: dict[str, Tensor] = {}
        self._colors: dict[str, Tensor] = {}
        self._activation = 0.0
        self._dtype = torch.float32

    def partial_fit(
        self,
        values: Mapping[str, Values],
        peaks: Mapping[str, Float[Tensor, "batch channels"]] | None = None,
        activation: Float[Tensor, " batch"] | None = None,
        shrinkage: Mapping[str, Float[Tensor, "batch 2"]] | None = None,
        names: Iterable[str] = (),
        images: Float[Tensor, "batch colors height width"] | None = None,
    ) -> PrototypeSums:
        """Add a batch of images.

        Args:
            values: For each layer, the values that are matched.
            peaks: For each layer, each channel's largest relevance.
            activation: The unit's value on each image.
            shrinkage: For each layer and image, the mean squares of what is matched and of the activations alone.
            names: The names of the references.
            images: The references as the network takes them, for the color statistics.

        Returns:
            Itself.
        """
        for name, batch in values.items():
            ordered, _ = sort_values(batch)
            self._dtype = batch.dtype
            self._add(self._sums, name, ordered.double().sum(0).cpu())
            self._add(self._powers, name, batch.double().square().mean((1, 2)).sum().cpu())
        if images is not None:
            pixels = images.flatten(2).double()
            self._add(self._colors, "mean", pixels.mean(2).sum(0).cpu())
            self._add(self._colors, "products", (pixels @ pixels.transpose(1, 2) / pixels.shape[2]).sum(0).cpu())
            variation = compute_total_variation(images).double() / pixels.shape[2] ** 0.5
            self._add(self._colors, "variation", variation.sum().cpu())
        for name, batch in (peaks or {}).items():
            low, high = batch.amin(1, keepdim=True), batch.amax(1, keepdim=True)
            scaled = (batch - low) / (high - low).clamp(min=torch.finfo(batch.dtype).tiny)
            self._add(self._peaks, name, scaled.double().sum(0).cpu())
        for name, batch in (shrinkage or {}).items():
            self._add(self._squares, name, batch.double().sum(0).cpu())
        self.count += len(next(iter(values.values())))
        self._activation += float("nan") if activation is None else float(activation.double().sum())
        self.names.update(names)
        return self

    def merge(self, other: PrototypeSums) -> PrototypeSums:
        """Add what another pass has summed.

        Args:
            other: The sums of other images over the same layers.

        Returns:
            Itself.
        """
        for mine, theirs in (
            (self._sums, other._sums),
            (self._peaks, other._peaks),
            (self._squares, other._squares),
            (self._powers, other._powers),
            (self._colors, other._colors),
        ):
            for name, total in theirs.items():
                self._add(mine, name, total)
        self.count += other.count
        self._activation += other._activation
        self.names |= other.names
        return self

    def finalize(self, references: Sequence[str] = (), notes: Sequence[str] = ()) -> Prototype:
        """Divide the sums by the number of images.

        Args:
            references: The references' names, for the record.
            notes: Notes for the record.

        Returns:
            The statistics.

        Raises:
            UsageError: When nothing was added.
        """
        if not self.count:
            raise UsageError("no references were added, so there are no statistics")
        means = {name: (total / self.count).to(self._dtype) for name, total in self._sums.items()}
        weights = {name: (total / self.count).to(self._dtype) for name, total in self._peaks.items()}
        mean = self._activation / self.count
        known = None if isnan(mean) else mean
        shares = {name: float(new / old) if new > 0 else 1.0 for name, (new, old) in self._squares.items()}
        return Prototype(
            values=means,
            count=self.count,
            references=tuple(references),
            notes=tuple(notes),
            channel_weights=weights or None,
            activation=known,
            shrinkage=shares or None,
            spread=self._measure_spread(),
            colors=self._measure_colors(),
        )

    def _measure_spread(self) -> dict[str, float]:
        """The references' mean square minus that of their mean: exactly their own mean loss."""
        return {
            name: max(0.0, float(self._powers[name] / self.count - (total / self.count).square().mean()))
            for name, total in self._sums.items()
        }

    def _measure_colors(self) -> ColorStatistics | None:
        if not self._colors:
            return None
        mean, products = (self._colors[name] / self.count for name in ("mean", "products"))
        covariance = products - torch.outer(mean, mean)
        rows = tuple(tuple(row) for row in covariance.tolist())
        return ColorStatistics(tuple(mean.tolist()), rows, float(self._colors["variation"]) / self.count)

    def _add(self, sums: dict[str, Tensor], name: str, total: Tensor) -> None:
        if name in sums and sums[name].shape != total.shape:
            raise UsageError(f"{name} has {tuple(total.shape)} values here and had {tuple(sums[name].shape)} before")
        sums[name] = sums[name] + total if name in sums else total


def resample_ranks(prototype: Float[Tensor, "channels ranks"], positions: int) -> Float[Tensor, "channels positions"]:
    """Give the same distributions on another number of ranks, linearly between the middles of the old ones.

    Args:
        prototype: Values in ascending order.
        positions: The number of ranks.

    Returns:
        Values in ascending order.
    """
    if prototype.shape[1] == positions:
        return prototype
    return torch.nn.functional.interpolate(prototype[None], positions, mode="linear", align_corners=False)[0]
