"""Small classifiers for studies of what training does: with or without augmentation, with or without a cue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from encoscope.analysis.watermarks import make_watermark, place_watermark
from encoscope.defaults import RANDOM_STATE
from encoscope.encoder import Encoder, is_same_network, record_trial
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images.caltech101 import LabelledImages
from encoscope.recipes.augment import MEAN, STD
from encoscope.recipes.classify import make_cross_entropy
from encoscope.recipes.images import DecodedImages, decode_images
from encoscope.recipes.training import Phase, TrainingPlan, train
from encoscope.results import atomic_write, write
from encoscope.store import content_key, get_cache_dir


@dataclass(frozen=True)
class Condition:
    """How one classifier is trained.

    Attributes:
        cue: kind of cue, see ``encoscope.analysis.watermarks``; None for none.
        augmented: whether images are augmented by random crops, brightness, contrast and an erased rectangle; otherwise
            each image is whole, mirrored half of the time.
        cue_class: index of the class whose images have the cue.
        seed: seed of the first weights, the order and the positions of the cues.
        cue_rate: share of the class's images that have the cue.
    """

    cue: str | None
    augmented: bool
    cue_class: int = 0
    seed: int = RANDOM_STATE
    cue_rate: float = field(default=1.0, repr=False)  # not in repr, which names trainings in the cache

    def has_cue(self, image: int) -> bool:
        """Tell whether an image of the cue's class has the cue.

        Args:
            image: id of the image.

        Returns:
            True if it has.
        """
        return self.cue_rate >= 1 or float(np.random.default_rng((self.seed, image, 1)).random()) < self.cue_rate

    @property
    def name(self) -> str:
        """In words, for tables."""
        return f"{'augmented' if self.augmented else 'not augmented'}, {self.cue or 'no mark'}"


@dataclass(frozen=True)
class Setting:
    """What all classifiers of a study share.

    Attributes:
        architecture: timm's name of the network.
        pixels: side of the input, in pixels.
        epochs: number of epochs.
        share: the cue's share of the image's side.
    """

    architecture: str = "resnet10t"
    pixels: int = 128
    epochs: int = 14
    share: float = 0.125

    @property
    def decoded(self) -> int:
        """Short side at which images are kept, cues are added and crops are taken, in pixels."""
        return self.pixels * 9 // 8

    @property
    def cue_side(self) -> int:
        """Side of a cue on a kept image, in pixels."""
        return max(2, round(self.share * self.decoded))


@dataclass(frozen=True)
class Samples:
    """Decoded images of a study, and which ones train and test.

    Attributes:
        images: all images, with labels and classes.
        ids: id of each image, its position in the dataset.
        train: positions of the training images.
        test: positions of the held-out images.
    """

    images: DecodedImages
    ids: Sequence[int]
    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]

    def pixels(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return one image as it is kept.

        Args:
            index: position of the image.

        Returns:
            Its pixels, from 0 to 255.
        """
        return self.images.pixels[index].permute(1, 2, 0).numpy()

    def add_cue(
        self, index: int, kind: str, setting: Setting, random_state: int
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """Add a cue to one image, at a random position of its own.

        Args:
            index: position of the image.
            kind: kind of cue.
            setting: what all classifiers share; it has the cue's size.
            random_state: seed of the position.

        Returns:
            The pixels with the cue, and where it lies.
        """
        return place_watermark(
            self.pixels(index), make_watermark(kind, setting.cue_side), (random_state, self.ids[index])
        )


def decode_samples(listed: LabelledImages, setting: Setting, *, limit: int | None = None) -> Samples:
    """Decode a labelled dataset, and hold every fifth image of each class out for testing.

    Args:
        listed: the dataset.
        setting: what all classifiers share; it has the size.
        limit: number of images of a class, at most.

    Returns:
        The images.

    Raises:
        UsageError: for fewer than two classes.
        EncoscopeError: if no class has five images.
    """
    if len(listed.classes) < 2:
        raise UsageError(f"a study of classifiers needs at least two labels, not {len(listed.classes)}")
    labels = np.asarray(listed.labels)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:limit] for label in range(len(listed.classes))])
    positions = np.concatenate([np.arange(np.sum(labels[chosen] == label)) for label in range(len(listed.classes))])
    if not (positions % 5 == 4).any():
        raise EncoscopeError(f"{len(chosen)} images are too few for a study: at least five a label are needed")
    selection = LabelledImages(
        paths=tuple(listed.paths[i] for i in chosen),
        labels=tuple(int(label) for label in labels[chosen]),
        classes=listed.classes,
    )
    tested = positions % 5 == 4
    images = decode_images(selection, setting.decoded)
    return Samples(images, chosen.tolist(), np.flatnonzero(~tested), np.flatnonzero(tested))


