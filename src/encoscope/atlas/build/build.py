"""All stages in order. Each skips what is done already, and after each the pages show what there is so far."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from encoscope.atlas.build import activations, classes, images, segmentation
from encoscope.atlas.build.plan import (
    BuildPlan,
    choose_units,
    collect_values,
    describe_source,
    plan_build,
)
from encoscope.atlas.settings import AtlasSettings, Count
from encoscope.atlas.writer import Writer, clear_site
from encoscope.encoder import Encoder, as_encoder, gives_kept_outputs
from encoscope.errors import explain_calls
from encoscope.images import SkippedImage
from encoscope.progress import Progress
from encoscope.results import record_model


@explain_calls
def build_atlas(
    encoder: Encoder | nn.Module | str,
    images: Any,
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    features: Count | Sequence[str] | None = None,
    classes: Count | None = None,
    visualize: Count | None = None,
    describe: bool | None = None,
    max_images: int | None = None,
    crops: int | None = None,
    cells: int | None = None,
    captions: str | os.PathLike[str] | None = None,
    vlm: str | None = None,
    steps: int | None = None,
    random_state: int = AtlasSettings.random_state,
    title: str | None = None,
    fresh: bool = False,
    progress: Progress = None,
) -> Path:
    """Build an atlas of an encoder over a dataset, or resume building it.

    The site is a valid atlas after every stage; what it holds already is not computed again. `AtlasSettings` says what
    each setting means and what its default is.

    Args:
        encoder: An encoder, a module or a source string.
        images: A dataset string, a folder, or a list of files.
        path: The site's folder.
        layers: The layers whose channels are features, and over which images are segmented.
        features: "all" channels of the layers, a number of them (the most telling), or a list of units.
        classes: "all", "none", or a number of them: those with most images.
        visualize: "all", "none", or how many features get a visualization.
        describe: Whether features get descriptions.
        max_images: At most so many of the dataset's images, evenly drawn.
        crops: How many of a feature's strongest images are shown.
        cells: Of the label maps, along the short side.
        captions: A store of captions, as for ``describe``.
        vlm: An image-text model, as for ``describe``.
        steps: Of a visualization's optimization.
        random_state: The seed of everything random.
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
            build_atlas(encoder, "caltech101:ROOT#train", "SITE", max_images=500, classes=20)
    """
    settings = AtlasSettings.from_preset(
        layers=layers,
        features=features,
        classes=classes,
        visualize=visualize,
        describe=describe,
        max_images=max_images,
        crops=crops,
        cells=cells,
        captions=None if captions is None else os.fspath(captions),
        vlm=vlm,
        steps=steps,
        random_state=random_state,
    )
    encoder = as_encoder(encoder)
    plan = plan_build(encoder, images, settings, progress=progress)
    if fresh:
        clear_site(path)
    writer = Writer(
        path,
        title=title or encoder.source,
        model=record_model(encoder, plan.layers, trial=()).as_dict()
        | {"input": f"{encoder.preprocess.size[0]} x {encoder.preprocess.size[1]} pixels"},
        data={
            "source": describe_source(images),
            "images": len(plan.ids),
            **({"labels": plan.matched} if plan.matched else {}),
            "digest": hashlib.sha256("\n".join(plan.ids).encode()).hexdigest(),
        },
        settings=plan.describe_settings(),
        random_state=settings.random_state,
        key=plan.key,
        accepts=lambda manifest: gives_kept_outputs(encoder, manifest["model"].get("trial")),
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
    if plan.settings.describe:
        from encoscope.atlas.build.descriptions import add_descriptions

        add_descriptions(writer, plan, units, mean.tolist(), std.tolist())
        writer.publish()
    if plan.settings.visualize != "none":
        from encoscope.atlas.build.visualizations import add_visualizations

        # of a list its first units; of units that were chosen, those that classes rest on
        add_visualizations(writer, plan, units, () if isinstance(plan.settings.features, tuple) else preferred)


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
