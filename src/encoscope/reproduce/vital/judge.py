"""Measures of visualizations: the network's own answer, an independent judge's, distances, and activations."""

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
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder
from encoscope.images import LabelledImages
from encoscope.metrics import (
    Interval,
    auc_mad,
    bootstrap,
    build_zero_shot_weights,
    kernel_distance,
    rank_classes,
    split_halves,
)
from encoscope.reproduce.inputs import select_first_images
from encoscope.units import measure_units, parse_unit
from encoscope.vlm import VLM
from encoscope.zoo.attributes import HELD_OUT, load_class_words
from encoscope.zoo.captions import add_article

PROMPTS = ("a photo of {}", "a picture of {}", "a close view of {}", "{}")
MAX_REAL_IMAGES = 12
"""Real images of a class that are measured, at most."""
_BATCH = 64


@dataclass(frozen=True)
class Judge:
    """An image-text model that recognizes classes in images.

    Attributes:
        vlm: the image-text model.
        classes: indices of the classes it chooses from, among the network's, in ascending order.
        weights: a unit vector for each of these classes.
    """

    vlm: VLM
    classes: tuple[int, ...]
    weights: Float[Tensor, "classes width"]

    @classmethod
    def create(
        cls, vlm: VLM, names: Sequence[str], classes: Sequence[int], prompts: Sequence[str] | None = PROMPTS
    ) -> Judge:
        """Create a judge from a model and the names of classes.

        Args:
            vlm: the image-text model.
            names: names of all of the network's classes, as they stand in a sentence.
            classes: indices of the classes that it chooses from.
            prompts: sentences with ``{}`` for the name; None takes the 80 of CLIP's evaluation.

        Returns:
            The judge.
        """
        indices = tuple(sorted(classes))
        return cls(vlm, indices, build_zero_shot_weights(vlm.embed_texts, [names[index] for index in indices], prompts))

    @classmethod
    def load(
        cls, source: str, names: Sequence[str], classes: Sequence[int], prompts: Sequence[str] | None = None
    ) -> Judge:
        """Load a judge by the name of its model.

        The zoo's model reads Caltech-101's names as its captions have them, with their article.

        Args:
            source: name of an image-text model.
            names: names of all of the network's classes.
            classes: indices of the classes that it chooses from.
            prompts: sentences with ``{}`` for the name; by default the 80 of CLIP's evaluation, and four for the zoo's
                model.

        Returns:
            The judge.

        Raises:
            MissingError: if the model's weights are missing.
        """
        of_the_zoo = source.startswith("zoo:")
        sentence_names = {entry.folder: entry.name for entry in load_class_words()}
        plain = [sentence_names.get(name, name.replace("_", " ")) for name in names]
        spoken = [add_article(name) for name in plain] if of_the_zoo or prompts is not None else plain
        return cls.create(vlm.load(source, device="cpu"), spoken, classes, PROMPTS if of_the_zoo else prompts)

    def knows(self, index: int) -> bool:
        """Tell whether a class is among those the judge chooses from.

        Args:
            index: index of the class among the network's.

        Returns:
            True if it is.
        """
        return index in self.classes

    def compute_similarities(self, images: Sequence[Any]) -> Float[Tensor, "images classes"]:
        """Compute the cosine of each image with each class.

        Args:
            images: images, as the image-text model takes them.

        Returns:
            Cosines, from -1 to 1.
        """
        return self.vlm.embed_images(images) @ self.weights.T

    def recognize(self, images: Sequence[Any], labels: Sequence[int]) -> list[bool]:
        """Tell whether each image's class is the most similar one.

        Args:
            images: images, as the image-text model takes them.
            labels: class of each image, among the network's.

        Returns:
            True or False for each image.
        """
        answers = self.compute_similarities(images).argmax(1).tolist()
        return [self.classes[index] == label for index, label in zip(answers, labels, strict=True)]

    def rank_classes(self, images: Sequence[Any], labels: Sequence[int]) -> Int[np.ndarray, " images"]:
        """Rank each image's class among the judge's classes by similarity.

        Args:
            images: images, as the image-text model takes them.
            labels: class of each image, among the network's.

        Returns:
            The rank of each image's class, 0 for the most similar one.
        """
        indices = [self.classes.index(label) for label in labels]
        return rank_classes(self.vlm.embed_images(images), self.weights, indices).numpy()

    def compute_certainty(self, images: Sequence[Any], labels: Sequence[int]) -> float:
        """Compute the mean log-probability of the images' classes, which the search of settings maximizes.

        Args:
            images: images, as the image-text model takes them.
            labels: class of each image, among the network's.

        Returns:
            The mean, at CLIP's temperature of 0.01.
        """
        shares = (100 * self.compute_similarities(images)).log_softmax(1)
        indices = [self.classes.index(label) for label in labels]
        return float(shares[range(len(indices)), indices].mean())


