"""The representations that descriptions are made from, and those kept to test them, space by space."""

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

LEAST = 10
"""Images that descriptions are made from, at least."""


@dataclass(frozen=True, eq=False)
class ProbedImages:
    """Some rows of a probe. h: their normalised representations. values: as the encoder gives them."""

    h: Float[np.ndarray, "images channels"]
    values: Float[np.ndarray, "images channels"]
    ids: tuple[str, ...]
    paths: tuple[str | None, ...]


@dataclass(frozen=True, eq=False)
class Space:
    """One space of an encoder ("features", "logits", a layer, LAYER@cls) on a probing set.

    fit: the images that descriptions are made from. heldout: those kept to test them; None where there are none.
    thresholds: alpha and epsilon. skipped: files that could not be read.
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
    cache: str | os.PathLike[str] | None = None,
) -> Space:
    """Probe a dataset (or take a Probe) and part it.

    holdout: a share of the images, by their ids alone; or another dataset or Probe, of which images that the first one
    holds too are left out; 0 or None for no test. Raises UsageError for a probe of another layer or model,
    EncoscopeError for fewer images than a description can be made from.
    """
    probe = _probed(encoder, name, dataset, progress, cache)
    share = 0.0 if holdout is None else holdout
    if isinstance(share, int | float):
        kept = choose_heldout(probe.ids, float(share))
        made, test = _images(probe, np.flatnonzero(~kept)), _images(probe, np.flatnonzero(kept))
    else:
        other = _probed(encoder, name, holdout, progress, cache)
        used = set(probe.ids)
        made = _images(probe, np.arange(len(probe)))
        test = _images(other, np.array([row for row, name in enumerate(other.ids) if name not in used], np.int64))
        if not test.ids:
            raise UsageError("every image of the holdout is in the probe too: give images that are not")
    if len(made.ids) < LEAST:
        left = f", {len(test.ids)} of them kept to test descriptions" if test.ids else ""
        raise EncoscopeError(
            f"descriptions are made from at least {LEAST} images, and the probe has {len(probe)}{left}: give more"
        )
    limits = compute_thresholds(made.h, settings)
    return Space(name, made, test if test.ids else None, limits, probe.skipped)


def parse_units(units: Any, encoder: Encoder) -> tuple[list[Unit], bool]:
    """The units that texts and Units name, and whether it is a single one.

    "all" is every pooled feature; LAYER:all, features:all and class:all every one of theirs.
    """
    if isinstance(units, str | Unit):
        if isinstance(units, str) and (units == "all" or units.endswith(":all")):
            return list_units(units.removesuffix("all").removesuffix(":") or "features", encoder), False
        return [parse_unit(units, encoder)], True
    found = [unit for item in units for unit in parse_units(item, encoder)[0]]
    if not found:
        raise UsageError('no units were given: name some, such as features:31, or "all"')
    return list(dict.fromkeys(found)), False


def list_units(place: str, encoder: Encoder) -> list[Unit]:
    """All features, classes, or channels of a layer, as units."""
    if place == "features":
        return [Unit(f"features:{i}", "features", channels=(i,)) for i in range(encoder.width)]
    if place == "class":
        count = encoder.outputs or parse_unit("class:0", encoder).index  # the latter raises, saying why there are none
        return [Unit(f"class:{i}", "class", channels=(i,)) for i in range(count)]
    info = encoder.layer(place)
    return [Unit(f"{place}:{i}", "channel", place, (i,)) for i in range(info.channels)]


def _probed(
    encoder: Encoder, name: str, dataset: Any, progress: Progress, cache: str | os.PathLike[str] | None
) -> Probe:
    if isinstance(dataset, Sequence) and dataset and all(isinstance(item, Probe) for item in dataset):
        dataset = next((item for item in dataset if item.layer == name), dataset[0])
    return probe_dataset(encoder, dataset, name, progress=progress, cache_dir=cache)


def _images(probe: Probe, rows: Int[np.ndarray, " rows"]) -> ProbedImages:
    values = probe.values if len(rows) == len(probe) else np.asarray(probe.values[rows])
    part = Probe.from_arrays(values, ids=[probe.ids[row] for row in rows]) if len(rows) else None
    return ProbedImages(
        h=np.zeros((0, probe.values.shape[1]), np.float32) if part is None else part.normalize(),
        values=values,
        ids=tuple(probe.ids[row] for row in rows),
        paths=tuple(probe.paths[row] for row in rows),
    )
