"""Where features fire: their values over all images, the crops of the strongest, and what they are tied to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from encoscope import plots
from encoscope.atlas.build.images import SIGMA
from encoscope.atlas.build.plan import BuildPlan, class_text
from encoscope.atlas.outlines import outline
from encoscope.atlas.records import Box, CircuitLink, CropRecord, FeatureRecord, Histogram, Measure, Point
from encoscope.atlas.writer import Writer
from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.falcon.crops import to_original_box
from encoscope.falcon.gradcam import GradCam, compute_masks
from encoscope.images import Geometry, LoadedImage, read_image
from encoscope.progress import track
from encoscope.units import Unit

MASK = 0.6
"""Share of a map's maximum inside the outline, as FALCON's crops have it."""

_BINS, _NEAREST, _CLASSES = 32, 8, 8
_SIDE = 200  # of a crop, pixels
_LEAST = 0.45  # a crop shows at least this share of the image's sides: a part is read by what is around it


def add_values(
    writer: Writer, made: BuildPlan, units: Sequence[Unit], values: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> None:
    """Histograms, sparsity, nearest features and classes fed. values: ``[units, images]``."""
    ties, tie_control = correlations(values, made.options.seed)
    rare = np.array([_sparsity(row) for row in values])
    for place, unit in enumerate(units):
        others = [other for other in np.argsort(-ties[place], kind="stable") if other != place][:_NEAREST]
        counts, edges = np.histogram(values[place], bins=_BINS)
        writer.add(
            FeatureRecord(
                unit.text,
                layer=unit.layer,
                sparsity=Measure(
                    _round(rare[place]),
                    "of the images stay below half of its strongest value",
                    _round(float(np.median(rare))),
                    "the median of this atlas's features",
                ),
                histogram=Histogram(
                    tuple(map(_round, edges)),
                    tuple(counts.tolist()),
                    _round(mean[place]),
                    _round(std[place]),
                    f"value of {unit.text}: {_meaning(unit)}",
                ),
                nearest=tuple(
                    CircuitLink(
                        units[other].text,
                        Measure(
                            _round(ties[place, other]),
                            "correlation over the images",
                            tie_control,
                            "19 of 20 pairs stay below it when images are permuted",
                        ),
                    )
                    for other in others
                    if ties[place, other] > tie_control
                ),
                classes=_fed(made, unit, values[place], float(std[place])),
            )
        )


def correlations(values: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Correlations of all pairs of units over the images, and the 95th percentile of their size after permutation."""
    centred = values - values.mean(1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(1, keepdims=True))
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    rng = np.random.default_rng(seed)
    shuffled = unit[:, rng.permutation(unit.shape[1])]
    return unit @ unit.T, _round(float(np.percentile(np.abs(unit @ shuffled.T), 95)))


