"""The representations that descriptions are made from, and those that are held out to test them, for each space."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon.settings import FalconSettings
from encoscope.images import SkippedImage, count_classes, split_images
from encoscope.probing import Probe
from encoscope.probing import probe as probe_dataset
from encoscope.progress import Progress

MIN_IMAGES = 10
"""The least images that descriptions are made from."""

_ROWS = 4096  # images of whose values a sum is taken at a time


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a space on normalized representations.

    Attributes:
        mean: Over all entries of the matrix.
        std: Over all entries, as a sample's.
        alpha: An image above it activates a unit highly.
        epsilon: An image below it activates a unit lowly.
    """

    mean: float
    std: float
    alpha: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class ProbedImages:
    """Some rows of a probe.

    Attributes:
        h: ``[images, channels]``, the representations scaled to unit length.
        values: ``[images, channels]``, as the encoder gives them.
        ids: The sha256 of each file.
        paths: Their files; None for a probe without files.
    """

    h: Float[np.ndarray, "images channels"]
    values: Float[np.ndarray, "images channels"]
    ids: tuple[str, ...]
    paths: tuple[str | None, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """One space of an encoder on a probing set.

    Attributes:
        name: "features", "logits", a layer's name, or LAYER@cls.
        fit: The images that descriptions are made from.
        heldout: The images that test them; None where there are none.
        thresholds: Alpha and epsilon, from ``fit``.
        skipped: Files that could not be read.
        images: How many images there are of each kind, as results state it.
    """

    name: str
    fit: ProbedImages
    heldout: ProbedImages | None
    thresholds: Thresholds
    skipped: tuple[SkippedImage, ...]
    images: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Its channels."""
        return self.fit.h.shape[1]


def build_space(
    encoder: Encoder,
    name: str,
    dataset: Any,
    holdout: Any,
    settings: FalconSettings,
    *,
    progress: Progress = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Space:
    """Probe a dataset (or take a Probe) and hold out a part of it.

    Args:
        encoder: The encoder.
        name: The space, as in ``Unit.space``.
        dataset: A dataset, a Probe, or a list of Probes, of which the one of this space is taken.
        holdout: A share of the images, drawn with the seed from every class in proportion, of which a class always
            keeps one for its descriptions; or another dataset or Probe, of which images that the
            first one has too are left out; 0 or None for no test.
        settings: With alpha and epsilon.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        cache_dir: The folder for what was probed; None is the user's cache.

    Returns:
        The space.

    Raises:
        UsageError: For a probe of another layer or model, and a holdout of which no image is left.
        EncoscopeError: For fewer images than a description can be made from.
    """
    probe = _probe(encoder, name, dataset, progress, cache_dir)
    share = 0.0 if holdout is None else holdout
    if isinstance(share, int | float):
        kept = split_images(probe.ids, float(share), probe.labels, settings.random_state)
        fit, heldout = _take_rows(probe, np.flatnonzero(~kept)), _take_rows(probe, np.flatnonzero(kept))
    else:
        other = _probe(encoder, name, holdout, progress, cache_dir)
        used = set(probe.ids)
        fit = _take_rows(probe, np.arange(len(probe)))
        rows = np.array([row for row, image in enumerate(other.ids) if image not in used], np.int64)
        heldout = _take_rows(other, rows)
        if not heldout.ids:
            raise UsageError("every image of the holdout is in the probe too: give images that are not")
    if len(fit.ids) < MIN_IMAGES:
        left = f", {len(heldout.ids)} of them kept to test descriptions" if heldout.ids else ""
        raise EncoscopeError(
            f"descriptions are made from at least {MIN_IMAGES} images, and the probe has {len(probe)}{left}: give more"
        )
    thresholds = compute_thresholds(fit.h, settings)
    images = _count_images(probe, fit, heldout)
    return Space(name, fit, heldout if heldout.ids else None, thresholds, probe.skipped, images)


def compute_thresholds(h: Float[np.ndarray, "images channels"], settings: FalconSettings) -> Thresholds:
    """Compute alpha and epsilon of a space, where the settings do not give them.

    Args:
        h: Rows of unit length.
        settings: With ``alpha_stds``, or ``alpha`` and ``epsilon`` themselves.

    Returns:
        By default alpha = mean + 5 standard deviations and epsilon = mean, over all entries of ``h``.

    Raises:
        UsageError: For no images.

    Source: FALCON, section 3.1; the constants are those of the authors' code.
    """
    if not h.size:
        raise UsageError("no images to choose from: give a probe with at least one readable image")
    total = squares = 0.0
    for start in range(0, len(h), _ROWS):
        rows = np.asarray(h[start : start + _ROWS], dtype=np.float64)
        total += float(rows.sum())
        squares += float(np.square(rows).sum())
    mean = total / h.size
    # of a sample, as torch.std computes it
    std = float(np.sqrt(max(squares - h.size * mean**2, 0.0) / max(h.size - 1, 1)))
    return Thresholds(
        mean=mean,
        std=std,
        alpha=mean + settings.alpha_stds * std if settings.alpha is None else settings.alpha,
        epsilon=mean if settings.epsilon is None else settings.epsilon,
    )


def _probe(
    encoder: Encoder, name: str, dataset: Any, progress: Progress, cache_dir: str | os.PathLike[str] | None
) -> Probe:
    if isinstance(dataset, Sequence) and dataset and all(isinstance(item, Probe) for item in dataset):
        dataset = next((item for item in dataset if item.layer == name), dataset[0])
    return probe_dataset(encoder, dataset, name, progress=progress, cache_dir=cache_dir)


def _count_images(probe: Probe, fit: ProbedImages, heldout: ProbedImages) -> dict[str, Any]:
    """How many images stand behind descriptions, and of how many classes; and where values are from that were given."""
    counted: dict[str, Any] = {"fit": len(fit.ids), "heldout": len(heldout.ids)}
    used = set(fit.ids)
    counts = count_classes([label for image, label in zip(probe.ids, probe.labels, strict=True) if image in used])
    if counts:
        counted |= {"classes": len(counts), "fewest": min(counts.values())}
    return counted | ({"values": probe.imported} if probe.imported else {})


def _take_rows(probe: Probe, rows: Int[np.ndarray, " rows"]) -> ProbedImages:
    values = probe.values if len(rows) == len(probe) else np.asarray(probe.values[rows])
    subset = Probe.from_arrays(values, ids=[probe.ids[row] for row in rows]) if len(rows) else None
    return ProbedImages(
        h=np.zeros((0, probe.values.shape[1]), np.float32) if subset is None else subset.normalize(),
        values=values,
        ids=tuple(probe.ids[row] for row in rows),
        paths=tuple(probe.paths[row] for row in rows),
    )
