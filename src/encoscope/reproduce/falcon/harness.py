"""What FALCON's figures and claims work with: an estimator fitted on images, features to describe, and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from encoscope import vlm
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.evaluation.runner import shorten_dataset
from encoscope.falcon import DescribedGroup, Description, Descriptions, Falcon
from encoscope.falcon.selection import find_active
from encoscope.falcon.spaces import Space
from encoscope.metrics import Interval
from encoscope.reproduce.inputs import choose_heldout_dataset
from encoscope.units import parse_unit

DEFAULTS: Mapping[str, Any] = {"vlm": "", "captions": "", "preset": "paper", "alpha_stds": 5.0}
"""Settings of all of FALCON's experiments. vlm, captions: the image-text model and the folder of its captions, by
default the zoo's. preset: "paper" or "authors". alpha_stds: alpha is the mean plus so many standard deviations."""

STAND_IN = "zoo:resnet-caltech101"
SIMCLR = "a ResNet-18 trained by SimCLR on ImageNet"
DINO = "hub:facebookresearch/dino:dino_resnet50"
"""Fig. 4's network; that of Fig. 2 has no public weights of record."""


def fit_falcon(request: EvaluationRequest, settings: Mapping[str, Any], encoder: Encoder, **options: Any) -> Falcon:
    """Fit FALCON on the first dataset, tested on the second, on its test split, or on a fifth of it.

    Args:
        request: the experiment's request.
        settings: the experiment's settings, ``DEFAULTS`` among them.
        encoder: the network.
        options: further arguments of ``Falcon``.

    Returns:
        The fitted estimator.

    Raises:
        UsageError: without a dataset.
    """
    if not request.datasets:
        raise UsageError("FALCON's experiments need --dataset, images to probe: a folder, or caltech101:ROOT#train")
    model = vlm.load(settings["vlm"]) if settings["vlm"] else None
    falcon = Falcon(
        encoder,
        vlm=model,
        captions=settings["captions"] or None,
        preset=settings["preset"],
        alpha_stds=float(settings["alpha_stds"]),
        holdout=choose_heldout_dataset(request.datasets) or 0.2,
        progress=request.progress,
        random_state=request.seed,
        **options,
    )
    return falcon.fit(request.datasets[0])


def feature_space(falcon: Falcon) -> Space:
    """Return the space of the pooled features of the images.

    Args:
        falcon: a fitted estimator.

    Returns:
        The features of the images that descriptions are made from and tested on.
    """
    return falcon.find_space(parse_unit("features:0", falcon.encoder_))


def draw_features(request: EvaluationRequest, width: int, count: int | None) -> list[str]:
    """Draw features at random.

    Args:
        request: its ``limit`` is the number of features.
        width: number of features of the network.
        count: number of features where no limit is set; None for all.

    Returns:
        Features as units, such as ``features:7``.
    """
    order = np.random.default_rng(request.seed).permutation(width)[: request.limit or count]
    return [f"features:{index}" for index in sorted(order.tolist())]


def draw_active_features(falcon: Falcon, request: EvaluationRequest, count: int, min_images: int) -> list[str]:
    """Draw features at random among those that many images activate highly; without any, among all that vary.

    Args:
        falcon: a fitted estimator.
        request: its ``limit`` is the number of features.
        count: number of features where no limit is set.
        min_images: number of images that must pass alpha.

    Returns:
        Features as units, such as ``features:7``.
    """
    h, limits = feature_space(falcon).fit.h, feature_space(falcon).thresholds
    units = [parse_unit(f"features:{index}", falcon.encoder_) for index in range(h.shape[1])]
    frequent = [
        unit.index for unit in units if find_active(h, unit, limits.alpha, falcon.settings_.mode).sum() >= min_images
    ]
    frequent = frequent or np.flatnonzero(h.max(0) > h.min(0)).tolist()
    order = np.random.default_rng(request.seed).permutation(frequent)[: request.limit or count]
    return [f"features:{index}" for index in sorted(order.tolist())]


def describe_units(falcon: Falcon, units: Sequence[str]) -> Descriptions:
    """Describe units, all together.

    Args:
        falcon: a fitted estimator.
        units: the units.

    Returns:
        A description of each unit, with a summary.
    """
    return falcon.describe(list(units))


def describe_with_members(
    falcon: Falcon, groups: Sequence[DescribedGroup]
) -> list[tuple[Description, list[Description]]]:
    """Describe each group of features and its features alone; all are described together.

    Args:
        falcon: a fitted estimator.
        groups: groups of features.

    Returns:
        For each group, its description and those of its features.
    """
    if not groups:
        return []
    singles = sorted({member for group in groups for member in group.members})
    names = [*(f"features:{member}" for member in singles), *(group.unit for group in groups)]
    described = {item.unit: item for item in describe_units(falcon, names)}
    return [(described[group.unit], [described[f"features:{member}"] for member in group.members]) for group in groups]


def auc_of(item: Description) -> Interval | None:
    """Return a description's AUC on images that it was not made from.

    Args:
        item: the description.

    Returns:
        The AUC; None where it could not be tested.
    """
    return None if item.heldout is None else item.heldout.auc


def join_words(item: Description, count: int = 5) -> str:
    """Join the best concepts in a cell of a table.

    Args:
        item: the description.
        count: number of concepts, at most.

    Returns:
        The concepts, or why there are none.
    """
    return ", ".join(item.words[:count]) or item.note


def stack_sheets(sheets: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Image.Image:
    """Stack sheets one below the other, on white.

    Args:
        sheets: images of any width.

    Returns:
        An image.
    """
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255) for sheet in sheets]
    return Image.fromarray(np.concatenate(padded))


def build_report(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    falcon: Falcon,
    request: EvaluationRequest,
    settings: Mapping[str, Any],
    *,
    notes: Sequence[str] = (),
    sheets: Mapping[str, Image.Image] | None = None,
    paper: str = "",
) -> Report:
    """Build the report of an experiment, with notes on the network, the images and the captions.

    Args:
        name: name of the experiment.
        title: what it shows.
        rows: the table.
        falcon: the fitted estimator.
        request: the experiment's request.
        settings: the experiment's settings.
        notes: what a reader must know, before the notes on networks and images.
        sheets: images by file name.
        paper: what the paper ran it on, if ours is another network.

    Returns:
        The report.
    """
    other = choose_heldout_dataset(request.datasets)
    tested = f"tested on {shorten_dataset(other)}" if other else "tested on a fifth of them"
    images = feature_space(falcon).fit
    provenance = [
        f"{falcon.encoder_.source}; {len(images.ids)} images of {shorten_dataset(request.datasets[0])}, {tested}; "
        f"images and {len(falcon.captions_):,} captions by {falcon.vlm_.source}; preset {settings['preset']}.",
        *([f"A stand-in: the paper shows {paper}."] if paper else []),
    ]
    return Report(
        name,
        f"FALCON: {title}",
        rows,
        [*notes, *provenance],
        sheets or {},
        {
            "model": falcon.encoder_.source,
            "vlm": falcon.vlm_.source,
            "datasets": list(request.datasets),
            "limit": request.limit,
            **settings,
        },
        request.seed,
    )
