"""Where features are active: their values over all images, crops of the strongest, and what they are tied to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from encoscope import plots
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import BuildPlan, name_class
from encoscope.atlas.outlines import trace_outline
from encoscope.atlas.records import CircuitLink, CropRecord, FeatureRecord, Histogram, Measure, Point
from encoscope.atlas.writer import Writer
from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.falcon.crops import compute_masks, to_original_box
from encoscope.falcon.gradcam import GradCam
from encoscope.images import Geometry, LoadedImage, read_image
from encoscope.progress import track
from encoscope.units import Unit

MASK_THRESHOLD = 0.6
"""Share of a map's maximum inside the outline, as FALCON's crops have it."""

_BINS, _NEAREST, _CLASSES = 32, 8, 8
_SIDE = 200  # of a crop, pixels
_MIN_SHARE = 0.45  # a crop shows at least this share of the image's sides: an object is recognized by what is around it


def add_values(
    writer: Writer,
    plan: BuildPlan,
    units: Sequence[Unit],
    values: Float[np.ndarray, "units images"],
    mean: Float[np.ndarray, " units"],
    std: Float[np.ndarray, " units"],
) -> None:
    """Add histograms, sparsity, nearest features and the classes that are fed.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
        units: The units.
        values: Of every unit on every image.
        mean: Of the values over the images.
        std: Standard deviation of the values over the images.
    """
    correlations, control = correlate_units(values, plan.settings.random_state)
    sparsity = np.array([_compute_sparsity(row) for row in values])
    median = _round(float(np.median(sparsity)))
    for row, unit in enumerate(units):
        counts, edges = np.histogram(values[row], bins=_BINS)
        writer.add(
            FeatureRecord(
                unit.text,
                layer=unit.layer,
                sparsity=Measure(
                    _round(sparsity[row]),
                    "of the images stay below half of its strongest value",
                    median,
                    "the median of this atlas's features",
                ),
                histogram=Histogram(
                    tuple(map(_round, edges)),
                    tuple(counts.tolist()),
                    _round(mean[row]),
                    _round(std[row]),
                    f"value of {unit.text}: {_describe_value(unit)}",
                ),
                nearest=_find_nearest(units, row, correlations[row], control),
                classes=_find_fed_classes(plan, unit, values[row], float(std[row])),
            )
        )


def correlate_units(
    values: Float[np.ndarray, "units images"], random_state: int
) -> tuple[Float[np.ndarray, "units units"], float]:
    """Correlations of all pairs of units over the images, with a control.

    Args:
        values: Of every unit on every image.
        random_state: Of the control's permutation.

    Returns:
        The correlations, and the 95th percentile of their size when the images of one side are permuted.
    """
    centred = values - values.mean(1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(1, keepdims=True))
    normalized = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    rng = np.random.default_rng(random_state)
    shuffled = normalized[:, rng.permutation(normalized.shape[1])]
    return normalized @ normalized.T, _round(float(np.percentile(np.abs(normalized @ shuffled.T), 95)))


def add_crops(
    writer: Writer,
    plan: BuildPlan,
    units: Sequence[Unit],
    values: Float[np.ndarray, "units images"],
    mean: Float[np.ndarray, " units"],
    std: Float[np.ndarray, " units"],
) -> None:
    """Add the strongest images of every unit that has none yet, cropped to what drives it, which is outlined.

    Each image is decoded and passed through the network once, whatever number of units it is strong in.

    Args:
        writer: Of the site.
        plan: What the atlas holds.
        units: The units.
        values: Of every unit on every image.
        mean: Of the values over the images.
        std: Standard deviation of the values over the images.
    """
    todo = [index for index, unit in enumerate(units) if _lacks_crops(writer, unit)]
    count = min(plan.settings.crops, values.shape[1])
    best = {index: np.argsort(-values[index], kind="stable")[:count] for index in todo}
    units_of: dict[int, list[int]] = defaultdict(list)  # by the image's row
    for index, rows in best.items():
        for row in rows.tolist():
            units_of[row].append(index)
    crops: dict[int, dict[int, CropRecord]] = defaultdict(dict)  # by unit, by the image's row
    cam = GradCam(plan.encoder)
    for row in track(sorted(units_of), len(units_of), "crops", plan.progress):
        for index, crop in _crop_for_units(writer, plan, cam, row, units_of[row], units):
            score = (values[index, row] - mean[index]) / (std[index] or 1)
            crops[index][row] = replace(crop, value=Measure(_round(score), SIGMA))
            if len(crops[index]) == count:  # all of its images were seen
                _add_activating(writer, units[index], crops.pop(index), best[index])
    for index, entries in crops.items():
        _add_activating(writer, units[index], entries, best[index])


def make_crop(
    writer: Writer,
    image: str,
    loaded: LoadedImage,
    geometry: Geometry,
    heat: Float[np.ndarray, "rows columns"] | None,
) -> CropRecord:
    """The region of an image around the high values of a map, with its outline.

    Args:
        writer: Of the site.
        image: The image's id.
        loaded: The image.
        geometry: How the image was brought onto the network's canvas.
        heat: The map on the canvas; None for a crop of the middle without an outline.

    Returns:
        The crop, with a value of 0.
    """
    width, height = loaded.width, loaded.height
    left, top, right, bottom = _choose_window(geometry, heat, width, height)
    shown = Image.fromarray(plots.to_rgb(loaded.pixels[top:bottom, left:right]))
    lines: tuple[tuple[Point, ...], ...] = ()
    if heat is not None:
        rows, columns = geometry.canvas
        scale_y, scale_x = height / geometry.resized[0], width / geometry.resized[1]
        lines = tuple(
            tuple(
                (
                    _clip(((x * columns + geometry.offset[1]) * scale_x - left) / (right - left)),
                    _clip(((y * rows + geometry.offset[0]) * scale_y - top) / (bottom - top)),
                )
                for x, y in line
            )
            for line in trace_outline(heat, MASK_THRESHOLD)
        )
    file = writer.save_image(shown, side=_SIDE, quality=80)
    return CropRecord(image, file, Measure(0.0, SIGMA), outline=lines)


def _find_nearest(units: Sequence[Unit], row: int, correlations: np.ndarray, control: float) -> tuple[CircuitLink, ...]:
    """The units that are correlated most with one of them, where they are above the control."""
    others = [int(other) for other in np.argsort(-correlations, kind="stable") if other != row][:_NEAREST]
    name = "19 of 20 pairs stay below it when images are permuted"
    return tuple(
        CircuitLink(
            units[other].text, Measure(_round(correlations[other]), "correlation over the images", control, name)
        )
        for other in others
        if correlations[other] > control
    )


def _add_activating(writer: Writer, unit: Unit, crops: dict[int, CropRecord], order: np.ndarray) -> None:
    writer.add(FeatureRecord(unit.text, activating=tuple(crops[row] for row in order.tolist() if row in crops)))


def _lacks_crops(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or not record.activating


def _crop_for_units(
    writer: Writer, plan: BuildPlan, cam: GradCam, row: int, indices: Sequence[int], units: Sequence[Unit]
) -> Iterator[tuple[int, CropRecord]]:
    """The crops of one image for the units that it is strong in, with the units' indices."""
    image = plan.ids[row]
    try:
        loaded = read_image(plan.file_of(image), channels=plan.encoder.preprocess.image_channels)
    except (ImageError, MissingError):
        return
    batch = plan.encoder.prepare(loaded)
    try:
        (maps,) = cam(batch.pixels, [[units[index] for index in indices]])
    except UsageError:  # no layer has a gradient for this unit: whole images, without outlines
        maps = None
    for order, index in enumerate(indices):
        heat = None if maps is None else maps[order].numpy()
        yield index, make_crop(writer, image, loaded, batch.geometries[0], heat)


