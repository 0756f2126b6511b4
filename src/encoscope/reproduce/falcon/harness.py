"""What FALCON's figures and claims work with: an encoder fitted on photos, features to describe, sheets and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from encoscope import vlm
from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import short
from encoscope.falcon import Description, Descriptions, Falcon
from encoscope.falcon.selection import find_active
from encoscope.falcon.spaces import Space
from encoscope.metrics import Interval
from encoscope.reproduce.inputs import held_out
from encoscope.units import parse_unit

DEFAULTS: Mapping[str, Any] = {"vlm": "", "captions": "", "preset": "paper", "deviations": 5.0}
"""What all of FALCON's experiments can be asked. vlm, captions: the image-text model and the folder of its captions, by
default the zoo's. preset: "paper" or "authors". deviations: alpha is the mean plus so many standard deviations."""

STAND_IN = "zoo:resnet-caltech101"
SIMCLR = "a ResNet-18 trained by SimCLR on ImageNet"
DINO = "hub:facebookresearch/dino:dino_resnet50"
"""Fig. 4's network; that of Fig. 2 has no public weights of record."""


def encoders(request: EvaluationRequest, paper: str | None, stand_ins: Sequence[str] = (STAND_IN,)) -> list[Encoder]:
    """The networks named, the paper's own for "paper", or the stand-ins."""
    models: Sequence[str] = request.models or stand_ins
    if request.models == ("paper",):
        if paper is None:
            raise UsageError(f"the paper's network, {SIMCLR}, has no public weights: give --model timm:resnet18@FILE")
        models = (paper,)
    return [load(model, **{**request.load, "random_state": request.seed}) for model in models]


def fitted(request: EvaluationRequest, asked: Mapping[str, Any], encoder: Encoder, **settings: Any) -> Falcon:
    """FALCON on the first dataset, tested on the second, on its test split, or on a fifth of it."""
    if not request.datasets:
        raise UsageError("FALCON's experiments need --dataset, photos to probe: a folder, or caltech101:ROOT#train")
    model = vlm.load(asked["vlm"]) if asked["vlm"] else None
    found = Falcon(
        encoder,
        model,
        asked["captions"] or None,
        preset=asked["preset"],
        deviations=float(asked["deviations"]),
        holdout=held_out(request.datasets) or 0.2,
        progress=request.progress,
        seed=request.seed,
        **settings,
    )
    return found.fit(request.datasets[0])


def features(falcon: Falcon) -> Space:
    """The pooled features of the photos."""
    return falcon.space(parse_unit("features:0", falcon.encoder))


def drawn(request: EvaluationRequest, width: int, count: int | None) -> list[str]:
    """Features at random: ``--limit`` of them, ``count`` if not said, all if that is None."""
    order = np.random.default_rng(request.seed).permutation(width)[: request.limit or count]
    return [f"features:{index}" for index in sorted(order.tolist())]


def firing(falcon: Falcon, request: EvaluationRequest, count: int, least: int) -> list[str]:
    """Features at random among those that at least so many images activate highly; without any, among all that vary."""
    h, limits = features(falcon).fit.h, features(falcon).thresholds
    units = [parse_unit(f"features:{index}", falcon.encoder) for index in range(h.shape[1])]
    often = [unit.index for unit in units if find_active(h, unit, limits.alpha, falcon.settings_.mode).sum() >= least]
    often = often or np.flatnonzero(h.max(0) > h.min(0)).tolist()
    order = np.random.default_rng(request.seed).permutation(often)[: request.limit or count]
    return [f"features:{index}" for index in sorted(order.tolist())]


def described(falcon: Falcon, units: Sequence[str]) -> Descriptions:
    """The units in words, all together."""
    found = falcon.describe(list(units))
    assert isinstance(found, Descriptions)  # a list was asked for
    return found


def auc_of(item: Description) -> Interval | None:
    """A description's AUC on photos it was not made from; None where it could not be tested."""
    return None if item.heldout is None else item.heldout.auc


def words(item: Description, most: int = 5) -> str:
    """The best concepts in a cell, or why there are none."""
    return ", ".join(item.words[:most]) or item.note


def stacked(sheets: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Image.Image:
    """Sheets one below the other, on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255) for sheet in sheets]
    return Image.fromarray(np.concatenate(padded))


def report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    falcon: Falcon,
    request: EvaluationRequest,
    asked: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
    pictures: Mapping[str, Image.Image] | None = None,
    paper: str = "",
) -> Report:
    """The report of an experiment. paper: what the paper ran it on, told where ours is another network."""
    other = held_out(request.datasets)
    tested = f"tested on {short(other)}" if other else "tested on a fifth of them"
    made = features(falcon).fit
    said = [
        f"{falcon.encoder.source}; {len(made.ids)} photos of {short(request.datasets[0])}, {tested}; images and "
        f"{len(falcon.captions_):,} captions by {falcon.vlm_.source}; preset {asked['preset']}.",
        *([f"A stand-in: the paper shows {paper}."] if paper else []),
    ]
    return Report(
        name,
        f"FALCON: {title}",
        rows,
        [*notes, *said],
        pictures or {},
        {
            "model": falcon.encoder.source,
            "vlm": falcon.vlm_.source,
            "datasets": list(request.datasets),
            "limit": request.limit,
            **asked,
        },
        request.seed,
    )
