"""The result of one pass over a dataset: a value for every image and channel, and their moments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from encoscope.counting import count_noun
from encoscope.defaults import FEATURES
from encoscope.encoder import Encoder, gives_kept_outputs
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import SkippedImage
from encoscope.probing.ids import hash_files, rank_ids
from encoscope.probing.moments import Moments

_ROWS = 4096  # rows that are in memory at once where all have to be seen


@dataclass(frozen=True, eq=False)
class Probe:
    """The values of a layer's channels on every image of a dataset that could be read, in the dataset's order.

    Attributes:
        values: ``[images, channels]``, float32, mapped from disk: the pooled features, the logits, or a layer's spatial
            means.
        ids: sha256 of each file.
        paths: Each image's file, None for values without files.
        labels: Each image's class name, None where there is none.
        skipped: Files that could not be read, with the reasons.
        layer: "features", "logits", a layer's name, or NAME@cls.
        encoder_digest: The network's digest; "" if it is not known.
        mean: Mean of each channel over the images, float64.
        std: Standard deviation of each channel over the images, float64.
        path: The store's folder, None for values in memory.
        imported: Where the values are from if they were computed elsewhere; "" for the network's own.
        trial: The network's outputs for a trial input when the values were computed; None if they are not known.
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
    imported: str = ""
    trial: Mapping[str, Any] | None = field(default=None, repr=False)
    _top: Integer[np.ndarray, "k channels"] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Number of images with values."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Probe({self.layer}, {count_noun(len(self), 'image')}, {count_noun(self.values.shape[1], 'channel')})"

    @classmethod
    def from_arrays(
        cls,
        values: Float[np.ndarray, "images channels"],
        *,
        ids: Sequence[str] | None = None,
        paths: Sequence[str | os.PathLike[str] | None] | None = None,
        labels: Sequence[str | None] | None = None,
        skipped: Iterable[SkippedImage] = (),
        layer: str = FEATURES,
        encoder_digest: str = "",
    ) -> Probe:
        """Make a probe in memory from values that were computed elsewhere.

        Args:
            values: The value of each channel on each image.
            ids: An id for each image; if left out, the sha256 of the files at ``paths``, or running numbers.
            paths: A file for each image, None for an image without one.
            labels: A class name for each image, None for an image without one.
            skipped: Files that could not be read.
            layer: What the channels are: "features", "logits", a layer's name, or NAME@cls.
            encoder_digest: The digest of the network; "" fits every network.

        Returns:
            The probe.

        Raises:
            UsageError: The lengths differ, or values are not finite.

        Example:
            >>> Probe.from_arrays(np.array([[1.0, 2.0], [3.0, 4.0]])).mean.tolist()
            [2.0, 3.0]
        """
        values = np.asarray(values, np.float32)
        check_values(values)
        count = len(values)
        if ids is None:
            known = paths is not None and all(path is not None for path in paths)
            files = [Path(path) for path in paths or () if path is not None] if known else []
            ids = hash_files(files) if known else [f"{number:09d}" for number in range(count)]
        texts = [None if path is None else os.fspath(path) for path in paths] if paths is not None else [None] * count
        names = list(labels) if labels is not None else [None] * count
        for kind, entries in (("ids", ids), ("paths", texts), ("labels", names)):
            if len(entries) != count:
                raise UsageError(f"{len(entries)} {kind} for {count} rows of values")
        mean, std = compute_moments(values).finalize()
        imported = "" if encoder_digest else "an array"
        rows = (values, tuple(ids), tuple(texts), tuple(names), tuple(skipped))
        return cls(*rows, layer, encoder_digest, mean, std, imported=imported)

    def normalize(self) -> Float[np.ndarray, "images channels"]:
        """Scale every image's values to length 1 (L2), in memory; an image of zeros stays zero."""
        values = np.array(self.values, np.float32)
        for start in range(0, len(values), _ROWS):
            chunk = values[start : start + _ROWS]
            length = np.sqrt(np.square(chunk, dtype=np.float64).sum(1, keepdims=True))
            chunk /= np.where(length > 0, length, 1).astype(np.float32)
        return values

    def find_top(self, channel: int, k: int) -> Integer[np.ndarray, " k"]:
        """Find the images on which a channel's value is largest.

        Args:
            channel: The channel's index.
            k: How many images, at least 1.

        Returns:
            Their rows, the largest value first, ties by image id.

        Raises:
            UsageError: There is no such channel, or k is out of range.
            EncoscopeError: There are fewer images than k.
        """
        if not 0 <= channel < self.values.shape[1]:
            raise UsageError(f"there is no channel {channel}: {self.layer} has {self.values.shape[1]}")
        if k < 1:
            raise UsageError(f"k is a number from 1 on, not {k}")
        self.check_count(k, f"the top {k}")
        if self._top is not None and k <= len(self._top):
            return self._top[:k, channel]
        return np.lexsort((rank_ids(self.ids), -self.values[:, channel]))[:k]

    def check_count(self, count: int, purpose: str) -> None:
        """Check that there are enough images.

        Args:
            count: The least number of images.
            purpose: What they are needed for, which begins the message.

        Raises:
            EncoscopeError: There are fewer.
        """
        if len(self) < count:
            left_out = f" ({len(self.skipped)} could not be read)" if self.skipped else ""
            raise EncoscopeError(f"{purpose} takes {count} images, and the probe has {len(self)}{left_out}: give more")

    def check(self, encoder: Encoder, layer: str) -> None:
        """Check that this is a probe of a layer of an encoder.

        Args:
            encoder: The network.
            layer: "features", "logits", a layer's name, or NAME@cls.

        Raises:
            UsageError: It is a probe of another layer or network; the message says how to make the right one.
        """
        if layer != self.layer:
            raise UsageError(
                f"this probe is of layer {self.layer!r}, not {layer!r}: make one with encoscope probe --layer {layer}"
            )
        if self.encoder_digest and self.encoder_digest != encoder.digest:
            raise UsageError(
                f"this probe was made with another model (digest {self.encoder_digest[:12]}; {encoder.source} has "
                f"{encoder.digest[:12]}): make one with encoscope probe --model {encoder.source}"
            )
        layers = () if layer in ("features", "logits") else (layer.partition("@")[0],)
        if self.trial is not None and not gives_kept_outputs(encoder, self.trial, layers):
            raise UsageError(
                f"this probe was made with a network of the same weights that gives other outputs than "
                f"{encoder.source}: make one with encoscope probe --model {encoder.source}"
            )


def compute_moments(values: Float[np.ndarray, "images channels"]) -> Moments:
    """Compute the moments of values that may be mapped from disk, a block of rows at a time.

    Args:
        values: The value of each channel on each image.

    Returns:
        The moments.
    """
    moments = Moments(values.shape[1])
    for start in range(0, len(values), _ROWS):
        moments.partial_fit(values[start : start + _ROWS])
    return moments


def check_values(values: np.ndarray) -> None:
    """Check that values are finite numbers.

    Args:
        values: ``[images, channels]``; it may be mapped from disk.

    Raises:
        UsageError: The array has another shape or dtype, or holds NaN or infinite numbers.
    """
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise UsageError(f"values are numbers of shape [images, channels], not {values.dtype} {values.shape}")
    for start in range(0, len(values), _ROWS):
        finite = np.isfinite(values[start : start + _ROWS]).all(1)
        if not finite.all():
            raise UsageError(f"row {start + int(finite.argmin())} of the values holds NaN or infinite numbers")