def _choose_window(geometry: Geometry, heat: np.ndarray | None, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around the map's high values, as large as their box with some room, inside the image."""
    box = (0, 0, width - 1, height - 1)
    if heat is not None and heat.max() > 0:
        mask = compute_masks([torch.from_numpy(heat)], geometry.canvas, MASK_THRESHOLD)[0].numpy()
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
            box = to_original_box((columns[0], rows[0], columns[-1], rows[-1]), geometry)
    x0, y0, x1, y1 = box
    side = max(1.25 * (x1 + 1 - x0), 1.25 * (y1 + 1 - y0), _MIN_SHARE * min(width, height))
    side = int(min(side, min(width, height)))
    left = int(min(max(0, (x0 + x1 + 1 - side) / 2), width - side))
    top = int(min(max(0, (y0 + y1 + 1 - side) / 2), height - side))
    return left, top, left + side, top + side


def _find_fed_classes(plan: BuildPlan, unit: Unit, values: np.ndarray, std: float) -> tuple[CircuitLink, ...]:
    """What a unit does to the atlas's classes: by the head's weights where the head reads it, else by correlation."""
    if not plan.classes or std <= 0:
        return ()
    classes = np.array(plan.classes)
    read_by_head = plan.pooled is not None and unit.layer == plan.pooled and unit.kind in ("channel", "group")
    if (read_by_head or unit.kind == "features") and unit.direction is None and plan.encoder.head is not None:
        weight = plan.encoder.head.weight.detach().cpu().numpy().astype(np.float64)
        effect = weight[:, list(unit.channels)].sum(1) * std
        spread = plan.probes["features"].std
        typical = float(np.sqrt(np.square(weight * spread).mean()))
        measured, control, name = "logits for one standard deviation of it", typical, "a typical feature's"
    else:
        logits = np.asarray(plan.probes["logits"].values, dtype=np.float64)
        both = np.vstack([values[None], logits.T])
        effect = np.nan_to_num(np.asarray(np.corrcoef(both))[0, 1:])
        measured, control, name = "correlation with the class's logit", float(np.median(np.abs(effect))), "median class"
    best = classes[np.argsort(-np.abs(effect[classes]), kind="stable")[:_CLASSES]]
    best = best[np.argsort(-effect[best], kind="stable")]
    return tuple(
        CircuitLink(
            f"class:{name_class(plan.encoder, index)}",
            Measure(_round(float(effect[index])), measured, _round(control), name),
        )
        for index in best.tolist()
    )


def _compute_sparsity(values: np.ndarray) -> float:
    """The share of images below half of the range from the least to the largest value."""
    low, high = values.min(), values.max()
    return float((values < low + (high - low) / 2).mean()) if high > low else 0.0


def _describe_value(unit: Unit) -> str:
    if unit.kind == "features":
        return "pooled representation"
    return "class token" if unit.kind == "token" else "mean over the map"


def _clip(share: float) -> float:
    return round(min(1.0, max(0.0, float(share))), 3)


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
