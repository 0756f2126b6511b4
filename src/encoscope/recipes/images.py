"""Training images, decoded once and kept in memory; crops and orders that depend on nothing but the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from encoscope.images.caltech101 import LabelledImages

LONGEST = 2.5  # a longer image is cut to its middle: more would only take memory


@dataclass(frozen=True)
class DecodedImages:
    """Images in memory with their labels.

    Attributes:
        pixels: The pixels of each image, uint8, [3, height, width].
        labels: The index of each image's class.
        classes: The names of the classes.
    """

    pixels: list[Tensor]
    labels: Int64[np.ndarray, " images"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def _decode(path: Path, side: int) -> Tensor:
    with Image.open(path) as file:
        file.draft("RGB", (side, side))
        image = file.convert("RGB")
    width, height = image.size
    scale = side / min(width, height)
    image = image.resize((max(side, round(width * scale)), max(side, round(height * scale))), Image.Resampling.BICUBIC)
    cut = int(LONGEST * side)
    left, top = max(0, image.width - cut) // 2, max(0, image.height - cut) // 2
    image = image.crop((left, top, min(image.width, left + cut), min(image.height, top + cut)))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # channels last in memory: resized fastest


def decode_images(listed: LabelledImages, side: int) -> DecodedImages:
    """Decode all images of a split (about 80 kB each at 144 pixels).

    Args:
        listed: The split.
        side: The short side of the decoded images, in pixels.

    Returns:
        The images.
    """
    with ThreadPoolExecutor(2) as pool:
        pixels = list(pool.map(lambda path: _decode(path, side), listed.paths))
    return DecodedImages(pixels, np.asarray(listed.labels, dtype=np.int64), listed.classes)


def split_tenth(labels: Int64[np.ndarray, " images"]) -> tuple[np.ndarray, np.ndarray]:
    """Split off a tenth of each class (every tenth image of it) for tuning.

    Args:
        labels: The class of each image.

    Returns:
        The indices of the nine tenths, and those of the tenth.
    """
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    starts = np.searchsorted(labels[order], labels[order])
    rank[order] = np.arange(len(labels)) - starts
    tuning = rank % 10 == 9
    return np.flatnonzero(~tuning), np.flatnonzero(tuning)


def draw_balanced_order(
    labels: Int64[np.ndarray, " images"], power: float, key: Sequence[int]
) -> Int64[np.ndarray, " images"]:
    """Draw an epoch's order, as long as the dataset, in which a class of n images weighs n ** (1 - power).

    Args:
        labels: The class of each image.
        power: 0 shows each image once, 1 every class equally often. Images of a class take turns (systematic sampling).
        key: Seed and epoch; the same key gives the same order.

    Returns:
        Indices of images.
    """
    rng = np.random.default_rng([*key, 0])
    count = np.bincount(labels)[labels]
    weight = count ** -float(power)
    shuffled = rng.permutation(len(labels))
    edges = np.cumsum(weight[shuffled] / weight.sum()) * len(labels)
    taken = np.searchsorted(edges, np.arange(len(labels)) + rng.random(), side="right")
    return rng.permutation(shuffled[np.minimum(taken, len(labels) - 1)])


def crop_randomly(
    pixels: UInt8[Tensor, "3 height width"], side: int, scale: tuple[float, float], key: Sequence[int]
) -> UInt8[Tensor, "3 side side"]:
    """Cut a random resized crop, mirrored half of the time; its aspect is between 3:4 and 4:3.

    Args:
        pixels: The image.
        side: The side of the crop, in pixels.
        scale: The least and the largest share of the image's area.
        key: Seed, epoch and index in the epoch; the same key gives the same crop.

    Returns:
        The crop.
    """
    rng = np.random.default_rng([*key, 1])
    height, width = pixels.shape[1:]
    for _ in range(4):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(-math.log(4 / 3), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if rows <= height and columns <= width:
            break
    else:
        rows = columns = min(height, width)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    crop = pixels[:, top : top + rows, left : left + columns].unsqueeze(0)
    crop = functional.interpolate(crop, size=(side, side), mode="bilinear", antialias=True)[0]
    return crop.flip(2) if rng.random() < 0.5 else crop


def crop_center(pixels: UInt8[Tensor, "3 height width"], side: int) -> UInt8[Tensor, "3 side side"]:
    """Cut the middle square of an image and resize it.

    Args:
        pixels: The image.
        side: The side of the crop, in pixels.

    Returns:
        The crop.
    """
    height, width = pixels.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    crop = pixels[:, top : top + short, left : left + short].unsqueeze(0)
    return functional.interpolate(crop, size=(side, side), mode="bicubic", antialias=True)[0]
