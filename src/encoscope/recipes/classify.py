"""What the two classifiers share: soft targets, the mixed loss, accuracy on center crops."""

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
    """Turn labels into smoothed targets.

    Args:
        labels: The index of each image's class.
        classes: The number of classes.
        smoothing: The share of the mass that is spread over all classes.

    Returns:
        A row for each image that sums to 1.
    """
    return functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix_batch(
    step: TrainingStep, classes: int, smoothing: float
) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch classes"]]:
    """Mix the images of a step with each other, in the share of batches that the phase sets.

    Args:
        step: The step.
        classes: The number of classes.
        smoothing: The smoothing of the targets.

    Returns:
        The images and their soft targets.
    """
    targets = smooth_labels(step.labels, classes, smoothing)
    if torch.rand((), generator=step.generator) < step.phase.mixed:
        return mix_images(step.images, targets, step.generator)
    return step.images, targets


def make_cross_entropy(classes: int, smoothing: float = 0.1) -> Callable[[nn.Module, TrainingStep], Float[Tensor, ""]]:
    """Make the loss of a classifier: cross entropy with soft targets, with some batches mixed.

    Args:
        classes: The number of classes.
        smoothing: The smoothing of the targets.

    Returns:
        The loss of a model on a step.
    """

    def loss(model: nn.Module, step: TrainingStep) -> Float[Tensor, ""]:
        images, targets = mix_batch(step, classes, smoothing)
        return functional.cross_entropy(model(images).float(), targets)

    return loss


@torch.inference_mode()
def predict_crops(
    forward: Callable[[Tensor], Tensor],
    dataset: DecodedImages,
    index: Sequence[int] | np.ndarray,
    side: int,
    device: torch.device,
) -> Float[np.ndarray, "images outputs"]:
    """Compute outputs on center crops of decoded images, 64 images at a time.

    Args:
        forward: The network, from normalized images to outputs.
        dataset: The decoded images.
        index: The indices of the images to take.
        side: The side of the crops, in pixels.
        device: Where the network is.

    Returns:
        The outputs, float32.
    """
    rows = []
    for start in range(0, len(index), 64):
        pixels = torch.stack([crop_center(dataset.pixels[i], side) for i in index[start : start + 64]])
        rows.append(forward(normalize(pixels).to(device)).float().cpu().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def predict_files(
    forward: Callable[[Tensor], Tensor], paths: Sequence[Path], preprocess: Preprocess, device: torch.device
) -> Float[np.ndarray, "images outputs"]:
    """Compute outputs on image files that are read and prepared as the package does it for its users.

    Args:
        forward: The network, from normalized images to outputs.
        paths: The files.
        preprocess: The network's preprocessing.
        device: Where the network is.

    Returns:
        The outputs, float32.
    """
    rows = []
    for start in range(0, len(paths), 64):
        batch = make_batch([read_image(path) for path in paths[start : start + 64]], preprocess).to(device)
        rows.append(forward(batch.pixels.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(rows)


def compute_accuracies(
    predicted: Int64[np.ndarray, " images"], labels: Int64[np.ndarray, " images"], classes: int
) -> tuple[float, float, Float[np.ndarray, " classes"]]:
    """Compute top-1 accuracy, overall and per class.

    Args:
        predicted: The predicted class of each image.
        labels: The true class of each image.
        classes: The number of classes.

    Returns:
        The accuracy, its mean over the classes that occur, and the accuracy of each class (NaN if it does not occur).
    """
    right = predicted == labels
    count = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    each = np.where(count > 0, hits / np.maximum(count, 1), np.nan)
    return float(right.mean()), float(np.nanmean(each)), each
