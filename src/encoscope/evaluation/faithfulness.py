"""Do parts say something true about the network? Deletion and insertion, variance explained, a linear probe.

Deletion and insertion (Petsiuk et al., 2018), with parts in place of pixels: parts are taken away, or put back, one
after the other, and the network's answer is followed over the share of pixels gone. The order is by occlusion (Zeiler
and Fergus, 2014): how much the answer drops when that part alone is taken away. The answer is the probability of the
class that the whole image gets; without a classification head, the cosine between the pooled features and the whole
image's. What stands in for a part is the image's mean colour in deletion and a blurred copy in insertion, as in that
paper ("standard"), or one of them in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import RidgeClassifierCV
from torch import Tensor
from torch.nn import functional

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.baselines import Baseline
from encoscope.evaluation.localization import beside, measure
from encoscope.evaluation.overlap import with_untrained
from encoscope.evaluation.report import Report
from encoscope.evaluation.runner import Examples, MeasuredExample, Task, difference, interval, short, unique
from encoscope.images import Geometry, LoadedImage
from encoscope.images.panoptic import VOID
from encoscope.metrics import curve_auc, explained_variance
from encoscope.nave.layers import choose_layers
from encoscope.progress import Progress

FILLS = ("standard", "mean", "blur")
MEASURES = ("deletion", "insertion", "variance", "probe")
BLUR = 1 / 20
"""Standard deviation of the blur over the short side of the network's input."""

FOLDS = 5
NOTES = (
    "deletion (lower is better), insertion (higher): area under the network's answer while parts are taken away or put "
    "back, in the order of what each one's removal alone does. The answer is the probability of the class of the whole "
    "image (without a head, the cosine of features with the whole image's). variance: share of the last layer's "
    "variance that lies between parts. probe: share of pixels that a linear classifier names rightly from a part's "
    "mean features alone, on photos it was not fitted to.",
    "slic, felzenszwalb, random and grid have as many parts as NAVE has clusters; untrained: parts of the same network "
    "without training, judged by the trained one. difference: of the deletion to NAVE with as many clusters.",
)

Score: TypeAlias = Callable[[Float[Tensor, "batch channels height width"]], Float[np.ndarray, " batch"]]


