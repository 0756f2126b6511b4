"""All stages in order. Each skips what is done already, and after each the pages show what there is so far."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from encoscope.atlas.build import activations, classes, images, segmentation
from encoscope.atlas.build.plan import (
    BuildOptions,
    BuildPlan,
    choose_units,
    collect_values,
    describe_source,
    plan_build,
)
from encoscope.atlas.writer import Writer, clear_site
from encoscope.encoder import Encoder, as_encoder
from encoscope.images import SkippedImage
from encoscope.progress import Progress
from encoscope.results import record_warnings


def build_atlas(
    encoder: Encoder | nn.Module | str,
    images: Any,
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    title: str | None = None,
    fresh: bool = False,
    progress: Progress = None,
) -> Path:
    """Build an atlas of an encoder over a dataset, or resume building it.

    The site is a valid atlas after every stage; what it holds already is not computed again.

    Args:
        encoder: An encoder, a module or a source string.
        images: A dataset string, a folder, or a list of files.
        path: The site's folder.
        options: What the atlas holds; None takes the defaults.
        title: What the pages call the atlas; None takes the encoder's source.
        fresh: Start over instead of resuming.
        progress: How progress is shown; see ``encoscope.progress.Progress``.

    Returns:
        The site's folder.

    Raises:
        UsageError: Unknown layers or units; a site made from another model, other images or other settings.
        MissingError: Data, captions or weights that are not there.

    Example:
        ::

            encoder = encoscope.load("zoo:resnet-caltech101")
            build_atlas(encoder, "caltech101:ROOT#train", "SITE", BuildOptions(max_images=500, classes=20))
    """
    encoder, options = as_encoder(encoder), options or BuildOptions()
    plan = plan_build(encoder, images, options, progress=progress)
    if fresh:
        clear_site(path)
    writer = Writer(
        path,
        title=title or encoder.source,
        model={
            "source": encoder.source,
            "digest": encoder.digest,
            **record_warnings(encoder),
            "layers": list(plan.layers),
            **encoder.record,
            "input": f"{encoder.preprocess.size[0]} x {encoder.preprocess.size[1]} pixels",
            "preprocess": encoder.record_preprocess(),
        },
        data={
            "source": describe_source(images),
            "images": len(plan.ids),
            "digest": hashlib.sha256("\n".join(plan.ids).encode()).hexdigest(),
        },
        settings=plan.describe_settings(),
        random_state=options.random_state,
        key=plan.key,
    )
    with writer:
        writer.skipped = [_without_folder(item) for item in plan.skipped]
        _run_stages(writer, plan)
    return Path(path)


def _run_stages(writer: Writer, plan: BuildPlan) -> None:
    images.add_images(writer, plan)
    classes.add_classes(writer, plan)
    preferred = classes.list_channels(writer, plan)
    units = choose_units(plan, preferred)
    values, mean, std = collect_values(plan, units)
    writer.save_activations([unit.text for unit in units], list(plan.ids), values)
    activations.add_values(writer, plan, units, values, mean, std)
    activations.add_crops(writer, plan, units, values, mean, std)
    scores = (values - mean[:, None]) / np.where(std > 0, std, np.inf)[:, None]
    images.add_top_features(writer, units, scores, plan)
    _add_controls(writer, plan)
    writer.set_stage("probe", len(plan.ids), len(plan.ids))
    writer.publish()
    segmentation.segment_images(writer, plan, segmentation.UnitStatistics.select(plan.encoder, units, mean, std))
    writer.publish()
    if plan.options.describe:
        from encoscope.atlas.build.descriptions import add_descriptions

        add_descriptions(writer, plan, units, mean.tolist(), std.tolist())
        writer.publish()
    if plan.options.visualize != "none":
        from encoscope.atlas.build.visualizations import add_visualizations

        # of a list its first units; of units that were chosen, those that classes rest on
        add_visualizations(writer, plan, units, () if isinstance(plan.options.features, tuple) else preferred)


def _add_controls(writer: Writer, plan: BuildPlan) -> None:
    writer.add_control(
        "Nearest features: correlations over the images, beside the size that 19 of 20 pairs stay below when the "
        "images of one side are permuted."
    )
    if plan.classes:
        writer.add_control(
            "Probabilities and accuracy stand beside guessing, circuits beside an equal share of channels."
        )
    writer.add_control(
        "Values of features are given in standard deviations above their mean over this atlas's images, which is the "
        "ordinary image's value."
    )


def _without_folder(item: SkippedImage) -> dict[str, str]:
    """What was left out, without the folders of this machine: pages may be shown to others."""
    name = Path(item.path).name
    return {"path": name, "reason": item.reason.replace(item.path, name)}
