"""The representations that descriptions are made from, and those that are held out to test them, for each space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.falcon.heldout import choose_heldout
from encoscope.falcon.selection import Thresholds, compute_thresholds
from encoscope.falcon.settings import FalconSettings
from encoscope.images import SkippedImage
from encoscope.probing import Probe
from encoscope.probing import probe as probe_dataset
from encoscope.progress import Progress
from encoscope.units import Unit, parse_unit

MIN_IMAGES = 10
"""The least images that descriptions are made from."""


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
    """

    name: str
    fit: ProbedImages
    heldout: ProbedImages | None
    thresholds: Thresholds
    skipped: tuple[SkippedImage, ...]

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
        holdout: A share of the images, chosen by their ids alone; or another dataset or Probe, of which images that the
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
        kept = choose_heldout(probe.ids, float(share))
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
    return Space(name, fit, heldout if heldout.ids else None, thresholds, probe.skipped)


def parse_units(units: Any, encoder: Encoder) -> tuple[list[Unit], bool]:
    """Find the units that texts and Units name.

    Args:
        units: A text, a Unit, or a list of these. "all" is every pooled feature; LAYER:all, features:all and class:all
            every unit of theirs.
        encoder: The encoder.

    Returns:
        The units, each once, and whether a single one was named.

    Raises:
        UsageError: For no units, and for what names none.
    """
    if isinstance(units, str | Unit):
        if isinstance(units, str) and (units == "all" or units.endswith(":all")):
            return list_units(units.removesuffix("all").removesuffix(":") or "features", encoder), False
        return [parse_unit(units, encoder)], True
    parsed = [unit for item in units for unit in parse_units(item, encoder)[0]]
    if not parsed:
        raise UsageError('no units were given: name at least one, such as features:31, or "all"')
    return list(dict.fromkeys(parsed)), False


def list_units(layer: str, encoder: Encoder) -> list[Unit]:
    """List all features, classes, or channels of a layer as units.

    Args:
        layer: "features", "class" or a layer's name.
        encoder: The encoder.

    Returns:
        The units in the order of their numbers.

    Raises:
        UsageError: For an unknown layer, and for the classes of an encoder without a head.
    """
    if layer == "features":
        return [Unit(f"features:{i}", "features", channels=(i,)) for i in range(encoder.width)]
    if layer == "class":
        count = encoder.outputs or parse_unit("class:0", encoder).index  # the latter raises, saying why there are none
        return [Unit(f"class:{i}", "class", channels=(i,)) for i in range(count)]
    info = encoder.layer(layer)
    return [Unit(f"{layer}:{i}", "channel", layer, (i,)) for i in range(info.channels)]


def _probe(
    encoder: Encoder, name: str, dataset: Any, progress: Progress, cache_dir: str | os.PathLike[str] | None
) -> Probe:
    if isinstance(dataset, Sequence) and dataset and all(isinstance(item, Probe) for item in dataset):
        dataset = next((item for item in dataset if item.layer == name), dataset[0])
    return probe_dataset(encoder, dataset, name, progress=progress, cache_dir=cache_dir)


def _take_rows(probe: Probe, rows: Int[np.ndarray, " rows"]) -> ProbedImages:
    values = probe.values if len(rows) == len(probe) else np.asarray(probe.values[rows])
    subset = Probe.from_arrays(values, ids=[probe.ids[row] for row in rows]) if len(rows) else None
    return ProbedImages(
        h=np.zeros((0, probe.values.shape[1]), np.float32) if subset is None else subset.normalize(),
        values=values,
        ids=tuple(probe.ids[row] for row in rows),
        paths=tuple(probe.paths[row] for row in rows),
    )
