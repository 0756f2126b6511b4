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
from jaxtyping import Bool
from PIL import Image

from encoscope.analysis.audit import fit_joint_clusters, measure_following, predict_labels
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import LoadedImage, open_dataset, read_image
from encoscope.metrics import Interval, bootstrap
from encoscope.nave import Nave
from encoscope.plots import draw_contact_sheet, draw_overlay
from encoscope.progress import track_steps
from encoscope.reproduce.audit_calibration.classifiers import (
    Condition,
    Samples,
    Setting,
    answers,
    classifier,
    samples,
    untrained,
)

CLUSTERS = 10
SHOWN = 2


@dataclass(frozen=True)
class Copies:
    """Test images without the mark, with it, and where it lies."""

    clean: Sequence[LoadedImage]
    marked: Sequence[LoadedImage]
    masks: Sequence[Bool[np.ndarray, "height width"]]


def run(request: EvaluationRequest) -> Report:
    """The four classifiers and an untrained one, with the figure."""
    if not request.datasets:
        raise UsageError("nave-fig6 needs --dataset: a folder of X-rays with a folder for each of two labels")
    setting = Setting(**request.settings(asdict(Setting())))
    found = samples(open_dataset(request.datasets[0]), setting, limit=request.limit)
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
    with track_steps(len(conditions) + 1, "classifiers", request.progress) as count:
        for condition in [None, *conditions]:
            if condition is None:
                encoder, name = untrained(setting, found.photos.classes, request.seed), "untrained"
            else:
                encoder = classifier(found, condition, setting, origin=request.datasets[0], fresh=request.fresh)
                name = condition.name
            nave = fit_joint_clusters(encoder, [*own.marked, *others.clean], CLUSTERS, request.seed)
            rows.append(
                {"training": name, **_accuracies(encoder, own, others), **following_here_and_elsewhere(nave, own)}
            )
            for index in range(min(SHOWN, len(own.clean))):
                for photo, how in ((own.clean[index], "without"), (own.marked[index], "with the mark")):
                    pictures.append(draw_overlay(photo, predict_labels(nave, photo)))
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
        pictures={"nave-fig6": Image.fromarray(draw_contact_sheet(pictures, captions, columns=2 * SHOWN))},
        settings={"dataset": request.datasets[0], **asdict(setting), "clusters": CLUSTERS, "limit": request.limit},
        seed=request.seed,
    )


def pairs(found: Samples, indices: Sequence[int], kind: str, setting: Setting, seed: int) -> Copies:
    """Images without and with a mark, each at a random place of its own."""
    marked = [found.marked(index, kind, setting, seed) for index in indices]
    return Copies(
        [read_image(found.pixels(index)) for index in indices],
        [read_image(pixels) for pixels, _ in marked],
        [mask for _, mask in marked],
    )


def following_here_and_elsewhere(nave: Nave, copies: Copies) -> dict[str, Interval]:
    """How much of the grouping follows the mark, and the same half an image away, where nothing was changed."""
    far = [np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), (0, 1)) for mask in copies.masks]
    return {
        name: measure_following(nave, copies.clean, copies.marked, masks, CLUSTERS)
        for name, masks in (("follows the mark", copies.masks), ("elsewhere", far))
    }


def _accuracies(encoder: Encoder, own: Copies, others: Copies) -> dict[str, Interval]:
    """How well it tells the marked class from the others, and how often a mark alone makes it say so."""
    kept, called = answers(encoder, own.clean) == 0, answers(encoder, others.clean) == 0
    fooled = answers(encoder, others.marked) == 0
    return {
        "accuracy, no marks": bootstrap(np.concatenate([kept, ~called]).astype(np.float64)),
        "others called marked class": bootstrap(called.astype(np.float64)),
        "the same with a mark": bootstrap(fooled.astype(np.float64)),
    }
