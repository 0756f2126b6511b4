"""The images of an atlas: pictures of them, labels, what the network predicts, and the features that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from encoscope import plots
from encoscope.atlas.build.plan import BuildPlan, name_class
from encoscope.atlas.records import CircuitLink, ImageRecord, Measure
from encoscope.atlas.writer import Writer
from encoscope.errors import ImageError, MissingError
from encoscope.images import read_image
from encoscope.probing import prefetch
from encoscope.progress import track
from encoscope.units import Unit

SIGMA = "standard deviations above its mean over the images"
_LARGE, _SMALL = 640, 176
_PREDICTIONS = 3


def add_images(writer: Writer, plan: BuildPlan) -> None:
    """Add a record of every image that has none yet.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
    """
    todo = [image for image in plan.ids if writer.get(ImageRecord, image) is None]
    loaded = prefetch(lambda image: _load(plan, image), todo, 8)
    for image, shown in track(zip(todo, loaded, strict=True), len(todo), "images", plan.progress):
        if shown is None:
            continue  # it was removed after it was probed
        large = writer.save_image(shown, side=_LARGE)
        is_small = max(shown.size) <= _SMALL
        path = Path(plan.file_of(image))
        writer.add(
            ImageRecord(
                id=image,
                name="/".join(path.parts[-2:]) if plan.label_of(image) else path.name,
                picture=large,
                thumbnail=large if is_small else writer.save_image(shown, side=_SMALL, quality=76),
                label=plan.label_of(image),
                predictions=_predict(plan, image),
            )
        )
    writer.set_stage("images", len(plan.ids), len(plan.ids))


def add_top_features(
    writer: Writer, units: Sequence[Unit], scores: Float[np.ndarray, "units images"], plan: BuildPlan, count: int = 6
) -> None:
    """Add to every image the features that stand out most in it.

    Args:
        writer: Of the site.
        units: The units, a row of ``scores`` each.
        scores: Their values in standard deviations above their mean.
        plan: What the atlas holds.
        count: At most so many features an image.
    """
    for column, image in enumerate(plan.ids):
        if writer.get(ImageRecord, image) is None:
            continue
        best = np.argsort(-scores[:, column], kind="stable")[:count]
        tops = tuple(
            CircuitLink(units[row].text, Measure(_round(scores[row, column]), SIGMA))
            for row in best.tolist()
            if scores[row, column] > 0
        )
        writer.add(ImageRecord(image, tops=tops))


def compute_probabilities(plan: BuildPlan) -> Float[np.ndarray, "images classes"] | None:
    """The network's probabilities.

    Args:
        plan: What the atlas holds.

    Returns:
        A row for each image; None for a network without a classifier.
    """
    if "logits" not in plan.probes:
        return None
    logits = np.asarray(plan.probes["logits"].values, dtype=np.float64)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def compute_chance(plan: BuildPlan) -> tuple[float, str]:
    """The control of a probability: what guessing gives.

    Args:
        plan: What the atlas holds.

    Returns:
        The number, and the control's name.
    """
    return 1 / (plan.encoder.outputs or 1), f"one of {plan.encoder.outputs} classes at random"


def _predict(plan: BuildPlan, image: str) -> tuple[CircuitLink, ...]:
    logits = plan.probes.get("logits")
    if logits is None:
        return ()
    row = np.asarray(logits.values[plan.rows[image]], dtype=np.float64)
    shares = np.exp(row - row.max())
    shares /= shares.sum()
    control, name = compute_chance(plan)
    best = np.argsort(-shares, kind="stable")[:_PREDICTIONS]
    return tuple(
        CircuitLink(
            f"class:{name_class(plan.encoder, index)}", Measure(_round(shares[index]), "probability", control, name)
        )
        for index in best.tolist()
    )


def _load(plan: BuildPlan, image: str) -> Image.Image | None:
    try:
        loaded = read_image(plan.file_of(image), channels=plan.encoder.preprocess.image_channels)
        return Image.fromarray(plots.to_rgb(loaded.pixels))
    except (ImageError, MissingError):
        return None


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
