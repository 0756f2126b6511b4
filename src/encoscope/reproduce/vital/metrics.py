"""The measures of the tables of classes: of visualizations, and of real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from encoscope.errors import MissingError
from encoscope.images import LabelledImages
from encoscope.metrics import Interval, KernelDistance, bootstrap, frechet_distance, kernel_distance, split_halves
from encoscope.reproduce.inputs import select_first_images
from encoscope.reproduce.vital.harness import Bench, SeededImages
from encoscope.reproduce.vital.judge import Judge, list_judged_classes, observe_images
from encoscope.reproduce.vital.published import ACCURACY, OWN, RESNET, TOP1, TOP5

Values: TypeAlias = dict[str, Interval | KernelDistance | float | None]
KID = "KID, own features"


def measure_images(
    bench: Bench, judge: Judge | None, images: SeededImages, labels: Sequence[int], extractor: Bench | None
) -> Values:
    """Measure visualizations of several classes; distances are from real images of the same classes.

    Args:
        bench: the network.
        judge: the independent judge, if there is one.
        images: visualizations, by seed.
        labels: the classes, in the order of the visualizations.
        extractor: another network whose features a second distance is measured in.

    Returns:
        Values by the name of the measure; None where a measure cannot be computed.
    """
    all_labels = list(labels) * len(images.paths)
    features, correct = observe_images(bench.encoder, images.all, all_labels)
    real = _features(bench, bench, labels)
    seed = bench.request.seed
    measures: Values = {ACCURACY: bootstrap(images.average_seeds(correct), random_state=seed)}
    measures[OWN] = _distance(real, features)
    if extractor is not None:
        measures[RESNET] = _distance(_features(extractor, bench, labels), _pooled(extractor, images.all))
    measures[KID] = _kid(real, features, seed)
    return measures | _zero_shot(judge, images, all_labels, seed)


def measure_real_classes(bench: Bench, judge: Judge | None, labels: Sequence[int]) -> tuple[Values, int]:
    """Measure real images of several classes: distances are those of one half of the images from the other.

    Args:
        bench: the network.
        judge: the independent judge, if there is one.
        labels: the classes.

    Returns:
        Values by the name of the measure (zero-shot ones of the images that the network takes for their class), and the
        number of images.
    """
    real = select_real_images(bench, labels)
    paths, image_labels = real.paths, real.labels
    features, correct = observe_images(bench.encoder, paths, image_labels)
    seed = bench.request.seed
    measures: Values = {ACCURACY: bootstrap(correct, random_state=seed)}
    if len(features) >= 4:
        first, second = split_halves(features, seed)
        measures |= {OWN: _distance(first, second), KID: _kid(first, second, seed)}
    indices = [index for index, is_correct in enumerate(correct) if is_correct]
    selection = SeededImages([[paths[index] for index in indices]])
    if indices:
        measures |= _zero_shot(judge, selection, [image_labels[index] for index in indices], seed)
    return measures, len(paths)


def _zero_shot(judge: Judge | None, images: SeededImages, labels: Sequence[int], random_state: int) -> Values:
    if judge is None:
        return {TOP1: None, TOP5: None}
    known = [index for index, label in enumerate(labels) if judge.knows(label)]
    if not known:
        return {TOP1: None, TOP5: None}
    ranks = np.full(len(labels), np.nan)
    ranks[known] = judge.rank_classes([images.all[index] for index in known], [labels[index] for index in known])

    def count_hits(top_k: int) -> Interval:
        hits = np.where(np.isnan(ranks), np.nan, ranks < top_k)
        return bootstrap(images.average_seeds(hits), random_state=random_state)

    return {TOP1: count_hits(1), TOP5: count_hits(5)}


def _features(extractor: Bench, bench: Bench, labels: Sequence[int]) -> Float[np.ndarray, "images features"]:
    """A network's features of the real images of a bench."""
    return _pooled(extractor, select_real_images(bench, labels).paths)


def _pooled(bench: Bench, images: Sequence[Path]) -> Float[np.ndarray, "images features"]:
    return observe_images(bench.encoder, images, [0] * len(images))[0]


def _distance(
    real: Float[np.ndarray, "real_images features"], other: Float[np.ndarray, "images features"]
) -> float | None:
    return frechet_distance(real, other) if min(len(real), len(other)) > 1 else None


def _kid(
    real: Float[np.ndarray, "real_images features"], other: Float[np.ndarray, "images features"], random_state: int
) -> KernelDistance | None:
    return kernel_distance(real, other, random_state=random_state) if min(len(real), len(other)) > 1 else None


def load_judge(bench: Bench, notes: list[str]) -> Judge | None:
    """Load the independent image-text model.

    Args:
        bench: the network; its setting ``judge`` names the model.
        notes: a note is added where the model's weights are missing.

    Returns:
        The judge; None where the weights are missing.
    """
    source = str(bench.settings["judge"])
    try:
        return Judge.load(source, bench.names, list_judged_classes(source, bench.names))
    except MissingError as error:
        notes.append(f"No zero-shot figures: {error}.")
        return None


def select_real_images(bench: Bench, classes: Sequence[int]) -> LabelledImages:
    """Select real images of several classes, at most the setting ``images`` of each.

    Args:
        bench: the network.
        classes: indices of the classes.

    Returns:
        The images with their labels.
    """
    return select_first_images(bench.real_images, set(classes), int(bench.settings["images"]))


def compute_probabilities(
    bench: Bench, images: Sequence[Path]
) -> tuple[Float[np.ndarray, "images classes"], Int[np.ndarray, " images"]]:
    """Compute the network's probabilities and answers.

    Args:
        bench: the network.
        images: image files.

    Returns:
        The probability of each class, and the likeliest class.
    """
    shares = bench.encoder.logits(list(images)).softmax(1).cpu().double().numpy()
    return shares, shares.argmax(1)
