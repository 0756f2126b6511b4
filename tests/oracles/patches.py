"""The top patches of a channel: every patch of every image through the network alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from oracles.probe import file_id


def whole(path: Path, side: int, mean: tuple, std: tuple) -> torch.Tensor:
    """[1, 3, h, w]: the short side resized to ``side``, nothing cropped, normalised."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    width, height = image.size
    new = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    array = np.asarray(image.resize(new, Image.Resampling.BICUBIC)) / 255
    return torch.from_numpy(((array - np.array(mean)) / np.array(std)).transpose(2, 0, 1)[None]).float()


def patches(image: torch.Tensor, patch: int, stride: int) -> list[tuple[int, int, torch.Tensor]]:
    """(top, left, pixels) of each, row by row."""
    found = []
    top = 0
    while top + patch <= image.shape[2]:
        left = 0
        while left + patch <= image.shape[3]:
            found.append((top, left, image[:, :, top : top + patch, left : left + patch]))
            left += stride
        top += stride
    return found


def value(network: nn.Module, layer: str, channel: int, pixels: torch.Tensor) -> float:
    """The spatial mean of a channel of a layer's output."""
    kept: list[torch.Tensor] = []
    handle = dict(network.named_modules())[layer].register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        network.eval()(pixels)
    handle.remove()
    return float(kept[0][0, channel].double().mean())


def top(network, layer, channel, files, side, patch, stride, count, mean, std):
    """(id, top, left, score) of the best patch of each image, the best first, equal scores by id."""
    best = {}
    for file in files:
        scored = []
        for y, x, pixels in patches(whole(file, side, mean, std), patch, stride):
            input_sized = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
            scored.append((value(network, layer, channel, input_sized), y, x))
        score, y, x = max(scored, key=lambda item: item[0])
        best[file_id(file)] = (y, x, score)
    order = sorted(best, key=lambda identity: (-best[identity][2], identity))
    return [(identity, *best[identity]) for identity in order[:count]]
