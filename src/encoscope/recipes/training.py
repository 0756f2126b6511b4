"""A training loop that can be killed at any time and resumes to the same result.

All randomness follows from the seed, the epoch and the index in the epoch. After each epoch the whole state is written
to another file, synced and renamed. Running the recipe again reads the last such state; a changed plan has a folder of
its own.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import platformdirs
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from encoscope.defaults import RANDOM_STATE
from encoscope.errors import UsageError
from encoscope.recipes.augment import erase_rectangles, jitter_color
from encoscope.recipes.images import DecodedImages, crop_randomly, draw_balanced_order


@dataclass(frozen=True)
class Phase:
    """Some epochs of a training at one image size.

    Attributes:
        epochs: The number of epochs.
        pixels: The side of the images.
        scale: The least and the largest share of an image's area that a crop covers.
        mixed: The share of batches that are mixed.
        erased: The share of images in which a rectangle is erased.
        color: The strength of color jitter.
    """

    epochs: int
    pixels: int
    scale: tuple[float, float] = (0.25, 1.0)
    mixed: float = 0.0
    erased: float = 0.0
    color: float = 0.4


@dataclass(frozen=True)
class TrainingPlan:
    """All settings of a training; their hash names the folder of the run.

    Attributes:
        name: The name of the network.
        phases: The phases, in their order.
        seed: The seed of everything random.
        batch: The number of images in a batch.
        rate: The highest learning rate.
        decay: The weight decay.
        warm: The share of the steps in which the learning rate rises; after that it falls as a cosine.
        ema: The decay per step of the weights' moving average, which is what ships.
        balance: 0 shows each image once an epoch, 1 each class equally often.
        clip: The largest norm of a gradient.
        extra: Further settings of a recipe, so that they count for the hash.
    """

    name: str
    phases: tuple[Phase, ...]
    seed: int = RANDOM_STATE
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    warm: float = 0.15
    ema: float = 0.998
    balance: float = 0.5
    clip: float = 5.0
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def epochs(self) -> int:
        """The number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase(self, epoch: int) -> Phase:
        """Find the phase of an epoch.

        Args:
            epoch: The epoch, from 0 on.

        Returns:
            Its phase; the last one after the plan's end.
        """
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return self.phases[-1]

    def folder(self) -> Path:
        """Give the folder of the state, under ``ENCOSCOPE_CACHE`` or the user's cache."""
        cache = os.environ.get("ENCOSCOPE_CACHE") or platformdirs.user_cache_dir("encoscope")
        plan = asdict(self)
        for phase in plan["phases"]:  # the field's first name keeps the folders of finished runs
            phase["colour"] = phase.pop("color")
        settings = json.dumps(plan, sort_keys=True)
        return Path(cache) / "zoo" / f"{self.name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class TrainingStep:
    """What a loss sees of a step.

    Attributes:
        images: The augmented batch.
        labels: The class of each image.
        index: The index of each image in the dataset.
        phase: The phase.
        epoch: The epoch, from 0 on.
        generator: Draws what is random in this step.
    """

    images: Float[Tensor, "batch 3 height width"]
    labels: Int64[Tensor, " batch"]
    index: Int64[np.ndarray, " batch"]
    phase: Phase
    epoch: int
    generator: Generator


Loss: TypeAlias = Callable[[nn.Module, TrainingStep], Float[Tensor, ""]]


