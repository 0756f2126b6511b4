"""``zoo:resnet-caltech101``: timm's resnet10t from scratch on Caltech-101's training list.

Small images first, larger ones last; classes drawn by the inverse root of their size; mixup and cutmix until the last phase.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from encoscope._torchvision import ensure_torchvision
from encoscope.images.caltech101 import caltech101, class_names
from encoscope.zoo.recipes.classify import accuracies, mixed_cross_entropy, predict
from encoscope.zoo.recipes.commandline import arguments, device, logger, run
from encoscope.zoo.recipes.photos import Photos, decode, held_out_tenth
from encoscope.zoo.recipes.training import Phase, Plan, train

NAME = "resnet-caltech101"
ARCHITECTURE = "resnet10t"
SIDE = 128
DECODED = 160
PLAN = Plan(
    name=NAME,
    phases=(
        Phase(epochs=24, pixels=64, scale=(0.3, 1.0), mixed=0.25, erased=0.1),
        Phase(epochs=40, pixels=96, scale=(0.25, 1.0), mixed=0.4, erased=0.25),
        Phase(epochs=10, pixels=112, scale=(0.3, 1.0), mixed=0.2, erased=0.1),
    ),
)


def build(seed: int = PLAN.seed) -> nn.Module:
    """The network, initialised from the seed."""
    ensure_torchvision()
    import timm

    torch.manual_seed(seed)
    return timm.create_model(ARCHITECTURE, num_classes=len(class_names()), drop_rate=0.1)


def main() -> None:
    """Train (or go on), then measure on the test list and write weights, log and card."""
    chosen = arguments(__doc__ or "")
    photos = decode(caltech101(chosen.data, "train"), DECODED)
    folder, target, evaluate = PLAN.folder(), device(), None
    if chosen.tune:
        kept, tuning = held_out_tenth(photos.labels)
        whole, folder = photos, folder.with_name(folder.name + "-tune")
        photos = Photos([whole.pixels[i] for i in kept], whole.labels[kept], whole.classes)

        def evaluate(model: nn.Module) -> dict[str, float]:
            predicted = predict(model, whole, tuning, SIDE, target).argmax(1)
            top1, mean, _ = accuracies(predicted, whole.labels[tuning], len(whole.classes))
            return {"top1": top1, "mean_per_class": mean}

    logger.info("%d photos of %d classes; state in %s", len(photos), len(photos.classes), folder)
    model, history = train(
        PLAN,
        build(),
        photos,
        mixed_cross_entropy(len(photos.classes)),
        folder=folder,
        device=target,
        stop_epoch=chosen.stop_epoch,
        evaluate=evaluate,
        report=logger.info,
    )
    if chosen.tune or len(history) < PLAN.epochs:
        return
    test = decode(caltech101(chosen.data, "test"), DECODED)
    predicted = predict(model, test, np.arange(len(test)), SIDE, target).argmax(1)
    top1, mean, _ = accuracies(predicted, test.labels, len(test.classes))
    logger.info("test list: top-1 %.4f, mean per class %.4f", top1, mean)


if __name__ == "__main__":
    run(main)
