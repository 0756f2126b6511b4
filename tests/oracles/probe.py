"""One pass over a dataset, image by image and number by number."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def file_id(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pixels(path: Path, size: int, mean: tuple, std: tuple) -> torch.Tensor:
    """[1, 3, size, size]: the short side resized to ``size``, the centre cropped, each channel normalised."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    width, height = image.size
    new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    image = image.resize(new, Image.Resampling.BICUBIC)
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    array = np.asarray(image.crop((left, top, left + size, top + size))) / 255
    array = (array - np.array(mean)) / np.array(std)
    return torch.from_numpy(array.transpose(2, 0, 1)[None]).float()


def moments(rows: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column in exact arithmetic."""
    means, deviations = [], []
    for column in rows.T:
        exact = [Fraction(float(value)) for value in column]
        mean = sum(exact) / len(exact)
        variance = sum((value - mean) ** 2 for value in exact) / len(exact)
        means.append(float(mean))
        deviations.append(sqrt(variance))
    return means, deviations


def top(rows: np.ndarray, ids: list[str], channel: int, k: int) -> list[int]:
    """Row numbers of the k largest values of a column; equal values by id."""
    order = sorted(range(len(rows)), key=lambda row: (-float(rows[row, channel]), ids[row]))
    return order[:k]