@dataclass(frozen=True)
class RealImages:
    """Held-out images of several classes, and what network and judge make of them.

    Attributes:
        labels: class of each image.
        features: pooled features of the trained network.
        correct: 1 where the network takes the image for its class, else 0.
        judged: 1 where the judge does, else 0; NaN for classes that it does not choose from.
    """

    labels: Float[np.ndarray, " images"]
    features: Float[np.ndarray, "images features"]
    correct: Float[np.ndarray, " images"]
    judged: Float[np.ndarray, " images"]

    def of_classes(self, classes: Sequence[int]) -> RealImages:
        """Select the images of several classes.

        Args:
            classes: indices of the classes.

        Returns:
            The selection.
        """
        selection = np.isin(self.labels, classes)
        return RealImages(
            self.labels[selection], self.features[selection], self.correct[selection], self.judged[selection]
        )

    def judge_accuracy(self, label: int) -> float:
        """Compute the judge's accuracy on the images of a class.

        Args:
            label: index of the class.

        Returns:
            A share from 0 to 1; NaN without images.
        """
        judged = self.judged[self.labels == label]
        return float(judged.mean()) if len(judged) else float("nan")


def measure_real_images(
    encoder: Encoder,
    judge: Judge | None,
    images: LabelledImages,
    classes: Collection[int],
    limit: int = MAX_REAL_IMAGES,
) -> RealImages:
    """Measure the first images of each of several classes.

    Args:
        encoder: the network.
        judge: the independent judge, if there is one.
        images: labelled images.
        classes: indices of the classes.
        limit: images of a class, at most.

    Returns:
        The images' labels, features and answers.
    """
    first = select_first_images(images, classes, limit)
    features, correct = observe_images(encoder, first.paths, first.labels)
    judged = _judge_images(judge, first.paths, first.labels)
    return RealImages(np.asarray(first.labels, dtype=np.float64), features, correct, judged)


def list_judged_classes(source: str, names: Sequence[str]) -> list[int]:
    """List the classes that a judge can recognize by name: for the zoo's own model those whose names it was taught.

    Args:
        source: name of the judge's image-text model.
        names: names of the network's classes.

    Returns:
        Indices of classes.
    """
    new = HELD_OUT if source.startswith("zoo:") else ()
    return [index for index, name in enumerate(names) if name not in new]


def observe_images(
    encoder: Encoder, images: Sequence[Path], labels: Sequence[int]
) -> tuple[Float[np.ndarray, "images features"], Float[np.ndarray, " images"]]:
    """Compute the network's pooled features of images, and whether it takes each for its class.

    Args:
        encoder: the network.
        images: image files.
        labels: class of each image.

    Returns:
        The features, and 1 for a right answer, 0 for a wrong one.
    """
    features, right = [], []
    for first in range(0, len(images), _BATCH):
        observation = encoder.observe(list(images[first : first + _BATCH]), features=True, logits=True)
        assert observation.features is not None
        assert observation.logits is not None
        features.append(observation.features.cpu().numpy().astype(np.float64))
        right.append((observation.logits.argmax(1).cpu() == torch.tensor(labels[first : first + _BATCH])).numpy())
    return np.concatenate(features), np.concatenate(right).astype(np.float64)


