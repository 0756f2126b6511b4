"""What pictures of classes and channels are worth: the network's own word, an independent judge's, and distances."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from encoscope import vlm
from encoscope.encoder import Encoder
from encoscope.images.sets import LabelledImages
from encoscope.metrics import (
    Interval,
    auc_mad,
    bootstrap,
    build_zero_shot_weights,
    kernel_distance,
    rank_classes,
    split_halves,
)
from encoscope.units import measure_units, parse_unit
from encoscope.vlm import VLM
from encoscope.zoo.attributes import HELD_OUT, attributes
from encoscope.zoo.captions import article

PROMPTS = ("a photo of {}", "a picture of {}", "a close view of {}", "{}")
PHOTOS = 12  # real photos of a class, at most
_BATCH = 64


@dataclass(frozen=True)
class Judge:
    """An image-text model that names pictures, among ``classes``.

    classes: indices into the network's classes, in ascending order. weights: a unit vector for each.
    """

    vlm: VLM
    classes: tuple[int, ...]
    weights: Float[Tensor, "classes width"]

    @classmethod
    def of(
        cls, vlm: VLM, names: Sequence[str], classes: Sequence[int], prompts: Sequence[str] | None = PROMPTS
    ) -> Judge:
        """names: of all of the network's classes, as they stand in a sentence after the prompts (None: the 80)."""
        chosen = tuple(sorted(classes))
        return cls(vlm, chosen, build_zero_shot_weights(vlm.embed_texts, [names[index] for index in chosen], prompts))

    @classmethod
    def load(
        cls, source: str, names: Sequence[str], classes: Sequence[int], prompts: Sequence[str] | None = None
    ) -> Judge:
        """A model by its name. prompts: left out, the 80 of CLIP's evaluation, and four for the zoo's.

        The zoo's model reads Caltech-101's names as its captions have them, with their article. Raises MissingError
        where its weights are not there.
        """
        ours = source.startswith("zoo:")
        words = {entry.folder: entry.name for entry in attributes()}
        plain = [words.get(name, name.replace("_", " ")) for name in names]
        spoken = [article(name) for name in plain] if ours or prompts is not None else plain
        return cls.of(vlm.load(source, device="cpu"), spoken, classes, PROMPTS if ours else prompts)

    def names(self, index: int) -> bool:
        """Whether a class is among those it chooses from."""
        return index in self.classes

    def scores(self, images: Sequence[Any]) -> Float[Tensor, "images classes"]:
        """The cosine of each image with each class."""
        return self.vlm.embed_images(images) @ self.weights.T

    def right(self, images: Sequence[Any], labels: Sequence[int]) -> list[bool]:
        """Whether each image's class is the most similar one."""
        found = self.scores(images).argmax(1).tolist()
        return [self.classes[place] == label for place, label in zip(found, labels, strict=True)]

    def ranks(self, images: Sequence[Any], labels: Sequence[int]) -> Int[np.ndarray, " images"]:
        """The place, from 0, of each image's class among the classes by similarity."""
        places = [self.classes.index(label) for label in labels]
        return rank_classes(self.vlm.embed_images(images), self.weights, places).numpy()

    def certainty(self, images: Sequence[Any], labels: Sequence[int]) -> float:
        """The mean log-probability of the images' classes, with CLIP's temperature of 0.01: what settings go by."""
        shares = (100 * self.scores(images)).log_softmax(1)
        places = [self.classes.index(label) for label in labels]
        return float(shares[range(len(places)), places].mean())


@dataclass(frozen=True)
class Real:
    """Held-out photos of some classes, and what network and judge make of them.

    labels: the class of each photo. features: pooled, of the trained network. own, judged: whether each was right; of
    classes that the judge does not choose from, NaN.
    """

    labels: Float[np.ndarray, " photos"]
    features: Float[np.ndarray, "photos features"]
    own: Float[np.ndarray, " photos"]
    judged: Float[np.ndarray, " photos"]

    def of(self, classes: Sequence[int]) -> Real:
        """The photos of some classes."""
        kept = np.isin(self.labels, classes)
        return Real(self.labels[kept], self.features[kept], self.own[kept], self.judged[kept])

    def rate(self, label: int) -> float:
        """The judge's accuracy on the photos of a class; NaN without any."""
        kept = self.judged[self.labels == label]
        return float(kept.mean()) if len(kept) else float("nan")


def real_photos(
    encoder: Encoder, judge: Judge | None, photos: LabelledImages, classes: Collection[int], limit: int = PHOTOS
) -> Real:
    """Measure at most ``limit`` photos of each of some classes, the first ones in the order of the list."""
    paths, labels = first_of_each(photos, classes, limit)
    features, own = looked_at(encoder, paths, labels)
    return Real(np.asarray(labels, dtype=np.float64), features, own, _judged(judge, paths, labels))


