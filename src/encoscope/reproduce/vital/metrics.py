"""What pictures of classes are worth, measure by measure, and the same of real photos: the measures of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from encoscope.errors import MissingError
from encoscope.metrics import Interval, KernelDistance, bootstrap, frechet_distance, kernel_distance, split_halves
from encoscope.reproduce.vital.harness import Bench, Draws
from encoscope.reproduce.vital.judge import Judge, first_of_each, known_to, looked_at
from encoscope.reproduce.vital.published import ACCURACY, OWN, RESNET, TOP1, TOP5

Values: TypeAlias = dict[str, Interval | KernelDistance | float | None]
KID = "KID, own features"


def measures(bench: Bench, judge: Judge | None, made: Draws, labels: Sequence[int], extractor: Bench | None) -> Values:
    """What pictures of some classes are worth, by measure; distances are from real photos of the same classes."""
    all_labels = list(labels) * len(made.pictures)
    features, own = looked_at(bench.encoder, made.all, all_labels)
    real = _features(bench, bench, labels)
    seed = bench.request.seed
    found: Values = {ACCURACY: bootstrap(made.by_unit(own), seed=seed)}
    found[OWN] = _distance(real, features)
    if extractor is not None:
        found[RESNET] = _distance(_features(extractor, bench, labels), _pooled(extractor, made.all))
    found[KID] = _kid(real, features, seed)
    return found | _zero_shot(judge, made, all_labels, seed)


def real_measures(bench: Bench, judge: Judge | None, labels: Sequence[int]) -> tuple[Values, int]:
    """The same of real photos, and their number: the zero-shot figures of those the network takes for their class.

    Distances are those of one half of the photos from the other.
    """
    paths, own_labels = real_of(bench, labels)
    features, own = looked_at(bench.encoder, paths, own_labels)
    seed = bench.request.seed
    found: Values = {ACCURACY: bootstrap(own, seed=seed)}
    if len(features) >= 4:
        one, two = split_halves(features, seed)
        found |= {OWN: _distance(one, two), KID: _kid(one, two, seed)}
    right = [place for place, is_right in enumerate(own) if is_right]
    kept = Draws([[paths[place] for place in right]])
    if right:
        found |= _zero_shot(judge, kept, [own_labels[place] for place in right], seed)
    return found, len(paths)


def _zero_shot(judge: Judge | None, made: Draws, labels: Sequence[int], seed: int) -> Values:
    if judge is None:
        return {TOP1: None, TOP5: None}
    kept = [place for place, label in enumerate(labels) if judge.names(label)]
    if not kept:
        return {TOP1: None, TOP5: None}
    places = np.full(len(labels), np.nan)
    places[kept] = judge.ranks([made.all[place] for place in kept], [labels[place] for place in kept])

    def within(top: int) -> Interval:
        hits = np.where(np.isnan(places), np.nan, places < top)
        return bootstrap(made.by_unit(hits), seed=seed)

    return {TOP1: within(1), TOP5: within(5)}


def _features(extractor: Bench, bench: Bench, labels: Sequence[int]) -> Float[np.ndarray, "photos features"]:
    """What a network makes of the real photos of a bench."""
    return _pooled(extractor, real_of(bench, labels)[0])


def _pooled(bench: Bench, images: Sequence[Path]) -> Float[np.ndarray, "images features"]:
    return looked_at(bench.encoder, images, [0] * len(images))[0]


def _distance(real: Float[np.ndarray, "photos features"], made: Float[np.ndarray, "images features"]) -> float | None:
    return frechet_distance(real, made) if min(len(real), len(made)) > 1 else None


def _kid(
    real: Float[np.ndarray, "photos features"], made: Float[np.ndarray, "images features"], seed: int
) -> KernelDistance | None:
    return kernel_distance(real, made, seed=seed) if min(len(real), len(made)) > 1 else None


def judge_of(bench: Bench, notes: list[str]) -> Judge | None:
    """The independent image-text model; None, with a note, where its weights are not there."""
    source = str(bench.asked["judge"])
    try:
        return Judge.load(source, bench.names, known_to(source, bench.names))
    except MissingError as error:
        notes.append(f"No zero-shot figures: {error}.")
        return None


def real_of(bench: Bench, classes: Sequence[int]) -> tuple[list[Path], list[int]]:
    """Real photos of some classes, at most ``photos`` of each."""
    return first_of_each(bench.real, set(classes), int(bench.asked["photos"]))


def likeliest(
    bench: Bench, images: Sequence[Path]
) -> tuple[Float[np.ndarray, "images classes"], Int[np.ndarray, " images"]]:
    """The network's probabilities, and its answers."""
    shares = bench.encoder.logits(list(images)).softmax(1).cpu().double().numpy()
    return shares, shares.argmax(1)
