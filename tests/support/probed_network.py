"""A small classifier with preprocessing of its own, for tests of passes over images."""

from __future__ import annotations

import torch
from torch import nn

from encoscope import Encoder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def make_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    module = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return Encoder(module, size=32, mean=MEAN, std=STD, classes=["cat", "cup", "tree"])
