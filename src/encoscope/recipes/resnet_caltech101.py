"""``zoo:resnet-caltech101``: timm's resnet10t from scratch on Caltech-101's training list.

Small images first, larger ones last; large classes drawn less than their share; mixup and cutmix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from encoscope._torchvision import ensure_torchvision
from encoscope.images.caltech101 import list_classes, read_caltech101
from encoscope.recipes.classify import compute_accuracies, make_cross_entropy, predict_crops
from encoscope.recipes.commandline import choose_device, logger, parse_arguments, run_recipe
from encoscope.recipes.export import measure_and_export, round_to_half
from encoscope.recipes.images import DecodedImages, decode_images, split_tenth
from encoscope.recipes.training import Phase, TrainingPlan, train

NAME = "resnet-caltech101"
ARCHITECTURE = "resnet10t"
SIDE = 128
DECODED = 160
ABOUT = "A small ResNet that names the 101 object classes of Caltech-101, trained from scratch at 64 to 112 pixels."
LIMITS = """A network for teaching and testing. It knows 101 classes and always predicts one of them. It was trained
on objects that are large, centered and often alone on a plain background. Airplanes, motorbikes and faces
are a third of the training images, and the faces are of few people, so it says nothing about faces in
general. Some images of the dataset are rotated on a black background, which the network may use as a cue
for the class. Do not use it for decisions about people."""
PLAN = TrainingPlan(
    name=NAME,
    phases=(
        Phase(epochs=24, pixels=64, scale=(0.3, 1.0), mixed=0.25, erased=0.1),
        Phase(epochs=40, pixels=96, scale=(0.25, 1.0), mixed=0.4, erased=0.25),
        Phase(epochs=10, pixels=112, scale=(0.3, 1.0), mixed=0.2, erased=0.1),
    ),
)


def build_network(random_state: int = PLAN.seed) -> nn.Module:
    """Build the network.

    Args:
        random_state: The seed of the weights.

    Returns:
        The untrained network.
    """
    ensure_torchvision()
    import timm

    torch.manual_seed(random_state)
    return timm.create_model(ARCHITECTURE, num_classes=len(list_classes()), drop_rate=0.1)


def main() -> None:
    """Train, or resume training, then measure on the test list and write weights, log and card."""
    chosen = parse_arguments(__doc__ or "")
    dataset = decode_images(read_caltech101(chosen.data, "train"), DECODED)
    folder, target = chosen.state or PLAN.folder(), choose_device()
    evaluate: Callable[[Any], dict[str, float]] | None = None
    if chosen.tune:
        kept, tuning = split_tenth(dataset.labels)
        whole, folder = dataset, folder.with_name(folder.name + "-tune")
        dataset = DecodedImages([whole.pixels[i] for i in kept], whole.labels[kept], whole.classes)

        def on_tenth(model: Any) -> dict[str, float]:
            predicted = predict_crops(model, whole, tuning, SIDE, target).argmax(1)
            top1, mean, _ = compute_accuracies(predicted, whole.labels[tuning], len(whole.classes))
            return {"top1": top1, "mean_per_class": mean}

        evaluate = on_tenth

    logger.info("%d images of %d classes; state in %s", len(dataset), len(dataset.classes), folder)
    model, history = train(
        PLAN,
        build_network(),
        dataset,
        make_cross_entropy(len(dataset.classes)),
        folder=folder,
        device=target,
        stop_epoch=chosen.stop_epoch,
        keep_at=chosen.keep_at,
        evaluate=evaluate,
        report=logger.info,
    )
    if chosen.tune or len(history) < PLAN.epochs:
        return
    measured = measure_and_export(
        round_to_half(model),
        PLAN,
        history,
        read_caltech101(chosen.data, "test"),
        output=chosen.output or folder,
        architecture=ARCHITECTURE,
        kwargs={"num_classes": len(list_classes())},
        side=SIDE,
        about=ABOUT,
        limits=LIMITS,
    )
    logger.info("test list: %s", ", ".join(f"{name} {value:.4f}" for name, value in measured.items()))


if __name__ == "__main__":
    run_recipe(main)
