"""What one pass over a dataset leaves: a value for every image and channel, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import SkippedImage
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.moments import Moments

_ROWS = 4096  # rows that are in memory at once where all have to be seen


@dataclass(frozen=True, eq=False)
class Probe:
    """The values of a layer's channels on every image of a dataset that could be read, in the dataset's order.

    values: ``[images, channels]``, float32, mapped from disk: the pooled features, the logits, or a layer's spatial
        means. ids: sha256 of each file. paths: where they are, None for values without files. labels: a class name
        each, None where there is none. skipped: what could not be read, and why.
    layer: "features", "logits", a layer's name, or NAME@cls. encoder_digest: of the network; "" if not known.
    mean, std: per channel over the images, float64. path: the store's folder, None for values in memory.
    """

    values: Float[np.ndarray, "images channels"]
    ids: tuple[str, ...]
    paths: tuple[str | None, ...]
    labels: tuple[str | None, ...]
    skipped: tuple[SkippedImage, ...]
    layer: str
    encoder_digest: str
    mean: Float[np.ndarray, " channels"]
    std: Float[np.ndarray, " channels"]
    path: Path | None = None
    _top: Integer[np.ndarray, "k channels"] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Number of images with values."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Probe({self.layer}, {len(self)} images, {self.values.shape[1]} channels)"

    @classmethod
    def from_arrays(
        cls,
        values: Float[np.ndarray, "images channels"],
        *,
        ids: Sequence[str] | None = None,
        paths: Sequence[str | os.PathLike[str] | None] | None = None,
        labels: Sequence[str | None] | None = None,
        skipped: Iterable[SkippedImage] = (),
        layer: str = "features",
        encoder_digest: str = "",
    ) -> Probe:
        """Values that were computed elsewhere, in memory.

        ids: left out, those of the files at ``paths``, or running numbers. Raises UsageError for lengths that do not
        agree and for values that are not finite.
        """
        values = np.asarray(values, np.float32)
        check_values(values)
        count = len(values)
        if ids is None:
            known = paths is not None and all(path is not None for path in paths)
            files = [Path(path) for path in paths or () if path is not None] if known else []
            ids = hash_files(files) if known else [f"{number:09d}" for number in range(count)]
        places = [None if path is None else os.fspath(path) for path in paths] if paths is not None else [None] * count
        names = list(labels) if labels is not None else [None] * count
        for what, given in (("ids", ids), ("paths", places), ("labels", names)):
            if len(given) != count:
                raise UsageError(f"{len(given)} {what} for {count} rows of values")
        mean, std = compute_moments(values).finalize()
        return cls(values, tuple(ids), tuple(places), tuple(names), tuple(skipped), layer, encoder_digest, mean, std)

    def normalised(self) -> Float[np.ndarray, "images channels"]:
        """The values with every image's vector at unit length (L2), in memory; an image of zeros stays zero."""
        found = np.array(self.values, np.float32)
        for start in range(0, len(found), _ROWS):
            part = found[start : start + _ROWS]
            length = np.sqrt(np.square(part, dtype=np.float64).sum(1, keepdims=True))
            part /= np.where(length > 0, length, 1).astype(np.float32)
        return found

    def top(self, channel: int, k: int) -> Integer[np.ndarray, " k"]:
        """The rows of the k images of largest value, the largest first; ties by image id.

        Raises UsageError for a channel that is not there, EncoscopeError for fewer images than k.
        """
        if not 0 <= channel < self.values.shape[1]:
            raise UsageError(f"there is no channel {channel}: {self.layer} has {self.values.shape[1]}")
        if k < 1:
            raise UsageError(f"k is a number from 1 on, not {k}")
        self.need(k, f"the top {k}")
        if self._top is not None and k <= len(self._top):
            return self._top[:k, channel]
        return np.lexsort((rank_ids(self.ids), -self.values[:, channel]))[:k]

    def need(self, count: int, what: str) -> None:
        """EncoscopeError unless there are at least ``count`` images; ``what`` begins the message."""
        if len(self) < count:
            left_out = f" ({len(self.skipped)} could not be read)" if self.skipped else ""
            raise EncoscopeError(f"{what} takes {count} images, and the probe has {len(self)}{left_out}: give more")

    def check(self, encoder: Encoder, layer: str) -> None:
        """UsageError, with the cure, when this is not a probe of this layer of this encoder."""
        if layer != self.layer:
            raise UsageError(
                f"this probe is of layer {self.layer!r}, not {layer!r}: make one with encoscope probe --layer {layer}"
            )
        if self.encoder_digest and self.encoder_digest != encoder.digest:
            raise UsageError(
                f"this probe was made with another model (digest {self.encoder_digest[:12]}; {encoder.source} has "
                f"{encoder.digest[:12]}): make one with encoscope probe --model {encoder.source}"
            )


def compute_moments(values: Float[np.ndarray, "images channels"]) -> Moments:
    """The moments of mapped values, some rows at a time."""
    found = Moments(values.shape[1])
    for start in range(0, len(values), _ROWS):
        found.partial_fit(values[start : start + _ROWS])
    return found


def check_values(values: np.ndarray) -> None:
    """UsageError unless these are finite numbers ``[images, channels]``."""
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise UsageError(f"values are numbers of shape [images, channels], not {values.dtype} {values.shape}")
    for start in range(0, len(values), _ROWS):
        finite = np.isfinite(values[start : start + _ROWS]).all(1)
        if not finite.all():
            raise UsageError(f"row {start + int(finite.argmin())} of the values holds NaN or infinite numbers")