def train_classifier(
    samples: Samples,
    condition: Condition,
    setting: Setting,
    *,
    origin: str,
    fresh: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Encoder:
    """Train one classifier; resume a training that was interrupted, or read a finished one from the cache.

    Args:
        samples: the images.
        condition: how it is trained.
        setting: what all classifiers share.
        origin: what the images are called in the cache, such as their dataset string.
        fresh: whether to train again from the start.
        report: called with a line of text after each epoch.

    Returns:
        The classifier.
    """
    plan = TrainingPlan(
        f"{setting.architecture}-{condition.name.replace(', ', '-').replace(' ', '-')}",
        phases=(_plan_phase(condition, setting),),
        seed=condition.seed,
        balance=1.0,
    )
    ids = [samples.ids[i] for i in samples.train]
    settings: dict[str, Any] = {
        "origin": origin,
        "images": content_key({"ids": ids}),
        "plan": repr(plan),
        "of": repr((condition, setting)),
    }
    if condition.cue is not None and condition.cue_rate < 1:
        settings["cue_rate"] = condition.cue_rate
    folder = get_cache_dir("studies", f"{plan.name}-{content_key(settings)}")
    untrained = create_untrained(setting, samples.images.classes, condition.seed)
    beside = folder / "untrained.json"  # another version of the network's library may compute another network
    kept = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    if fresh or (folder.exists() and not is_same_network(untrained, kept, what="trained weights")):
        shutil.rmtree(folder, ignore_errors=True)
    with atomic_write(beside) as temporary:
        write(temporary, record_trial(untrained))
    trained, _ = train(
        plan,
        untrained.module,
        _collect_training_images(samples, condition, setting),
        make_cross_entropy(len(samples.images.classes), smoothing=0.0),
        folder=folder,
        device=torch.device("cpu"),
        report=report,
    )
    return _create_encoder(trained, setting, samples.images.classes, condition.name)


def create_untrained(setting: Setting, classes: Sequence[str], random_state: int) -> Encoder:
    """Create the same network with seeded random weights.

    Args:
        setting: what all classifiers share.
        classes: names of the classes.
        random_state: seed of the weights.

    Returns:
        The network.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        model = timm.create_model(setting.architecture, num_classes=len(classes))
    return _create_encoder(model, setting, classes, "untrained")


def predict_classes(encoder: Encoder, images: Sequence[Any]) -> Int64[np.ndarray, " images"]:
    """Predict the class of each image.

    Args:
        encoder: the classifier.
        images: images, as ``Encoder.prepare`` takes them.

    Returns:
        An index for each image.
    """
    return compute_probabilities(encoder, images).argmax(1).astype(np.int64)


def compute_probabilities(encoder: Encoder, images: Sequence[Any]) -> Float[np.ndarray, "images classes"]:
    """Compute the softmax of the network's logits.

    Args:
        encoder: the classifier.
        images: images, as ``Encoder.prepare`` takes them.

    Returns:
        Probabilities of the classes.
    """
    batches = [encoder.logits(list(images[first : first + 32])).softmax(1) for first in range(0, len(images), 32)]
    return torch.cat(batches).cpu().numpy()


def _plan_phase(condition: Condition, setting: Setting) -> Phase:
    if condition.augmented:
        return Phase(setting.epochs, setting.pixels, scale=(0.4, 1.0), erased=0.25, color=0.3)
    return Phase(setting.epochs, setting.pixels, scale=(1.0, 1.0), color=0.0)


def _collect_training_images(samples: Samples, condition: Condition, setting: Setting) -> DecodedImages:
    """The training images, with cues on those of the cue's class."""
    pixels: list[Tensor] = []
    for index in samples.train:
        stored = samples.images.pixels[index]
        of_class = samples.images.labels[index] == condition.cue_class
        if condition.cue is not None and of_class and condition.has_cue(samples.ids[int(index)]):
            with_cue, _ = samples.add_cue(int(index), condition.cue, setting, condition.seed)
            stored = torch.from_numpy(with_cue).permute(2, 0, 1)
        pixels.append(stored)
    return DecodedImages(pixels, samples.images.labels[samples.train], samples.images.classes)


def _create_encoder(model: torch.nn.Module, setting: Setting, classes: Sequence[str], name: str) -> Encoder:
    return Encoder(model, size=setting.pixels, mean=MEAN, std=STD, classes=classes, source=f"study:{name}")
