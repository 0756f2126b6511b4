"""A stage is read where the network reads it: what the head pools is the spatial mean of the last stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoscope.cli.flags import Common
from encoscope.cli.layers import _format_table
from encoscope.craft.estimator import _choose_layer
from encoscope.encoder import Encoder
from encoscope.errors import UsageError


def timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=7)

    return make


def torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, num_classes=7)

    return make


def block(channels: int, out: int) -> nn.Sequential:
    """A linear bottleneck: it ends in a norm, without an activation."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * out, 3, 2, 1), nn.BatchNorm2d(2 * out), nn.ReLU(), nn.Conv2d(2 * out, out, 1)
    )


class Headed(nn.Module):
    """Two stages, then a convolution whose norm and activation are modules of their own."""

    def __init__(self, *after: nn.Module, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.act = nn.ReLU() if shared else None
        self.blocks = nn.ModuleList([block(8, 12), block(12, 16)])
        self.conv_head = nn.Conv2d(16, 24, 1, bias=False)
        self.after = nn.ModuleList(after)
        self.fc = nn.Linear(24, 7)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        if self.act is not None:
            x = self.act(x)
        for each in self.blocks:
            x = each(x)
        x = self.conv_head(x)
        for each in self.after:
            x = each(x)
        if self.act is not None:
            x = self.act(x)
        return self.fc(x.mean((2, 3)))


def norm_and_activation() -> nn.Module:
    from timm.layers.norm_act import BatchNormAct2d

    return BatchNormAct2d(24)


HEADS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "norm, activation": (lambda: Headed(nn.BatchNorm2d(24), nn.ReLU6()), "after.1"),
    "in place": (lambda: Headed(nn.BatchNorm2d(24), nn.ReLU(inplace=True)), "after.1"),
    "one module": (lambda: Headed(norm_and_activation()), "after.0"),
    "dropout between": (lambda: Headed(nn.BatchNorm2d(24), nn.Identity(), nn.Dropout(0.3), nn.ReLU()), "after.3"),
    "activation, norm": (lambda: Headed(nn.ReLU(), nn.BatchNorm2d(24)), "after.1"),
    "group norm": (lambda: Headed(nn.GroupNorm(4, 24), nn.SiLU()), "after.1"),
    "shared activation": (lambda: Headed(nn.BatchNorm2d(24), shared=True), "act"),
}
REAL = {
    "timm:efficientnet_lite0": (timm("efficientnet_lite0"), "bn2"),
    "timm:mobilenetv2_050": (timm("mobilenetv2_050"), "bn2"),
    "timm:resnetv2_18": (timm("resnetv2_18"), "norm"),
    "timm:densenet121": (timm("densenet121"), "features.norm5"),
    "timm:resnet10t": (timm("resnet10t"), "layer4"),
    "torchvision:mobilenet_v2": (torchvision("mobilenet_v2"), "features.18"),
    "torchvision:mnasnet0_5": (torchvision("mnasnet0_5"), "layers.16"),
    "torchvision:resnet18": (torchvision("resnet18"), "layer4"),
}


def make(build: Callable[[], nn.Module]) -> Encoder:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module = build()
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):  # a trained one's, so that norm and activation change something
                nn.init.uniform_(child.bias, -0.5, 0.5)
        return Encoder(module.eval(), size=64)


@pytest.mark.parametrize("name", [*HEADS, *REAL])
def test_the_last_stage_is_what_the_head_pools(name: str) -> None:
    build, layer = (HEADS | REAL)[name]
    encoder = make(build)
    assert encoder.depths[-1] == layer
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = encoder.activations(pixels, layer)[layer].maps
    torch.testing.assert_close(maps.mean((2, 3)), encoder.features(pixels), rtol=1e-4, atol=1e-5)


class Open(nn.Module):
    """Ends in a stage that may be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.stage1 = nn.Sequential(block(8, 12), nn.ReLU())
        self.stage2 = block(12, 16)
        self.fc = nn.Linear(16, 7)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.stage2(self.stage1(self.stem(pixels))).mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (Open, "stage1"),
        (timm("efficientnet_lite0"), "bn2"),
        (timm("resnet10t"), "layer4"),
        (HEADS["in place"][0], "after.1"),
    ],
)
def test_concepts_take_the_last_stage_without_negative_values(build: Callable[[], Any], layer: str) -> None:
    assert _choose_layer(make(build)) == layer


class Functional(nn.Module):
    """Its norms and activations are functions, or modules."""

    def __init__(self, between: Callable[[Tensor], Tensor], norm: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.relu = nn.ReLU()
        self.between = between
        self.fc = nn.Linear(16, 7)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.norm(self.conv(self.relu(self.stem(pixels))))
        return self.fc(self.between(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "layer", "function"),
    [
        (torchvision("densenet121"), "features.norm5", "relu"),
        (lambda: Functional(F.relu, norm=True), "norm", "relu"),
        (lambda: Functional(lambda x: F.silu(x, inplace=True), norm=False), "norm", "silu"),
        (lambda: Functional(torch.relu_, norm=True), "norm", "relu"),
        (lambda: Functional(lambda x: F.leaky_relu(x.relu(), 0.2), norm=False), "norm", "relu"),
        (lambda: Functional(lambda x: F.group_norm(x, 2), norm=False), "norm", "group_norm"),
        (lambda: Functional(nn.ReLU(), norm=True), "between", ""),  # a module: read after it
        (lambda: Functional(lambda x: x * 2, norm=True), "norm", ""),
        (timm("densenet121"), "features.norm5", ""),
        (timm("resnetv2_18"), "norm", ""),
        (timm("vit_tiny_patch16_224"), "blocks.11", ""),
    ],
)
def test_a_function_after_a_stage_is_named(build: Callable[[], nn.Module], layer: str, function: str) -> None:
    encoder = make(build) if layer != "blocks.11" else Encoder(build(), size=224)
    assert (encoder.depths[-1], encoder.layer(encoder.depths[-1]).followed_by) == (layer, function)
    assert {info.followed_by for info in encoder.layers if info.role != "inner" and info.name != layer} <= {""}
    header, *rows = _format_table([info for info in encoder.layers if info.role != "inner"])
    assert (f"before {function}" in rows[-1], header.endswith("read")) == (bool(function), bool(function))


def test_the_command_line_states_where_tokens_stand() -> None:
    assert Common(grid="14x14", prefix=51).loading()["token_layout"] == ((14, 14), 51)
    assert Common(grid="7X14").loading()["token_layout"] == ((7, 14), 0)
    assert "token_layout" not in Common().loading()
    for flags in (Common(grid="14"), Common(grid="axb"), Common(prefix=3)):
        with pytest.raises(UsageError, match="--grid"):
            flags.loading()