def add_crops(
    writer: Writer, made: BuildPlan, units: Sequence[Unit], values: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> None:
    """The strongest images of every unit that has none yet, cut to what drives it, which is outlined.

    Each image is decoded and passed once, whatever number of units it is strong in.
    """
    todo = [place for place, unit in enumerate(units) if _lacks_crops(writer, unit)]
    count = min(made.options.crops, values.shape[1])
    best = {place: np.argsort(-values[place], kind="stable")[:count] for place in todo}
    wanted: dict[int, list[int]] = defaultdict(list)
    for place, rows in best.items():
        for row in rows.tolist():
            wanted[row].append(place)
    found: dict[int, dict[int, CropRecord]] = defaultdict(dict)
    cam = GradCam(made.encoder)
    for row in track(sorted(wanted), len(wanted), "crops", made.progress):
        for place, crop in _crops_of(writer, made, cam, row, wanted[row], units):
            score = (values[place, row] - mean[place]) / (std[place] or 1)
            found[place][row] = CropRecord(**{**crop.__dict__, "value": Measure(_round(score), SIGMA)})
            if len(found[place]) == count:  # all of its images were seen
                _keep(writer, units[place], found.pop(place), best[place])
    for place, crops in found.items():
        _keep(writer, units[place], crops, best[place])


def _keep(writer: Writer, unit: Unit, crops: dict[int, CropRecord], order: np.ndarray) -> None:
    writer.add(FeatureRecord(unit.text, activating=tuple(crops[row] for row in order.tolist() if row in crops)))


def _lacks_crops(writer: Writer, unit: Unit) -> bool:
    record = writer.get(FeatureRecord, unit.text)
    return record is None or not record.activating


def _crops_of(
    writer: Writer, made: BuildPlan, cam: GradCam, row: int, places: Sequence[int], units: Sequence[Unit]
) -> Iterator[tuple[int, CropRecord]]:
    image = made.any.ids[row]
    try:
        photo = read_image(made.file(image), channels=made.encoder.preprocess.channels)
    except (ImageError, MissingError):
        return
    batch = made.encoder.prepare(photo)
    try:
        (maps,) = cam(batch.pixels, [[units[place] for place in places]])
    except UsageError:  # no layer has a gradient for this unit: whole images, without outlines
        maps = None
    for order, place in enumerate(places):
        heat = None if maps is None else maps[order].numpy()
        yield place, crop_of(writer, image, photo, batch.geometries[0], heat)


def crop_of(writer: Writer, image: str, photo: LoadedImage, geometry: Geometry, heat: np.ndarray | None) -> CropRecord:
    """The part of a photo around the high part of a map on the network's canvas, with its outline."""
    width, height = photo.width, photo.height
    left, top, right, bottom = _window(geometry, heat, width, height)
    shown = Image.fromarray(plots.to_rgb(photo.pixels[top:bottom, left:right]))
    lines: tuple[tuple[Point, ...], ...] = ()
    if heat is not None:
        tall, wide = geometry.canvas
        (scale_y, scale_x) = (height / geometry.resized[0], width / geometry.resized[1])
        lines = tuple(
            tuple(
                (
                    _share(((x * wide + geometry.offset[1]) * scale_x - left) / (right - left)),
                    _share(((y * tall + geometry.offset[0]) * scale_y - top) / (bottom - top)),
                )
                for x, y in line
            )
            for line in outline(heat, MASK)
        )
    box: Box | None = None
    return CropRecord(image, writer.picture(shown, side=_SIDE, quality=80), Measure(0.0, SIGMA), box, lines)


def _window(geometry: Geometry, heat: np.ndarray | None, width: int, height: int) -> tuple[int, int, int, int]:
    """A square around the map's high part, as large as its box with some room, inside the image."""
    import torch

    box = (0, 0, width - 1, height - 1)
    if heat is not None and heat.max() > 0:
        mask = compute_masks([torch.from_numpy(heat)], geometry.canvas, MASK)[0].numpy()
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
            box = to_original_box((columns[0], rows[0], columns[-1], rows[-1]), geometry)
    x0, y0, x1, y1 = box
    side = max(1.25 * (x1 + 1 - x0), 1.25 * (y1 + 1 - y0), _LEAST * min(width, height))
    side = int(min(side, min(width, height)))
    left = int(min(max(0, (x0 + x1 + 1 - side) / 2), width - side))
    top = int(min(max(0, (y0 + y1 + 1 - side) / 2), height - side))
    return left, top, left + side, top + side


def _fed(made: BuildPlan, unit: Unit, values: np.ndarray, std: float) -> tuple[CircuitLink, ...]:
    """What the unit does to the atlas's classes: by the head's weights where it is read by it, else by correlation."""
    if not made.classes or std <= 0:
        return ()
    classes = np.array(made.classes)
    read_by_head = made.pooled is not None and unit.layer == made.pooled and unit.kind in ("channel", "group")
    if (read_by_head or unit.kind == "features") and unit.direction is None and made.encoder.head is not None:
        weight = made.encoder.head.weight.detach().cpu().numpy().astype(np.float64)
        effect = weight[:, list(unit.channels)].sum(1) * std
        spread = made.probes["features"].std
        typical = float(np.sqrt(np.square(weight * spread).mean()))
        what, control, name = "logits for one standard deviation of it", typical, "a typical feature's"
    else:
        logits = np.asarray(made.probes["logits"].values, dtype=np.float64)
        both = np.vstack([values[None], logits.T])
        effect = np.nan_to_num(np.asarray(np.corrcoef(both))[0, 1:])
        what, control, name = "correlation with the class's logit", float(np.median(np.abs(effect))), "median class"
    best = classes[np.argsort(-np.abs(effect[classes]), kind="stable")[:_CLASSES]]
    best = best[np.argsort(-effect[best], kind="stable")]
    return tuple(
        CircuitLink(
            f"class:{class_text(made.encoder, int(i))}", Measure(_round(float(effect[i])), what, _round(control), name)
        )
        for i in best
    )


def _sparsity(values: np.ndarray) -> float:
    """The share of images below half of the way from the least to the largest value."""
    low, high = values.min(), values.max()
    return float((values < low + (high - low) / 2).mean()) if high > low else 0.0


def _meaning(unit: Unit) -> str:
    if unit.kind == "features":
        return "pooled representation"
    return "class token" if unit.kind == "token" else "mean over the map"


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), 3)


def _round(value: float) -> float:
    return float(f"{float(value):.4g}")
