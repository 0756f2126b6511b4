"""A world of coloured squares: a network of mean colours, its untrained twin, a judge that sees colours."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from encoscope.encoder import Encoder
from encoscope.images.sets import LabelledImages

NAMES = ("red", "green", "blue", "okapi")  # the last one's name was not taught to the zoo's judge
COLORS = dict(zip(NAMES[:3], np.eye(3), strict=True)) | {"okapi": np.ones(3)}


def tiny(weights: float) -> Encoder:
    """A network whose features are the picture's mean color, and whose classes are the colours."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1))
    module.extend([nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)])
    with torch.no_grad():
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
        for layer in (module[0], module[3], module[7]):
            layer.weight += weights * torch.eye(*layer.weight.shape[:2]).reshape(
                *layer.weight.shape[:2], *[1] * (layer.weight.ndim - 2)
            )
    return Encoder(module, size=16, mean=(0.5,) * 3, std=(0.25,) * 3, classes=NAMES if weights else None)


class Colors:
    """A judge that sees mean colours."""

    source, width, digest = "colours", 3, "0"

    def embed_images(self, images):
        means = [np.asarray(Image.open(image).convert("RGB")).mean((0, 1)) for image in images]
        return torch.nn.functional.normalize(torch.tensor(np.array(means)).float() + 1e-3, dim=1)

    def embed_texts(self, texts):
        vectors = [next(color for name, color in COLORS.items() if name in text) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(np.array(vectors)).float(), dim=1)


def write_images(folder) -> None:
    """Six photos of each class to train, four to test, a folder each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name, color in COLORS.items():
            for number in range(count):
                noisy = np.clip(color * 0.8 + 0.1 + 0.1 * rng.standard_normal((16, 16, 3)), 0, 1)
                file = folder / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((noisy * 255).astype("uint8")).save(file)


def reader(folder):
    """What a dataset string of these photos stands for."""

    def read(root, split="train"):
        files = sorted((folder / split).rglob("*.png"))
        return LabelledImages(tuple(files), tuple(NAMES.index(file.parent.name) for file in files), NAMES)

    return read
