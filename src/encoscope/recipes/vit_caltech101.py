"""``zoo:vit-caltech101``: a plain small ViT with class and register tokens, distilled from ``zoo:resnet-caltech101``.

The student sees the same strongly augmented, mixed image as its teacher. Its class token follows the teacher's answer;
half way up, each patch token follows the cell of the teacher's third stage at its position; both have a stride of 16
pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from encoscope._torchvision import ensure_torchvision
from encoscope.images.caltech101 import list_classes, read_caltech101
from encoscope.recipes.classify import compute_accuracies, mix_batch, predict_crops
from encoscope.recipes.commandline import choose_device, logger, parse_arguments, run_recipe
from encoscope.recipes.export import measure_and_export, round_to_half
from encoscope.recipes.images import DecodedImages, decode_images, split_tenth
from encoscope.recipes.training import Phase, TrainingPlan, TrainingStep, to_channels_last, train
from encoscope.zoo.registry import find_entry, load_weights

NAME = "vit-caltech101"
TEACHER = "resnet-caltech101"
ARCHITECTURE = "vit_tiny_patch16_224"
KWARGS: dict[str, Any] = {
    "num_classes": 101,
    "img_size": 128,
    "depth": 6,
    "reg_tokens": 4,
    "dynamic_img_size": True,
}
TAUGHT = 3  # the block, from 0, whose patch tokens follow the teacher's layer3
SIDE = 128
DECODED = 160
PLAN = TrainingPlan(
    name=NAME,
    seed=2,
    rate=1e-3,
    ema=0.999,
    clip=1.0,
    phases=(
        Phase(epochs=24, pixels=64, scale=(0.25, 1.0), mixed=0.5),
        Phase(epochs=22, pixels=96, scale=(0.2, 1.0), mixed=0.7, erased=0.1),
        Phase(epochs=4, pixels=128, scale=(0.25, 1.0), mixed=0.5),
    ),
    extra=(("taught", TAUGHT), ("temperature", 2.0), ("depth", KWARGS["depth"])),
)
ABOUT = (
    "A small plain vision transformer (width 192, 6 blocks, patches of 16 pixels, a class token and 4 registers) that "
    "names the 101 object classes of Caltech-101, distilled from zoo:resnet-caltech101."
)
LIMITS = """Those of its teacher, and it is less accurate. It is included so that token layouts, attention keys and
the visualization of transformers can be used with trained weights."""


class Student(nn.Module):
    """The transformer, and the projection of its patch tokens to the teacher's channels that only training needs.

    Args:
        channels: The number of the teacher's channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        ensure_torchvision()
        import timm

        self.vit: Any = timm.create_model(ARCHITECTURE, drop_path_rate=0.05, **KWARGS)
        self.adapt = nn.Conv2d(self.vit.embed_dim, channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and projected patch tokens.

        Args:
            images: Normalized images, [B, 3, height, width].

        Returns:
            Logits, [B, classes], and projected patch tokens, [B, channels, rows, columns].
        """
        tokens, (patches,) = self.vit.forward_intermediates(images, indices=[TAUGHT], output_fmt="NCHW")
        return self.vit.forward_head(tokens), self.adapt(patches)


def load_teacher() -> nn.Module:
    """Load the trained ResNet, frozen."""
    ensure_torchvision()
    import timm

    known = find_entry(TEACHER)
    network = timm.create_model(known.architecture, **known.kwargs)
    network.load_state_dict(load_weights(known))
    return network.eval().requires_grad_(False)


def make_distillation_loss(
    teacher: Any, classes: int, temperature: float = 2.0
) -> Callable[[nn.Module, TrainingStep], Tensor]:
    """Make the loss: cross entropy with teacher and label, and the distance of patch tokens to the teacher's layer3.

    The maps are compared by cosine, cell by cell, after the teacher's channels are centered over the batch.

    Args:
        teacher: The trained ResNet.
        classes: The number of classes.
        temperature: Divides the logits of both before they are compared.

    Returns:
        The loss of a student on a step.
    """

    def loss(student: nn.Module, step: TrainingStep) -> Float[Tensor, ""]:
        images, targets = mix_batch(step, classes, smoothing=0.1)
        with torch.no_grad():
            maps = teacher.layer3(
                teacher.layer2(teacher.layer1(teacher.maxpool(teacher.act1(teacher.bn1(teacher.conv1(images))))))
            )
            teacher_logits = teacher.fc(teacher.global_pool(teacher.layer4(maps))).float()
            maps = maps.float() - maps.float().mean((0, 2, 3), keepdim=True)
        logits, patches = student(images)
        logits = logits.float()
        soft_targets = (teacher_logits / temperature).softmax(1)
        follow = functional.cross_entropy(logits / temperature, soft_targets) * temperature**2
        apart = 1 - functional.cosine_similarity(patches.float(), maps, dim=1).mean()
        return 0.7 * follow + 0.3 * functional.cross_entropy(logits, targets) + apart

    return loss


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
            predicted = predict_crops(model.vit, whole, tuning, SIDE, target).argmax(1)
            top1, mean, _ = compute_accuracies(predicted, whole.labels[tuning], len(whole.classes))
            return {"top1": top1, "mean_per_class": mean}

        evaluate = on_tenth

    teacher = to_channels_last(load_teacher().to(target))
    torch.manual_seed(PLAN.seed)
    logger.info("%d images of %d classes; state in %s", len(dataset), len(dataset.classes), folder)
    student, history = train(
        PLAN,
        Student(channels=256),
        dataset,
        make_distillation_loss(teacher, len(list_classes())),
        folder=folder,
        device=target,
        stop_epoch=chosen.stop_epoch,
        keep_at=chosen.keep_at,
        evaluate=evaluate,
        report=logger.info,
    )
    if chosen.tune or len(history) < PLAN.epochs:
        return
    vit: Any = student.vit
    measured = measure_and_export(
        round_to_half(vit),
        PLAN,
        history,
        read_caltech101(chosen.data, "test"),
        output=chosen.output or folder,
        architecture=ARCHITECTURE,
        kwargs=KWARGS,
        side=SIDE,
        about=ABOUT,
        limits=LIMITS,
    )
    logger.info("test list: %s", ", ".join(f"{name} {value:.4f}" for name, value in measured.items()))


if __name__ == "__main__":
    run_recipe(main)