def compute_learning_rate(step: int, steps: int, peak: float, warm: float) -> float:
    """Compute the learning rate of a step: a linear rise, then half a cosine down to 0.

    Args:
        step: The step, from 0 on.
        steps: The number of steps.
        peak: The highest learning rate.
        warm: The share of the steps in which it rises.

    Returns:
        The learning rate.
    """
    rise = max(1, round(warm * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def list_batches(plan: TrainingPlan, dataset: DecodedImages, epoch: int) -> list[Int64[np.ndarray, " batch"]]:
    """List the batches of an epoch.

    Args:
        plan: The plan.
        dataset: The images.
        epoch: The epoch, from 0 on.

    Returns:
        The indices of the images of each batch; all batches are whole.
    """
    order = draw_balanced_order(dataset.labels, plan.balance, (plan.seed, epoch))
    size = min(plan.batch, len(order))
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def crop_batch(
    dataset: DecodedImages, index: Int64[np.ndarray, " batch"], phase: Phase, key: Sequence[int]
) -> UInt8[Tensor, "batch 3 side side"]:
    """Cut a random crop of each image of a batch.

    Args:
        dataset: The images.
        index: The indices of the batch's images.
        phase: The phase, which sets size and scale.
        key: Seed, epoch, and the index of the batch's first image in the epoch.

    Returns:
        The crops.
    """
    *start, first = key
    return torch.stack(
        [crop_randomly(dataset.pixels[i], phase.pixels, phase.scale, (*start, first + k)) for k, i in enumerate(index)]
    )


def _make_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    trained = [value for value in model.parameters() if value.requires_grad]
    return [  # no decay on biases, norms and scales
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that either the old or the new one is there, whenever the process is killed.

    Args:
        state: What ``torch.save`` takes.
        path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def find_kept_weights(folder: Path, epoch: int) -> Path:
    """Give the file of the weights kept after an epoch; ``encoscope.load("NAME@FILE")`` takes it.

    Args:
        folder: The folder of the run's state.
        epoch: The epoch, from 1 on.

    Returns:
        The file, which need not be there.
    """
    return folder / f"epoch-{epoch:03d}.safetensors"


def _keep(model: nn.Module, path: Path, record: Mapping[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, temporary, metadata={name: f"{value:.6g}" for name, value in record.items()})
    temporary.replace(path)


def to_channels_last(model: nn.Module) -> nn.Module:
    """Put the weights of convolutions channels last in memory: about a fifth faster on a CPU.

    Args:
        model: The module; it is changed in number.

    Returns:
        The same module.
    """
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # torch's stub lacks the keyword


def train(
    plan: TrainingPlan,
    model: nn.Module,
    dataset: DecodedImages,
    loss_of: Loss,
    *,
    folder: Path,
    device: torch.device,
    stop_epoch: int | None = None,
    keep_at: Sequence[int] = (),
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train to the plan's end, or to ``stop_epoch``, from the last checkpoint in ``folder`` if there is one.

    Args:
        plan: The plan.
        model: The untrained network.
        dataset: The images.
        loss_of: The loss of a step, in mixed precision (bfloat16).
        folder: The folder of the run's state.
        device: Where to train.
        stop_epoch: Stop after this epoch, from 1 on; None for the plan's end.
        keep_at: Epochs, from 1 on, after which the averaged weights are kept as ``find_kept_weights(folder, epoch)``.
        evaluate: Measured on the averaged weights after every fifth epoch and the last.
        report: Takes a line for each epoch.

    Returns:
        The averaged model, and a record for each epoch.

    Raises:
        UsageError: If an epoch of ``keep_at`` has passed and its weights were not kept.
    """
    model = to_channels_last(model.to(device))
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(_make_groups(model, plan.decay), lr=plan.rate)
    path, history, first = folder / "state.pt", [], 0
    if path.is_file():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        history, first = state["history"], len(state["history"])
        report(f"resumed after epoch {first} from {path}")
    past = [epoch for epoch in keep_at if epoch <= first and not find_kept_weights(folder, epoch).is_file()]
    if past:
        raise UsageError(
            f"the run in {folder} is after epoch {first} and kept no weights of epoch {past[0]}: train again, into "
            "another folder of state"
        )
    for epoch in range(first, min(plan.epochs, stop_epoch or plan.epochs)):
        record = {"epoch": epoch + 1, **_epoch(plan, model, ema, optimizer, dataset, loss_of, epoch, device)}
        if evaluate is not None and ((epoch + 1) % 5 == 0 or epoch + 1 == plan.epochs):
            record |= evaluate(ema)
        history.append(record)
        if epoch + 1 in keep_at:  # before the state, which says that the epoch is done
            _keep(ema, find_kept_weights(folder, epoch + 1), record)
        states = {"model": model.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint({**states, "history": history}, path)
        report("  ".join(f"{name} {value:.4g}" for name, value in record.items()))
    return ema, history


def _epoch(
    plan: TrainingPlan,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: DecodedImages,
    loss_of: Loss,
    epoch: int,
    device: torch.device,
) -> dict[str, float]:
    model.train()
    torch.manual_seed(plan.seed * 100_003 + epoch)  # dropout and drop path draw from the global generator
    phase, order, began, total = plan.phase(epoch), list_batches(plan, dataset, epoch), time.monotonic(), 0.0
    for number, index in enumerate(order):
        done = epoch * len(order) + number
        for group in optimizer.param_groups:
            group["lr"] = compute_learning_rate(done, plan.epochs * len(order), plan.rate, plan.warm)
        generator = Generator().manual_seed((plan.seed * 100_003 + epoch) * 100_003 + number)
        pixels = crop_batch(dataset, index, phase, (plan.seed, epoch, number * plan.batch))
        images = erase_rectangles(jitter_color(pixels, phase.color, generator), phase.erased, generator)
        labels = torch.from_numpy(dataset.labels[index]).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(model, TrainingStep(images.to(device), labels, index, phase, epoch, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        _average(ema, model, min(plan.ema, (1 + done) / (10 + done)))
        total += float(loss.detach())
    return {"pixels": phase.pixels, "loss": total / len(order), "seconds": time.monotonic() - began}
