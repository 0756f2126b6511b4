"""NAVE, Fig. 6: a cue on every image of one class changes what a classifier treats alike.

The paper trains ResNet-50 on chest X-rays with a small black box at a random position on every negative, with and
without augmentation, with and without the box, and clusters 200 images jointly (last two stages, K = 10). Here the
network is a small one (``resnet10t``), a stand-in; box size, augmentation and schedule, which the paper leaves open,
are ``Setting`` and ``Condition``. Beside the figure stands a number: how much the label under the cue says about
whether there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from encoscope.analysis.cue_response import compute_label_shares, measure_following
from encoscope.analysis.joint_clusters import fit_joint_clusters, predict_labels
from encoscope.encoder import Encoder
from encoscope.errors import UsageError
from encoscope.evaluation.report import EvaluationRequest, Report
from encoscope.images import LoadedImage, open_dataset, read_image
from encoscope.metrics import Interval, bootstrap
from encoscope.nave import Nave
from encoscope.plots import draw_overlay
from encoscope.progress import track_steps
from encoscope.reproduce.audit_calibration.classifiers import (
    Condition,
    Samples,
    Setting,
    create_untrained,
    decode_samples,
    predict_classes,
    train_classifier,
)
from encoscope.reproduce.sheets import Cell, draw_sheet

CLUSTERS = 10
SHOWN = 2


@dataclass(frozen=True)
class CueImages:
    """Test images without and with a cue.

    Attributes:
        clean: the images without it.
        with_cue: the same images with it.
        masks: where it lies in each image.
    """

    clean: Sequence[LoadedImage]
    with_cue: Sequence[LoadedImage]
    masks: Sequence[Bool[np.ndarray, "height width"]]


def run(request: EvaluationRequest) -> Report:
    """Train four classifiers, and compare how they and an untrained one treat the cue.

    Args:
        request: the experiment's request.

    Returns:
        The table of classifiers, with the figure.

    Raises:
        UsageError: without a dataset.

    Source: NAVE, Fig. 6.
    """
    if not request.datasets:
        raise UsageError("nave-fig6 needs --dataset: a folder of X-rays with a folder for each of two labels")
    setting = Setting(**request.settings(asdict(Setting())))
    samples = decode_samples(open_dataset(request.datasets[0]), setting, limit=request.limit)
    own, others = (
        add_cues(
            samples,
            [int(i) for i in samples.test if (samples.images.labels[i] == 0) == first],
            "box",
            setting,
            request.seed,
        )
        for first in (True, False)
    )
    conditions = [Condition(cue, augmented, seed=request.seed) for augmented in (True, False) for cue in ("box", None)]
    rows: list[dict[str, Any]] = []
    cells: list[Cell] = []
    with track_steps(len(conditions) + 1, "classifiers", request.progress) as count:
        for condition in [None, *conditions]:
            if condition is None:
                encoder, name = create_untrained(setting, samples.images.classes, request.seed), "untrained"
            else:
                encoder = train_classifier(samples, condition, setting, origin=request.datasets[0], fresh=request.fresh)
                name = condition.name
            nave = fit_joint_clusters(encoder, [*own.with_cue, *others.clean], CLUSTERS, request.seed)
            rows.append({"training": name, **_accuracies(encoder, own, others), **compare_following(nave, own)})
            for index in range(min(SHOWN, len(own.clean))):
                for image, caption in ((own.clean[index], "without"), (own.with_cue[index], "with the mark")):
                    cells.append((draw_overlay(image, predict_labels(nave, image)), f"{name}: {caption}"))
            count(1)
    cue_class = samples.images.classes[0]
    return Report(
        "nave-fig6",
        f"A black box on every image of {cue_class!r}: what classifiers treat alike",
        rows,
        notes=(
            "follows the mark: Jensen-Shannon divergence (bits, 0 to 1) between the labels under the mark and at the "
            "same places without it; elsewhere: the same half an image away, where nothing was changed (its control).",
            f"Network: {setting.architecture} at {setting.pixels} px, a stand-in for the paper's ResNet-50. "
            f"Joint NAVE, last two stages, K = {CLUSTERS}, {len(samples.test)} test images, [95 % bootstrap interval].",
        ),
        figures={"nave-fig6": draw_sheet(cells, columns=2 * SHOWN, cell=240)},
        settings={"dataset": request.datasets[0], **asdict(setting), "clusters": CLUSTERS, "limit": request.limit},
        seed=request.seed,
    )


def add_cues(samples: Samples, indices: Sequence[int], kind: str, setting: Setting, random_state: int) -> CueImages:
    """Add a cue to images, each at a random position of its own.

    Args:
        samples: the images.
        indices: which of them.
        kind: kind of cue, see ``encoscope.analysis.watermarks``.
        setting: what all classifiers share; it has the cue's size.
        random_state: seed of the positions.

    Returns:
        The images without and with the cue.
    """
    with_cue = [samples.add_cue(index, kind, setting, random_state) for index in indices]
    return CueImages(
        [read_image(samples.pixels(index)) for index in indices],
        [read_image(pixels) for pixels, _ in with_cue],
        [mask for _, mask in with_cue],
    )


def compare_following(nave: Nave, images: CueImages) -> dict[str, Interval]:
    """Measure how much the grouping follows the cue, and half an image away, where nothing was changed.

    Args:
        nave: a joint fit.
        images: images without and with the cue.

    Returns:
        Jensen-Shannon divergences in bits, 0 to 1, with intervals.
    """
    far = [np.roll(mask, (mask.shape[0] // 2, mask.shape[1] // 2), (0, 1)) for mask in images.masks]

    def count_labels(shown: Sequence[Any], masks: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(shown, masks, strict=True)
        return np.stack([compute_label_shares(nave, image, mask, CLUSTERS) for image, mask in pairs])

    return {
        name: measure_following(count_labels(images.with_cue, masks), count_labels(images.clean, masks))
        for name, masks in (("follows the mark", images.masks), ("elsewhere", far))
    }


def _accuracies(encoder: Encoder, own: CueImages, others: CueImages) -> dict[str, Interval]:
    """How well it tells the marked class from the others, and how often a mark alone makes it say so."""
    right, wrong = predict_classes(encoder, own.clean) == 0, predict_classes(encoder, others.clean) == 0
    fooled = predict_classes(encoder, others.with_cue) == 0
    return {
        "accuracy, no marks": bootstrap(np.concatenate([right, ~wrong]).astype(np.float64)),
        "others called marked class": bootstrap(wrong.astype(np.float64)),
        "the same with a mark": bootstrap(fooled.astype(np.float64)),
    }
