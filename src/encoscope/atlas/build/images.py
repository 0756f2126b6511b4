"""The images of an atlas: pictures of them, labels, what the network says, and the features that stand out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.atlas.build.plan import BuildPlan, class_text
from encoscope.atlas.records import CircuitLink, ImageRecord, Measure
from encoscope.atlas.writer import Writer
from encoscope.errors import ImageError, MissingError
from encoscope.images import read_image
from encoscope.probing import prefetch
from encoscope.progress import track
from encoscope.units import Unit

SIGMA = "standard deviations above its mean over the images"
_PICTURE, _THUMBNAIL = 640, 176
_SAID = 3


def add_images(writer: Writer, made: BuildPlan) -> None:
    """A record of every image that has none yet."""
    todo = [image for image in made.any.ids if writer.get(ImageRecord, image) is None]
    loaded = prefetch(lambda image: _load(made, image), todo, 8)
    for image, shown in track(zip(todo, loaded, strict=True), len(todo), "images", made.progress):
        if shown is None:
            continue  # gone since it was probed
        picture = writer.picture(shown, side=_PICTURE)
        small = picture if max(shown.size) <= _THUMBNAIL else writer.picture(shown, side=_THUMBNAIL, quality=76)
        path = Path(made.file(image))
        writer.add(
            ImageRecord(
                id=image,
                name="/".join(path.parts[-2:]) if made.label(image) else path.name,
                picture=picture,
                thumbnail=small,
                label=made.label(image),
                predictions=_said(made, image),
            )
        )
    writer.stage("images", len(made.any), len(made.any))


def add_tops(writer: Writer, units: list[Unit], values: np.ndarray, made: BuildPlan, count: int = 6) -> None:
    """To every image the features that stand out most in it. values: in standard deviations, ``[units, images]``."""
    for row, image in enumerate(made.any.ids):
        if writer.get(ImageRecord, image) is None:
            continue
        best = np.argsort(-values[:, row], kind="stable")[:count]
        tops = tuple(
            CircuitLink(units[place].text, Measure(_round(values[place, row]), SIGMA))
            for place in best.tolist()
            if values[place, row] > 0
        )
        writer.add(ImageRecord(image, tops=tops))


def probabilities(made: BuildPlan) -> np.ndarray | None:
    """The network's answers, ``[images, classes]``; None without a classifier."""
    if "logits" not in made.probes:
        return None
    logits = np.asarray(made.probes["logits"].values, dtype=np.float64)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def chance(made: BuildPlan) -> tuple[float, str]:
    """The control of a probability: what guessing gives."""
    return 1 / (made.encoder.outputs or 1), f"one of {made.encoder.outputs} classes at random"


def _said(made: BuildPlan, image: str) -> tuple[CircuitLink, ...]:
    logits = made.probes.get("logits")
    if logits is None:
        return ()
    row = np.asarray(logits.values[made.rows[image]], dtype=np.float64)
    share = np.exp(row - row.max())
    share /= share.sum()
    control, name = chance(made)
    best = np.argsort(-share, kind="stable")[:_SAID]
    return tuple(
        CircuitLink(
            f"class:{class_text(made.encoder, index)}", Measure(_round(share[index]), "probability", control, name)
        )
        for index in best.tolist()
    )


def _load(made: BuildPlan, image: str) -> Image.Image | None:
    try:
        return Image.fromarray(plots.to_rgb(read_image(made.file(image), channels=made.encoder.preprocess.channels)))
    except (ImageError, MissingError):
        return None


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
