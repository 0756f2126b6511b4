"""All stages in order; each skips what is there, and the pages show what there is after every one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from encoscope.atlas.build import activations, classes, images, segmentation
from encoscope.atlas.build.plan import BuildOptions, BuildPlan, features, plan, readings, source_text
from encoscope.atlas.writer import Writer, clear
from encoscope.encoder import Encoder
from encoscope.images import SkippedImage
from encoscope.progress import Progress


def build(
    encoder: Encoder,
    images: Any,
    path: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    title: str | None = None,
    fresh: bool = False,
    progress: Progress = None,
) -> Path:
    """Build an atlas of an encoder over a dataset, or go on with one.

    images: a dataset string, a folder, a list of files. path: the site's folder. fresh: start over.

    The site is a valid atlas after every stage, and what is there is not made again. Raises UsageError for unknown
    layers and units, and for a site made from another model, other images or other settings; MissingError for data,
    captions and weights that are not there.
    """
    options = options or BuildOptions()
    made = plan(encoder, images, options, progress=progress)
    if fresh:
        clear(path)
    writer = Writer(
        path,
        title=title or encoder.source,
        model={
            "source": encoder.source,
            "digest": encoder.digest,
            "layers": list(made.layers),
            "input": f"{encoder.preprocess.size[0]} x {encoder.preprocess.size[1]} pixels",
        },
        data={"source": source_text(images), "images": len(made.any), "digest": _digest(made)},
        settings=made.settings(),
        seed=options.seed,
        key=made.key,
    )
    with writer:
        writer.skipped = [_without_folder(item) for item in made.skipped]
        _fill(writer, made)
    return Path(path)


def _fill(writer: Writer, made: BuildPlan) -> None:
    images.add_images(writer, made)
    classes.add_classes(writer, made)
    wanted = classes.channels_of(writer, made)
    units = features(made, wanted)
    values, mean, std = readings(made, units)
    writer.activations([unit.text for unit in units], list(made.any.ids), values)
    activations.add_values(writer, made, units, values, mean, std)
    activations.add_crops(writer, made, units, values, mean, std)
    scores = (values - mean[:, None]) / np.where(std > 0, std, np.inf)[:, None]
    images.add_tops(writer, units, scores, made)
    _controls(writer, made)
    writer.stage("probe", len(made.any), len(made.any))
    writer.publish()
    segmentation.part_images(writer, made, segmentation.Gauge.of(made.encoder, units, mean, std))
    writer.publish()
    if made.options.describe:
        from encoscope.atlas.build.descriptions import add_words

        add_words(writer, made, units, mean.tolist(), std.tolist())
        writer.publish()
    if made.options.visualize != "none":
        from encoscope.atlas.build.visualizations import add_pictures

        # of a list the first ones, of what was chosen for telling most those that tell most
        add_pictures(writer, made, units, () if isinstance(made.options.features, tuple) else wanted)


def _controls(writer: Writer, made: BuildPlan) -> None:
    writer.control(
        "Nearest features: correlations over the images, beside the size that 19 of 20 pairs stay below when the "
        "images of one side are permuted."
    )
    if made.classes:
        writer.control("Probabilities and accuracy stand beside guessing, circuits beside an equal share of channels.")
    writer.control(
        "Values of features are given in standard deviations above their mean over this atlas's images, which is the "
        "ordinary image's value."
    )


def _without_folder(item: SkippedImage) -> dict[str, str]:
    """What was left out, without the folders of this machine: pages may be shown to others."""
    name = Path(item.path).name
    return {"path": name, "reason": item.reason.replace(item.path, name)}


def _digest(made: BuildPlan) -> str:
    return hashlib.sha256("\n".join(made.any.ids).encode()).hexdigest()