def evaluate(
    contenders: Sequence[Baseline],
    images: Examples,
    dataset: str,
    encoder: Encoder,
    *,
    fill: str = "standard",
    fresh: bool = False,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """A row for each contender, judged by ``encoder``; the probe where images come with masks of categories."""
    if fill not in FILLS:
        raise UsageError(f"fill is {', '.join(FILLS)}, not {fill!r}")
    layer = choose_layers(encoder)[-1]

    def look(contender: Baseline, photo: LoadedImage, truth: np.ndarray, parts: int | None) -> Mapping[str, Any]:
        labels = contender(photo, parts).labels
        deletion, insertion = curves(encoder, photo, labels, fill)
        values, cells = features(encoder, photo, labels, layer)
        found = {"deletion": deletion, "insertion": insertion, "variance": explained_variance(values, cells)}
        return found | {"parts": len(np.unique(labels))} | (_named(values, cells, labels, truth) if truth.size else {})

    task = Task("faithfulness", look, "parts", {"judge": encoder.digest, "fill": fill, "layer": layer, "blur": BLUR})
    everyone, names, notes = with_untrained(contenders, seed)
    found = measure(everyone, images, task, fresh=fresh, progress=progress)
    rows = []
    for index, (contender, name, measured) in enumerate(zip(everyone, names, found, strict=True)):
        row: dict[str, Any] = {"method": name, "clusters": contender.clusters}
        row |= {value: measured.interval(value, seed) for value in MEASURES[:3]}
        if "means" in measured.rows[0]:
            row["probe"] = interval(probe(measured, seed), seed)
        row["difference"] = None
        other = beside(everyone, found, index)
        if other is not None:
            row["difference"] = difference(measured, other, lambda one: one.array("deletion"), seed)
        rows.append(row | {"parts": measured.mean("parts"), "images": len(measured)})
    skipped = unique(item for one in found for item in one.skipped)
    title = f"Do parts say something true about the network? {short(dataset)}"
    return Report("faithfulness", title, rows, [*NOTES, *notes], {}, {"fill": fill, "layer": layer}, seed, skipped)


def curves(
    encoder: Encoder, photo: LoadedImage, labels: Int64[np.ndarray, "height width"], fill: str = "standard"
) -> tuple[float, float]:
    """The areas under the deletion and the insertion curve of one image's parts."""
    batch = encoder.prepare(photo, geometry="model")
    whole = batch.pixels
    parts = torch.from_numpy(_on_canvas(labels, batch.geometries[0]))
    present, sizes = torch.unique(parts, return_counts=True)
    masks = (parts == present[:, None, None]).unsqueeze(1)  # [parts, 1, height, width]
    gone, start = (
        _filled(whole, "mean" if fill == "standard" else fill),
        _filled(whole, "blur" if fill == "standard" else fill),
    )
    score = _score(encoder, whole)
    full = float(score(whole)[0])
    drops = full - score(torch.where(masks, gone, whole))
    order = np.argsort(-drops, kind="stable")
    taken = torch.cumsum(masks[order].int(), 0) > 0
    fractions = np.concatenate([[0.0], np.cumsum(sizes.numpy()[order]) / parts.numel()])
    deleted = np.concatenate([[full], score(torch.where(taken, gone, whole))])
    inserted = np.concatenate([score(start), score(torch.where(taken, whole, start))])
    return curve_auc(deleted, fractions), curve_auc(inserted, fractions)


def features(
    encoder: Encoder, photo: LoadedImage, labels: Int64[np.ndarray, "height width"], layer: str
) -> tuple[Float[np.ndarray, "cells channels"], Int64[np.ndarray, " cells"]]:
    """A layer's vectors at the cells that show image, and the part at the middle of each."""
    batch = encoder.prepare(photo, geometry="whole")
    maps = encoder.activations(batch, layer)[layer].maps[0].double().cpu().numpy()
    grid, way = (maps.shape[1], maps.shape[2]), batch.geometries[0]
    rows, columns = way.valid_cells(grid)
    there = _on_canvas(labels, way, grid)[:rows, :columns]
    return maps[:, :rows, :columns].reshape(len(maps), -1).T, there.ravel()


def probe(measured: MeasuredExample, seed: int = 0) -> Float[np.ndarray, " images"]:
    """Share of each image's labelled pixels that a linear classifier names rightly from its parts' mean features.

    Ridge regression onto one output a category, its strength by generalised cross-validation, parts weighted by their
    pixels; fitted on the images of the other folds. NaN for an image without labelled pixels.
    """
    rng = np.random.default_rng(seed)
    folds = rng.permutation(len(measured)) % min(FOLDS, len(measured))
    means = [np.array(row["means"], dtype=np.float64) for row in measured.rows]
    counts = [_counts(row["named"], len(part)) for row, part in zip(measured.rows, means, strict=True)]
    accuracy = np.full(len(measured), np.nan)
    for fold in range(max(1, folds.max() + 1)):
        train = [i for i in range(len(measured)) if folds[i] != fold and counts[i]]
        if not train:
            continue
        x = np.concatenate([means[i] for i in train])
        majority = [max(part, key=lambda name: part[name]) if part else VOID for i in train for part in counts[i]]
        weight = np.array([sum(part.values()) for i in train for part in counts[i]], dtype=np.float64)
        kept = weight > 0
        x, y, weight = x[kept], np.array(majority)[kept], weight[kept]
        centre, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
        if len(np.unique(y)) > 1:
            model = RidgeClassifierCV(alphas=np.logspace(0, 5, 6)).fit((x - centre) / scale, y, weight / weight.mean())
        else:
            model = None
        for i in np.flatnonzero(folds == fold):
            total = sum(sum(part.values()) for part in counts[i])
            if total:
                said = [y[0]] * len(means[i]) if model is None else model.predict((means[i] - centre) / scale)
                right = sum(part.get(int(name), 0) for part, name in zip(counts[i], said, strict=True))
                accuracy[i] = right / total
    return accuracy


def _named(values: np.ndarray, cells: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Mean features of each part that has a cell, and how many pixels of which category it holds."""
    category = truth[0]
    present = np.unique(cells)
    means = [values[cells == part].mean(0).round(5).tolist() for part in present]
    named = []
    for place, part in enumerate(present):
        inside = category[(labels == part) & (category != VOID)]
        names, counts = np.unique(inside, return_counts=True)
        named += [[place, int(name), int(count)] for name, count in zip(names, counts, strict=True)]
    return {"means": means, "named": named}


def _counts(named: Sequence[Sequence[int]], parts: int) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in range(parts)]
    for place, name, count in named:
        found[place][name] = count
    return found


def _score(encoder: Encoder, whole: Tensor) -> Score:
    """How much a batch is still answered as the whole image is."""
    if encoder.outputs is not None:
        answer = int(encoder.logits(whole).argmax())

        def probability(pixels: Tensor) -> np.ndarray:
            return encoder.logits(pixels).double().softmax(1)[:, answer].cpu().numpy()

        return probability
    reference = encoder.features(whole).double()

    def cosine(pixels: Tensor) -> np.ndarray:
        return functional.cosine_similarity(encoder.features(pixels).double(), reference).cpu().numpy()

    return cosine


def _filled(whole: Tensor, fill: str) -> Tensor:
    """The image's mean colour everywhere, or the image blurred."""
    if fill == "mean":
        return whole.mean((2, 3), keepdim=True).expand_as(whole)
    sigma = BLUR * min(whole.shape[2:])
    return torch.from_numpy(gaussian_filter(whole.numpy(), (0, 0, sigma, sigma), mode="nearest"))


def _on_canvas(
    labels: Int64[np.ndarray, "height width"], way: Geometry, grid: tuple[int, int] | None = None
) -> Int64[np.ndarray, "rows columns"]:
    """The label of the original image at the middle of every cell of the network's canvas; at its edge for padding."""
    axes = []
    for axis, cells in enumerate(grid or way.canvas):
        middle = (np.arange(cells) + 0.5) * way.canvas[axis] / cells + way.offset[axis]
        place = np.floor(middle * way.original[axis] / way.resized[axis]).astype(np.int64)
        axes.append(np.clip(place, 0, way.original[axis] - 1))
    return labels[np.ix_(*axes)]
