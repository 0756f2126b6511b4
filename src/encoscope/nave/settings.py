"""How composite features are made and grouped, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.nave.composite import layer_weights
from encoscope.nave.layers import choose_layers

Clusters: TypeAlias = int | str | Sequence[int]  # the word is "auto"
Resolution: TypeAlias = int | str  # the words are "first-layer" and "image"
Size: TypeAlias = int | str  # the words are "model" and "native"

GROUPINGS = ("kmeans", "ward", "pca")
MAX_CLUSTERS = 256
"""What a label of 8 bits, and a palette, can tell apart."""


@dataclass(frozen=True)
class NaveSettings:
    """The settings of a segmentation; ``segment`` says what each means. Raises UsageError for impossible ones."""

    layers: tuple[str, ...]
    clusters: int | str | tuple[int, ...] = 5
    grouping: str = "kmeans"
    weighting: str | tuple[float, ...] = "paper"
    resolution: Resolution = "first-layer"
    size: Size = "model"
    n_init: int = 4
    seed: int = 0

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        *,
        layers: Sequence[str] | str | None = None,
        clusters: Clusters = 5,
        weighting: str | Sequence[float] = "paper",
        **others: Any,
    ) -> NaveSettings:
        """Settings for an encoder: layers found or checked, sequences as tuples."""
        chosen = choose_layers(encoder, layers)
        layer_weights([encoder.layer(name).channels for name in chosen], weighting)
        return cls(
            layers=chosen,
            clusters=clusters if isinstance(clusters, int | str) else tuple(clusters),
            weighting=weighting if isinstance(weighting, str) else tuple(weighting),
            **others,
        )

    def __post_init__(self) -> None:
        numbers = (self.clusters,) if isinstance(self.clusters, int) else self.clusters
        if numbers != "auto" and not (numbers and all(_counts(k, MAX_CLUSTERS) for k in numbers)):
            raise UsageError(f'clusters is "auto", or whole numbers from 1 to {MAX_CLUSTERS}, not {self.clusters!r}')
        if self.grouping not in GROUPINGS:
            raise UsageError(f"grouping is one of {', '.join(GROUPINGS)}, not {self.grouping!r}")
        if self.clusters == "auto" and self.grouping != "kmeans":
            raise UsageError('clusters="auto" reads the elbow of k-means inertia: use grouping="kmeans" with it')
        if isinstance(self.clusters, tuple) and self.grouping == "pca":
            raise UsageError('several numbers of clusters are cuts of a Ward tree: grouping="pca" takes one number')
        if self.resolution not in ("first-layer", "image") and not _counts(self.resolution):
            raise UsageError(f'resolution is "first-layer", "image" or a number of cells, not {self.resolution!r}')
        if self.size not in ("model", "native") and not _counts(self.size):
            raise UsageError(f'size is "model", "native" or a number of pixels, not {self.size!r}')
        if not _counts(self.n_init):
            raise UsageError(f"n_init is the number of starts, at least 1, not {self.n_init!r}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a result document; layers and seed have their own places in it."""
        return {name: value for name, value in asdict(self).items() if name not in ("layers", "seed")}


def _counts(value: object, most: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and (most is None or value <= most)