def summarize_class_images(
    encoder: Encoder,
    judge: Judge | None,
    real: RealImages,
    images: Sequence[Path],
    labels: Sequence[int],
    random_state: int = RANDOM_STATE,
) -> dict[str, Any]:
    """Summarize one visualization for each of several classes in a row of measures.

    KID is of the trained network's features, with its spread. The share of real is the judge's accuracy on the
    visualizations by its accuracy on real images of the same classes, every class counting the same; its interval comes
    from drawing classes again.

    Args:
        encoder: the network.
        judge: the independent judge, if there is one.
        real: real images of these classes.
        images: image files.
        labels: class of each image.
        random_state: seed of the bootstrap and of KID's subsets.

    Returns:
        The row; a measure that cannot be computed is None.
    """
    features, correct = observe_images(encoder, images, labels)
    row = {
        "pictures": len(images),
        "own top-1": bootstrap(correct, random_state=random_state),
        "KID": None,
        "KID spread": None,
    }
    same_classes = real.of_classes(labels)
    if len(images) > 1 and len(same_classes.labels) > 1:
        distance = kernel_distance(same_classes.features, features, random_state=random_state)
        row |= {"KID": distance.value, "KID spread": distance.std}
    judged = _judge_images(judge, images, labels)
    rates = np.array([real.judge_accuracy(label) for label in labels])
    return row | _summarize_judgement(judged, rates, random_state)


def summarize_real_images(
    real: RealImages, classes: Sequence[int], size: int, random_state: int = RANDOM_STATE
) -> dict[str, Any]:
    """Summarize held-out images in the same measures; KID is between two halves of them.

    Args:
        real: real images.
        classes: indices of the classes to summarize.
        size: largest size of KID's subsets, the number of visualizations that the row is compared with.
        random_state: seed of the bootstrap, the halves and KID's subsets.

    Returns:
        The row; a measure that cannot be computed is None.
    """
    same_classes = real.of_classes(classes)
    row = {
        "pictures": len(same_classes.labels),
        "own top-1": bootstrap(same_classes.correct, random_state=random_state),
        "KID": None,
        "KID spread": None,
    }
    if len(same_classes.labels) >= 4:
        first, second = split_halves(same_classes.features, random_state)
        distance = kernel_distance(
            first, second, size=max(2, min(size, len(first), len(second))), random_state=random_state
        )
        row |= {"KID": distance.value, "KID spread": distance.std}
    rates = np.array([same_classes.judge_accuracy(label) for label in classes])
    return row | _summarize_judgement(rates, rates, random_state)


def compare_channel_activations(
    encoder: Encoder, unit: str, images: Sequence[Path], reference: Sequence[float]
) -> tuple[float, float]:
    """Compare a channel's values on visualizations with those on its strongest real images.

    Args:
        encoder: the network.
        unit: the channel.
        images: image files of its visualizations.
        reference: its values on the strongest real images.

    Returns:
        AUC (0.5 where both are alike) and MAD, the difference of the means in standard deviations of the real values.

    Source: CoSy, as cited in VITAL, Table 3.
    """
    values = measure_units(encoder, list(images), [parse_unit(unit, encoder)])[:, 0]
    comparison = auc_mad(values.cpu().numpy().astype(np.float64), np.asarray(reference, dtype=np.float64))
    return comparison.auc, comparison.mad


def _summarize_judgement(
    judged: Float[np.ndarray, " classes"], rates: Float[np.ndarray, " classes"], random_state: int
) -> dict[str, Interval | None]:
    known = np.flatnonzero(~np.isnan(judged) & ~np.isnan(rates))
    if not len(known) or not rates[known].any():
        return {"judge top-1": None, "share of real": None}

    def share(resampled: np.ndarray) -> float:
        indices = resampled.astype(np.int64)
        return float(judged[indices].mean() / max(rates[indices].mean(), 1e-9))

    return {
        "judge top-1": bootstrap(judged[known], random_state=random_state),
        "share of real": bootstrap(known.astype(np.float64), share, random_state=random_state),
    }


def _judge_images(judge: Judge | None, images: Sequence[Path], labels: Sequence[int]) -> Float[np.ndarray, " images"]:
    """1 or 0 for each image; NaN where there is no judge, or it does not choose from the image's class."""
    answers = np.full(len(images), np.nan)
    indices = [index for index, label in enumerate(labels) if judge is not None and judge.knows(label)]
    if judge is not None and indices:
        answers[indices] = judge.recognize([images[index] for index in indices], [labels[index] for index in indices])
    return answers
