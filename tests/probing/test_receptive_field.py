"""Receptive fields: where the cells of a map look equals the middle of the pixels that reach them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from encoscope import Encoder
from encoscope.probing.receptive_field import compute_receptive_field

SIDE = 64


class Padded(nn.Module):
    """A convolution that pads on one side more than on the other, as TensorFlow does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, 2)

    def forward(self, x):
        return self.convolution(F.pad(x, (0, 1, 0, 1)))


class Residual(nn.Module):
    """Two branches, the second of them squeezed, scaled and of another layout meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(4, 4, 3, 2, 1)
        self.shortcut = nn.AvgPool2d(2, ceil_mode=True)
        self.linear = nn.Linear(4, 4)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.linear(self.branch(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))) + y


class Upsampled(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest")


STACKS = {
    "same": [nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 5, 2, 2), nn.Conv2d(4, 4, 3, 2, 1)],
    "valid": [nn.Conv2d(4, 4, 7, 2), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3)],
    "dilated": [nn.Conv2d(4, 4, 3, 2, 2, dilation=2), nn.Conv2d(4, 4, 3, padding="same", dilation=3)],
    "even kernels": [nn.Conv2d(4, 4, 4, 4), nn.Conv2d(4, 4, 2, 2)],
    "uneven": [nn.Conv2d(4, 4, (3, 5), 2, (1, 2)), nn.AvgPool2d((2, 3), 2, (0, 1))],
    "padded on one side": [Padded(), Padded(), Padded()],
    "pooled": [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.MaxPool2d(2)],
    "branches": [Residual(), nn.BatchNorm2d(4), nn.ReLU(), Residual()],
    "resized": [nn.Conv2d(4, 4, 3, 4, 1), Upsampled(), nn.Conv2d(4, 4, 1)],
    "transposed": [nn.Conv2d(4, 4, 3, 4, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1)],
}


def make(parts: list[nn.Module]) -> Encoder:
    body = nn.Sequential(nn.Conv2d(3, 4, 1), *parts)
    for parameter in body.parameters():  # nothing cancels, so that every pixel that can reach a cell does
        nn.init.uniform_(parameter, 0.1, 0.2)
    return Encoder(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=SIDE, mean=0.0, std=1.0)


def reached(encoder: Encoder, row: int, column: int) -> list[float]:
    """The middle of the pixels with a gradient; the gate's share of all pixels is far below the rest.

    Every pixel of a window counts, so pooling is of the mean here: the largest alone has a gradient.
    """
    body = copy.deepcopy(encoder.module[0])
    for number, part in enumerate(body):
        if isinstance(part, nn.MaxPool2d):
            body[number] = nn.AvgPool2d(part.kernel_size, part.stride, part.padding)
    pixels = torch.ones(1, 3, SIDE, SIDE, requires_grad=True)
    body.eval()(pixels)[0, :, row, column].sum().backward()
    strength = pixels.grad.abs().sum((0, 1))
    found = (strength > 0.02 * strength.max()).nonzero().float()
    return ((found.amin(0) + found.amax(0) + 1) / 2).tolist()


@pytest.mark.parametrize("name", STACKS)
def test_cells_look_at_the_middle_of_the_pixels_that_reach_them(name) -> None:
    torch.manual_seed(0)
    encoder = make(STACKS[name])
    field = compute_receptive_field(encoder, "0")
    rows, columns = encoder.layer("0").grid
    corners = [(rows // 2, columns // 2), (rows // 2 + 1, columns // 2 - 1)]
    if name in ("resized", "transposed"):  # cells of one source differ by their phase: the mean of a pair does not
        for row, column in corners:
            pair = [reached(encoder, row // 2 * 2 + more, column // 2 * 2 + more) for more in (0, 1)]
            expected = [sum(values) / 2 for values in zip(*pair, strict=True)]
            assert field.center(row // 2 * 2 + 0.5, column // 2 * 2 + 0.5) == pytest.approx(expected, abs=0.6)
        return
    for row, column in corners:
        assert field.center(row, column) == pytest.approx(reached(encoder, row, column), abs=1e-6)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(8))

    def forward(self, x):
        return self.parts(x).mean((2, 3))


def test_what_is_not_understood_is_spread_evenly() -> None:
    encoder = Encoder(Shuffled(), size=SIDE, mean=0.0, std=1.0)
    field = compute_receptive_field(encoder, "parts")
    assert field.stride == (8, 8)
    assert field.offset == (4, 4)
    assert not any(module._forward_hooks for module in encoder.module.modules())


def test_a_transformers_tokens_look_at_their_patches() -> None:
    import timm

    network = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=3, num_classes=3)
    encoder = Encoder(network, size=64)
    assert compute_receptive_field(encoder, "blocks.1").center(0, 3) == (8, 56)
