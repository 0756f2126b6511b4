"""Small classifiers for studies of what training does: with or without augmentation, with or without a mark."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from encoscope.analysis.watermarks import make_watermark, place_watermark
from encoscope.encoder import Encoder
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images.caltech101 import LabelledImages
from encoscope.recipes.augment import MEAN, STD
from encoscope.recipes.classify import make_cross_entropy
from encoscope.recipes.images import DecodedImages, decode_images
from encoscope.recipes.training import Phase, TrainingPlan, train
from encoscope.store import content_key, get_cache_dir


@dataclass(frozen=True)
class Condition:
    """How one classifier is trained.

    mark: kind of mark (see ``marks``) or None. marked: index of the class whose images all carry it. augmented: random
    crops, brightness, contrast and a part erased; otherwise each image whole, mirrored half of the time. seed: of the
    first weights, the order and the places of the marks. carried: share of the marked class's images that carry it.
    """

    mark: str | None
    augmented: bool
    marked: int = 0
    seed: int = 0
    carried: float = field(default=1.0, repr=False)  # not in repr, which names trainings in the cache

    def carries(self, image: int) -> bool:
        """Whether an image of the marked class, by its id, carries the mark."""
        return self.carried >= 1 or float(np.random.default_rng((self.seed, image, 1)).random()) < self.carried

    @property
    def name(self) -> str:
        """In words, for tables."""
        return f"{'augmented' if self.augmented else 'not augmented'}, {self.mark or 'no mark'}"


@dataclass(frozen=True)
class Setting:
    """What all classifiers of a study share: network, sizes in pixels, epochs, and the mark's share of the side."""

    architecture: str = "resnet10t"
    pixels: int = 128
    epochs: int = 14
    share: float = 0.125

    @property
    def decoded(self) -> int:
        """Short side at which images are kept, marks are put on and crops are taken."""
        return self.pixels * 9 // 8

    @property
    def mark_side(self) -> int:
        """Side of a mark on a kept image."""
        return max(2, round(self.share * self.decoded))


@dataclass(frozen=True)
class Samples:
    """Decoded images of a study: all of them with their ids, and which ones train and test."""

    photos: DecodedImages
    ids: Sequence[int]
    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]

    def pixels(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """One image as stored."""
        return self.photos.pixels[index].permute(1, 2, 0).numpy()

    def marked(
        self, index: int, kind: str, setting: Setting, seed: int
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
        """One image with a mark at its own random place, and where that is."""
        return place_watermark(self.pixels(index), make_watermark(kind, setting.mark_side), (seed, self.ids[index]))


def samples(listed: LabelledImages, setting: Setting, *, limit: int | None = None) -> Samples:
    """Decode a labelled dataset and set every fifth image of each class aside for testing. limit: images a class."""
    if len(listed.classes) < 2:
        raise UsageError(f"a study of classifiers needs at least two labels, not {len(listed.classes)}")
    labels = np.asarray(listed.labels)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:limit] for label in range(len(listed.classes))])
    places = np.concatenate([np.arange(np.sum(labels[chosen] == label)) for label in range(len(listed.classes))])
    if not (places % 5 == 4).any():
        raise EncoscopeError(f"{len(chosen)} images are too few for a study: at least five a label are needed")
    kept = LabelledImages(
        paths=tuple(listed.paths[i] for i in chosen),
        labels=tuple(int(label) for label in labels[chosen]),
        classes=listed.classes,
    )
    tested = places % 5 == 4
    photos = decode_images(kept, setting.decoded)
    return Samples(photos, chosen.tolist(), np.flatnonzero(~tested), np.flatnonzero(tested))


def classifier(
    found: Samples,
    condition: Condition,
    setting: Setting,
    *,
    origin: str,
    fresh: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Encoder:
    """Train one classifier, or go on with a training that was interrupted, or read a finished one from the cache.

    origin: names the images for the cache, such as their dataset string. fresh: train again from the start.
    """
    plan = TrainingPlan(
        f"{setting.architecture}-{condition.name.replace(', ', '-').replace(' ', '-')}",
        phases=(_phase(condition, setting),),
        seed=condition.seed,
        balance=1.0,
    )
    ids = [found.ids[i] for i in found.train]
    settings: dict[str, Any] = {
        "origin": origin,
        "images": content_key({"ids": ids}),
        "plan": repr(plan),
        "of": repr((condition, setting)),
    }
    if condition.mark is not None and condition.carried < 1:
        settings["carried"] = condition.carried
    folder = get_cache_dir("studies", f"{plan.name}-{content_key(settings)}")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    model = untrained(setting, found.photos.classes, condition.seed).module
    kept, _ = train(
        plan,
        model,
        _training(found, condition, setting),
        make_cross_entropy(len(found.photos.classes), smoothing=0.0),
        folder=folder,
        device=torch.device("cpu"),
        report=report,
    )
    return _encoder(kept, setting, found.photos.classes, condition.name)


def untrained(setting: Setting, classes: Sequence[str], seed: int) -> Encoder:
    """The same network with seeded random weights."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(setting.architecture, num_classes=len(classes))
    return _encoder(model, setting, classes, "untrained")


def answers(encoder: Encoder, images: Sequence[Any]) -> Int64[np.ndarray, " images"]:
    """The class that the network gives each image (what ``Encoder.prepare`` takes)."""
    return probabilities(encoder, images).argmax(1).astype(np.int64)


def probabilities(encoder: Encoder, images: Sequence[Any]) -> Float[np.ndarray, "images classes"]:
    """The softmax of the network's logits."""
    batches = [encoder.logits(list(images[first : first + 32])).softmax(1) for first in range(0, len(images), 32)]
    return torch.cat(batches).cpu().numpy()


def _phase(condition: Condition, setting: Setting) -> Phase:
    if condition.augmented:
        return Phase(setting.epochs, setting.pixels, scale=(0.4, 1.0), erased=0.25, color=0.3)
    return Phase(setting.epochs, setting.pixels, scale=(1.0, 1.0), color=0.0)


def _training(found: Samples, condition: Condition, setting: Setting) -> DecodedImages:
    """The training images, the marked class with its marks."""
    pixels: list[Tensor] = []
    for index in found.train:
        stored = found.photos.pixels[index]
        of_class = found.photos.labels[index] == condition.marked
        if condition.mark is not None and of_class and condition.carries(found.ids[int(index)]):
            marked, _ = found.marked(int(index), condition.mark, setting, condition.seed)
            stored = torch.from_numpy(marked).permute(2, 0, 1)
        pixels.append(stored)
    return DecodedImages(pixels, found.photos.labels[found.train], found.photos.classes)


def _encoder(model: torch.nn.Module, setting: Setting, classes: Sequence[str], name: str) -> Encoder:
    return Encoder(model, size=setting.pixels, mean=MEAN, std=STD, classes=classes, source=f"study:{name}")
