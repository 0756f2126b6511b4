"""What the two classifiers share: soft targets, the mixed loss, accuracy on centre crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from encoscope.images import Preprocess, make_batch, read_image
from encoscope.recipes.augment import mix_images, normalize
from encoscope.recipes.images import DecodedImages, crop_center
from encoscope.recipes.training import TrainingStep


def smooth_labels(labels: Int64[Tensor, " batch"], classes: int, smoothing: float) -> Float[Tensor, "batch classes"]:
    """One-hot rows with ``smoothing`` of the mass spread over all classes."""
    return functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix_batch(
    step: TrainingStep, classes: int, smoothing: float
) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch classes"]]:
    """The step's images and soft targets, mixed in the phase's share of the batches."""
    targets = smooth_labels(step.labels, classes, smoothing)
    if torch.rand((), generator=step.generator) < step.phase.mixed:
        return mix_images(step.images, targets, step.generator)
    return step.images, targets


def make_cross_entropy(classes: int, smoothing: float = 0.1) -> Callable[[nn.Module, TrainingStep], Float[Tensor, ""]]:
    """Cross entropy against soft targets, some batches mixed."""

    def loss(model: nn.Module, step: TrainingStep) -> Float[Tensor, ""]:
        images, targets = mix_batch(step, classes, smoothing)
        return functional.cross_entropy(model(images).float(), targets)

    return loss


@torch.inference_mode()
def predict_crops(
    forward: Callable[[Tensor], Tensor],
    photos: DecodedImages,
    index: Sequence[int] | np.ndarray,
    side: int,
    device: torch.device,
) -> Float[np.ndarray, "photos outputs"]:
    """Outputs on centre crops of ``side`` pixels, float32, 64 photos at a time."""
    rows = []
    for start in range(0, len(index), 64):
        pixels = torch.stack([crop_center(photos.pixels[i], side) for i in index[start : start + 64]])
        rows.append(forward(normalize(pixels).to(device)).float().cpu().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def predict_files(
    forward: Callable[[Tensor], Tensor], paths: Sequence[Path], preprocess: Preprocess, device: torch.device
) -> Float[np.ndarray, "photos outputs"]:
    """Outputs on photo files, read and preprocessed as the package does it for its users."""
    rows = []
    for start in range(0, len(paths), 64):
        batch = make_batch([read_image(path) for path in paths[start : start + 64]], preprocess).to(device)
        rows.append(forward(batch.pixels.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(rows)


def compute_accuracies(
    predicted: Int64[np.ndarray, " photos"], labels: Int64[np.ndarray, " photos"], classes: int
) -> tuple[float, float, Float[np.ndarray, " classes"]]:
    """Top-1 accuracy, its mean over the classes that occur, and one value per class (NaN where it does not)."""
    right = predicted == labels
    count = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    each = np.where(count > 0, hits / np.maximum(count, 1), np.nan)
    return float(right.mean()), float(np.nanmean(each)), each
