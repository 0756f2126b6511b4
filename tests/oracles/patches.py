"""The top patches of a channel: every patch of every image through the network alone."""

from __future__ import annotations

import math
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


def maps(network: nn.Module, layer: str, pixels: torch.Tensor) -> np.ndarray:
    """[channels, rows, columns]: a layer's output for one image."""
    kept: list[torch.Tensor] = []
    handle = dict(network.named_modules())[layer].register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        network.eval()(pixels)
    handle.remove()
    return kept[0][0].double().numpy()


def best_window(grid: np.ndarray, stride: float, offset: float, patch: int, height: int, width: int):
    """(value, top, left): the window of as many cells as lie in a patch with the largest mean; the patch around it."""
    cells = [max(1, min(length, round(patch / stride))) for length in grid.shape]
    best = None
    for row in range(grid.shape[0] - cells[0] + 1):
        for column in range(grid.shape[1] - cells[1] + 1):
            mean = grid[row : row + cells[0], column : column + cells[1]].mean()
            if best is None or mean > best[0] + 1e-9:
                best = (mean, row, column)
    mean, row, column = best
    corner = []
    for first, number, length in ((row, cells[0], height), (column, cells[1], width)):
        middle = offset + stride * (first + (number - 1) / 2)
        corner.append(min(max(round(middle - patch / 2), 0), length - patch))
    return mean, *corner


def whole_padded(path: Path, side: int, mean: tuple, std: tuple, multiple: int) -> torch.Tensor:
    """[1, 3, h, w]: as ``whole``, padded with zeros at the bottom and the right to multiples, as a network takes it."""
    image = whole(path, side, mean, std)
    return F.pad(image, (0, -image.shape[3] % multiple, 0, -image.shape[2] % multiple))


def top_by_maps(network, layer, channel, files, side, patch, stride, offset, count, candidates, mean, std):
    """(id, top, left, score): one patch in each of the images of largest window, those scored alone, the best kept.

    ``stride`` and ``offset`` say where the cells of the layer look; sides are padded to multiples of 4.
    """
    windows = []
    for identity, file in {file_id(file): file for file in files}.items():
        image = whole(file, side, mean, std)
        height, width = image.shape[2:]
        grid = maps(network, layer, whole_padded(file, side, mean, std, 4))[channel]
        rows, columns = (math.ceil(length / stride - 0.5) for length in (height, width))  # whose middle is no padding
        windows.append((identity, image, *best_window(grid[:rows, :columns], stride, offset, patch, height, width)))
    windows.sort(key=lambda item: (-item[2], item[0]))
    scored = []
    for identity, image, _, y, x in windows[:candidates]:
        pixels = image[:, :, y : y + patch, x : x + patch]
        resized = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        scored.append((identity, y, x, value(network, layer, channel, resized)))
    return sorted(scored, key=lambda item: (-item[3], item[0]))[:count]
