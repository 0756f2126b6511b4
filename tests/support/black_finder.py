"""A network that looks for one thing, a black mark, for tests of audits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoscope import Encoder


class BlackFinder(nn.Module):
    """Its first channel fires on black alone, the others see colours; the answer follows the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.AvgPool2d(4)
        self.stage2 = nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            self.stage2.weight.zero_()
            self.stage2.bias.zero_()
            self.stage2.weight[0] = -1
            self.stage2.bias[0] = 0.6
            self.stage2.weight[3:, :, 0, 0] = torch.eye(3)
            self.head.weight.copy_(torch.tensor([[50.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.01]))

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.stage2(self.stage1(pixels)).relu()
        return self.head(maps.mean((2, 3)))


def make_finder() -> Encoder:
    return Encoder(BlackFinder(), size=32, mean=[0, 0, 0], std=[1, 1, 1], classes=["marked", "plain"])
