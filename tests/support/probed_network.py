"""A small classifier with preprocessing of its own, for tests of passes over images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from encoscope import Encoder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def make_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    module = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return Encoder(module, size=32, mean=MEAN, std=STD, classes=["cat", "cup", "tree"])


def write_images(root: Path, count: int) -> list[Path]:
    """Images of smooth noise, wide, high and square."""
    generator = np.random.default_rng(0)
    for number in range(count):
        width, height = 40 + 11 * (number % 3), 70 - 9 * (number % 4)
        image = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        image.resize((width, height), Image.Resampling.BICUBIC).save(root / f"{number}.png")
    return sorted(root.iterdir())