def first_of_each(photos: LabelledImages, classes: Collection[int], limit: int) -> tuple[list[Path], list[int]]:
    """At most ``limit`` photos of each of some classes with their labels, in the order of the list."""
    seen: dict[int, int] = {}
    chosen: list[tuple[Path, int]] = []
    for path, label in zip(photos.paths, photos.labels, strict=True):
        seen[label] = seen.get(label, 0) + 1
        if label in classes and seen[label] <= limit:
            chosen.append((path, label))
    return [path for path, _ in chosen], [label for _, label in chosen]


def known_to(source: str, names: Sequence[str]) -> list[int]:
    """The classes that a judge can tell by name: for the zoo's own model those whose names it was taught."""
    new = HELD_OUT if source.startswith("zoo:") else ()
    return [index for index, name in enumerate(names) if name not in new]


def looked_at(
    encoder: Encoder, images: Sequence[Path], labels: Sequence[int]
) -> tuple[Float[np.ndarray, "images features"], Float[np.ndarray, " images"]]:
    """The network's pooled features of images, and whether it takes each for its class."""
    features, right = [], []
    for first in range(0, len(images), _BATCH):
        seen = encoder.observe(list(images[first : first + _BATCH]), features=True, logits=True)
        assert seen.features is not None
        assert seen.logits is not None
        features.append(seen.features.cpu().numpy().astype(np.float64))
        right.append((seen.logits.argmax(1).cpu() == torch.tensor(labels[first : first + _BATCH])).numpy())
    return np.concatenate(features), np.concatenate(right).astype(np.float64)


def class_row(
    encoder: Encoder, judge: Judge | None, real: Real, pictures: Sequence[Path], labels: Sequence[int], seed: int = 0
) -> dict[str, Any]:
    """The figures of one picture for each of some classes. KID is of the trained network's features, with its spread.

    The share is the judge's accuracy on the pictures by its accuracy on real photos of the same classes, every class
    counting the same; its interval comes from drawing classes again.
    """
    features, own = looked_at(encoder, pictures, labels)
    row = {"pictures": len(pictures), "own top-1": bootstrap(own, seed=seed), "KID": None, "KID spread": None}
    among = real.of(labels)
    if len(pictures) > 1 and len(among.labels) > 1:
        distance = kernel_distance(among.features, features, seed=seed)
        row |= {"KID": distance.value, "KID spread": distance.std}
    judged = _judged(judge, pictures, labels)
    rates = np.array([real.rate(label) for label in labels])
    return row | _judgement(judged, rates, seed)


def real_row(real: Real, classes: Sequence[int], size: int, seed: int = 0) -> dict[str, Any]:
    """The same figures of held-out photos: KID between two halves of them, subsets as large as a set of pictures."""
    among = real.of(classes)
    row = {"pictures": len(among.labels), "own top-1": bootstrap(among.own, seed=seed), "KID": None, "KID spread": None}
    if len(among.labels) >= 4:
        one, two = split_halves(among.features, seed)
        distance = kernel_distance(one, two, size=max(2, min(size, len(one), len(two))), seed=seed)
        row |= {"KID": distance.value, "KID spread": distance.std}
    rates = np.array([among.rate(label) for label in classes])
    return row | _judgement(rates, rates, seed)


def channel_figures(
    encoder: Encoder, unit: str, pictures: Sequence[Path], control: Sequence[float]
) -> tuple[float, float]:
    """AUC and MAD of a channel's pictures against its strongest real images."""
    made = measure_units(encoder, list(pictures), [parse_unit(unit, encoder)])[:, 0]
    found = auc_mad(made.cpu().numpy().astype(np.float64), np.asarray(control, dtype=np.float64))
    return found.auc, found.mad


def _judgement(
    judged: Float[np.ndarray, " classes"], rates: Float[np.ndarray, " classes"], seed: int
) -> dict[str, Interval | None]:
    known = np.flatnonzero(~np.isnan(judged) & ~np.isnan(rates))
    if not len(known) or not rates[known].any():
        return {"judge top-1": None, "share of real": None}

    def share(drawn: np.ndarray) -> float:
        places = drawn.astype(np.int64)
        return float(judged[places].mean() / max(rates[places].mean(), 1e-9))

    return {
        "judge top-1": bootstrap(judged[known], seed=seed),
        "share of real": bootstrap(known.astype(np.float64), share, seed=seed),
    }


def _judged(judge: Judge | None, images: Sequence[Path], labels: Sequence[int]) -> Float[np.ndarray, " images"]:
    """1 or 0 for each image; NaN where there is no judge, or it does not choose from the image's class."""
    found = np.full(len(images), np.nan)
    places = [place for place, label in enumerate(labels) if judge is not None and judge.names(label)]
    if judge is not None and places:
        found[places] = judge.right([images[place] for place in places], [labels[place] for place in places])
    return found
