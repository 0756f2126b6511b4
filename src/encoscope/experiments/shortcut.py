"""NAVE, Fig. 6: a mark on every image of one class changes what a classifier treats alike.

The paper trains ResNet-50 on chest X-rays with a small black box at a random place on every negative, with and without
augmentation, with and without the box, and clusters 200 images jointly (last two stages, K = 10). Here the network is a
small one (``resnet10t``), a stand-in; box size, augmentation and schedule, which the paper leaves open, are ``Setting``
and ``Condition``. Beside the figure stands a number: how much the label under the mark says about whether there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from PIL import Image

from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.experiments.classifiers import Condition, Samples, Setting, answers, classifier, samples, untrained
from encoscope.experiments.report import Report, Request
from encoscope.images import Photo, dataset, read
from encoscope.metrics import Interval, bootstrap
from encoscope.nave import Nave, Segmentation
from encoscope.plots import contact_sheet, overlay
from encoscope.progress import steps

CLUSTERS = 10
SHOWN = 2


@dataclass(frozen=True)
class Copies:
    """Test images without the mark, with it, and where it lies."""

    clean: Sequence[Photo]
    marked: Sequence[Photo]
    masks: Sequence[Bool[np.ndarray, "height width"]]


def run(request: Request) -> Report:
    """The four classifiers and an untrained one, with the figure."""
    if not request.datasets:
        raise UsageError("nave-fig6 needs --dataset: a folder of X-rays with a folder for each of two labels")
    setting = Setting(**{name: value for name, value in request.options.items() if name in asdict(Setting())})
    found = samples(dataset(request.datasets[0]), setting, limit=request.limit)
    own, others = (
        pairs(
            found, [int(i) for i in found.test if (found.photos.labels[i] == 0) == first], "box", setting, request.seed
        )
        for first in (True, False)
    )
    conditions = [
        Condition(mark, augmented, seed=request.seed) for augmented in (True, False) for mark in ("box", None)
    ]
    rows, pictures, captions = [], [], []
    with steps(len(conditions) + 1, "classifiers", request.progress) as count:
        for condition in [None, *conditions]:
            if condition is None:
                encoder, name = untrained(setting, found.photos.classes, request.seed), "untrained"
            else:
                encoder = classifier(found, condition, setting, origin=request.datasets[0], fresh=request.fresh)
                name = condition.name
            nave = jointly(encoder, [*own.marked, *others.clean], request.seed)
            rows.append({"training": name, **_accuracies(encoder, own, others), **following(nave, own)})
            for index in range(min(SHOWN, len(own.clean))):
                for photo, how in ((own.clean[index], "without"), (own.marked[index], "with the mark")):
                    pictures.append(overlay(photo, _labels(nave, photo)))
                    captions.append(f"{name}: {how}")
            count(1)
    marked = found.photos.classes[0]
    return Report(
        "nave-fig6",
        f"A black box on every image of {marked!r}: what classifiers treat alike",
        rows,
        notes=(
            "follows the mark: Jensen-Shannon divergence (bits, 0 to 1) between the labels under the mark and at the "
            "same places without it; elsewhere: the same half an image away, where nothing was changed (its control).",
            f"Network: {setting.architecture} at {setting.pixels} px, a stand-in for the paper's ResNet-50. "
            f"Joint NAVE, last two stages, K = {CLUSTERS}, {len(found.test)} test images, [95 % bootstrap interval].",
        ),
        pictures={"nave-fig6": Image.fromarray(contact_sheet(pictures, captions, columns=2 * SHOWN))},
        settings={"dataset": request.datasets[0], **asdict(setting), "clusters": CLUSTERS, "limit": request.limit},
        seed=request.seed,
    )


def pairs(found: Samples, indices: Sequence[int], kind: str, setting: Setting, seed: int) -> Copies:
    """Images without and with a mark, each at a random place of its own."""
    marked = [found.marked(index, kind, setting, seed) for index in indices]
    return Copies(
        [read(found.pixels(index)) for index in indices],
        [read(pixels) for pixels, _ in marked],
        [mask for _, mask in marked],
    )


def jointly(encoder: Encoder, images: Sequence[Photo], seed: int) -> Nave:
    """One set of clusters over images, last two stages."""
    layers = [info.name for info in encoder.layers if info.role in ("stage", "block")][-2:]
    nave = Nave(encoder, n_clusters=CLUSTERS, layers=layers, cache=None, random_state=seed, progress=False)
    return nave.fit(images)


def following(nave: Nave, copies: Copies) -> dict[str, Interval]:
    """How much of the grouping follows the mark, and the same where there is none; bootstrap over the images."""
    with_mark = [_labels(nave, photo) for photo in copies.marked]
    without = [_labels(nave, photo) for photo in copies.clean]
    far = [np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), (0, 1)) for mask in copies.masks]
    found = {}
    for name, masks in (("follows the mark", copies.masks), ("elsewhere", far)):
        first = _counts(with_mark, masks)
        second = _counts(without, masks)
        found[name] = bootstrap(
            np.arange(len(masks), dtype=np.float64),
            lambda drawn, first=first, second=second: divergence(
                first[drawn.astype(int)].sum(0), second[drawn.astype(int)].sum(0)
            ),
            resamples=500,
        )
    return found


def divergence(first: Float[np.ndarray, " labels"], second: Float[np.ndarray, " labels"]) -> float:
    """The Jensen-Shannon divergence of two histograms in bits: 0 for the same shares, 1 for none in common."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(sum(0.5 * np.sum(part[part > 0] * np.log2(part[part > 0] / middle[part > 0])) for part in (p, q)))


def _labels(nave: Nave, photo: Photo) -> Integer[np.ndarray, "height width"]:
    found = nave.predict(photo)
    assert isinstance(found, Segmentation)  # one photo was asked for
    return found.labels


def _counts(
    labels: Sequence[Integer[np.ndarray, "height width"]], masks: Sequence[Bool[np.ndarray, "height width"]]
) -> Float[np.ndarray, "images labels"]:
    """Share of each label under the mask, an image a row."""
    rows = [
        np.bincount(found[mask], minlength=CLUSTERS) / mask.sum() for found, mask in zip(labels, masks, strict=True)
    ]
    return np.stack(rows)


def _accuracies(encoder: Encoder, own: Copies, others: Copies) -> dict[str, Interval]:
    """How well it tells the marked class from the others, and how often a mark alone makes it say so."""
    kept, called = answers(encoder, own.clean) == 0, answers(encoder, others.clean) == 0
    fooled = answers(encoder, others.marked) == 0
    return {
        "accuracy, no marks": bootstrap(np.concatenate([kept, ~called]).astype(np.float64)),
        "others called marked class": bootstrap(called.astype(np.float64)),
        "the same with a mark": bootstrap(fooled.astype(np.float64)),
    }
