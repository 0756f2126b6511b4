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
from encoscope.encoder import Encoder, substitute_maps
from encoscope.errors import UsageError
from encoscope.relevance import compute_relevance


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
    "torchvision:densenet121": (torchvision("densenet121"), "features.norm5#relu"),
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

    def __init__(self, between: Callable[[Tensor], Tensor], norm: bool = True, early: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.relu = nn.ReLU()
        self.between = between
        self.fc = nn.Linear(16, 7)
        self.early = early  # the output is used before the functions, too

    def forward(self, pixels: Tensor) -> Any:
        x = self.norm(self.conv(self.relu(self.stem(pixels))))
        y = self.between(x)
        y = y + x if self.early else y
        return self.fc(y.mean((2, 3)))


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0) / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] / 2


def zero_below(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


READ_AFTER: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "function": (F.relu, "relu"),
    "in place": (lambda x: F.silu(x, inplace=True), "silu"),
    "of torch": (torch.relu_, "relu"),
    "two": (lambda x: F.leaky_relu(F.gelu(x), 0.2), "leaky_relu"),
    "norm": (lambda x: F.group_norm(x, 2), "group_norm"),
    "activation, norm": (lambda x: F.instance_norm(F.mish(x)), "instance_norm"),
    "clamp": (lambda x: x.clamp(min=0), "clamp"),
    "clamp in place": (lambda x: x.clamp_(0, 6), "clamp"),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "maximum"),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), "where"),
    "by hand": (lambda x: x * torch.sigmoid(x), "mul"),
    "hard swish by hand": (lambda x: x * F.relu6(x + 3) / 6, "div"),
    "mask": (lambda x: x * (x > 0), "mul"),
    "zeros written": (zero_below, "setitem"),
    "dropout, relu": (lambda x: F.relu(F.dropout(x, 0.5, training=False)), "relu"),
    "of its own": (lambda x: F.relu(Halved.apply(x) - 0.1), "relu"),  # pyright: ignore
    "gate of all cells": (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), "mul"),
}
READ_BEFORE: dict[str, Callable[[Tensor], Tensor]] = {
    "scale": lambda x: x * 2,
    "residual": lambda x: x + 0.1,
    "attention of cells": lambda x: (x.flatten(2).softmax(2) * x.flatten(2)).sum(2)[:, :, None, None],
    "pooled first": lambda x: F.relu(F.avg_pool2d(x, 2)),
}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", READ_AFTER)
def test_a_stage_is_read_after_a_function(kind: str, norm: bool) -> None:
    between, name = READ_AFTER[kind]
    encoder = make(lambda: Functional(between, norm))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layer = encoder.depths[-1]
    maps = encoder.activations(pixels, layer)[layer].maps
    with torch.no_grad():
        module: Any = encoder.module
        own = between(module.norm(module.conv(module.relu(module.stem(pixels)))))
        output = module(pixels)
    if kind == "hard swish by hand":
        assert layer == "norm#mul"  # scaled afterwards
        own = own * 6
    elif kind != "of its own":
        assert layer == f"norm#{name}"
    torch.testing.assert_close(maps, own)
    together = encoder.observe(pixels, [info.name for info in encoder.layers], logits=True)
    assert torch.equal(together.activations[layer].maps, maps)
    assert together.logits is not None and torch.equal(together.logits, output)
    assert encoder.layer("norm").followed_by == layer.partition("#")[2]
    assert encoder.layer("norm").role == "inner"


@pytest.mark.parametrize("kind", READ_BEFORE)
def test_a_stage_that_is_used_as_it_is_is_read_as_it_is(kind: str) -> None:
    encoder = make(lambda: Functional(READ_BEFORE[kind]))
    assert encoder.depths[-1] == "norm"
    assert not any(info.followed_by for info in encoder.layers if info.name != "stem")


@pytest.mark.parametrize("between", [F.relu, lambda x: x * torch.sigmoid(x), nn.ReLU()])
def test_a_stage_in_a_residual_sum_is_read_before_its_function(between: Callable[[Tensor], Tensor]) -> None:
    encoder = make(lambda: Functional(between, early=True))
    assert encoder.layer("norm").followed_by in ("", "add")  # the whole of x + relu(x), never relu(x) alone


class Returned(nn.Module):
    """Returns its map beside what it computes from it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(F.relu(self.stem(pixels)))
        return F.relu(x).mean((2, 3)), x


def test_a_map_that_the_network_returns_is_read_as_it_is() -> None:
    encoder = make(Returned)
    assert [info.name for info in encoder.layers] == ["stem", "stem#relu", "conv"]
    assert encoder.depths == ["stem#relu", "conv"]


class Mixed(nn.Module):
    """The norm after the function is a module; attention is torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 16, 3, 4, 1)
        self.norm = nn.BatchNorm2d(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.fc = nn.Linear(16, 7)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.norm(F.relu(self.conv(F.relu(self.stem(pixels))))).flatten(2).transpose(1, 2)
        return self.fc(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_a_module_after_a_function_is_the_reading_and_attention_computes_as_ever() -> None:
    encoder = make(Mixed)
    assert encoder.depths[-1] == "norm"
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = encoder.module(pixels)
    observation = encoder.observe(pixels, ["stem#relu", "conv#relu"], logits=True)
    assert observation.logits is not None and torch.equal(observation.logits, output)


class Plain(nn.Module):
    """A small CNN whose activations are functions, or the same as modules."""

    def __init__(self, functions: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.Conv2d(6, 8, 3, 2, 1),
            nn.Conv2d(8, 9, 3, 2, 1),
        )
        self.relu1, self.relu2, self.relu3 = (
            (F.relu, F.relu, F.relu) if functions else (nn.ReLU(), nn.ReLU(), nn.ReLU())
        )
        self.fc = nn.Linear(9, 7)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.relu1(self.conv1(pixels))
        x = self.relu3(self.conv3(self.relu2(self.conv2(x))))
        return self.fc(x.mean((2, 3)))


def test_functions_and_modules_are_the_same_to_all_who_read_layers() -> None:
    functions, modules = make(lambda: Plain(True)), make(lambda: Plain(False))
    assert functions.depths == [f"conv{index}#relu" for index in (1, 2, 3)]
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for method in ("lrp", "gradient-input", "guided-backprop"):
        left = compute_relevance(functions, pixels, "class:3", layers=["conv2#relu", "conv3#relu"], method=method)
        right = compute_relevance(modules, pixels, "class:3", layers=["relu2", "relu3"], method=method)
        for index in (2, 3):
            torch.testing.assert_close(left[f"conv{index}#relu"], right[f"relu{index}"])
            assert left[f"conv{index}#relu"].abs().max() > 0
    unit = compute_relevance(functions, pixels, "conv3#relu:4", layers=["conv2#relu"], method="lrp")
    torch.testing.assert_close(
        unit["conv2#relu"], compute_relevance(modules, pixels, "relu3:4", layers=["relu2"], method="lrp")["relu2"]
    )
    maps = torch.rand(2, 8, 16, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        substitute_maps(functions, pixels, "conv2#relu", maps), substitute_maps(modules, pixels, "relu2", maps)
    )
    assert functions.trial(["conv3#relu"]).outputs["conv3#relu"] == modules.trial(["relu3"]).outputs["relu3"]
    header, *rows = _format_table(functions.layers)
    assert header.endswith("read") and "before relu" in rows[0]


def test_maps_take_the_place_of_what_a_function_gives_in_place() -> None:
    encoder = make(lambda: Functional(lambda x: F.relu(x, inplace=True)))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(2))
    module: Any = encoder.module
    torch.testing.assert_close(substitute_maps(encoder, pixels, "norm#relu", maps), module.fc(maps.mean((2, 3))))


def test_the_command_line_states_where_tokens_stand() -> None:
    assert Common(grid="14x14", prefix=51).loading()["token_layout"] == ((14, 14), 51)
    assert Common(grid="7X14").loading()["token_layout"] == ((7, 14), 0)
    assert "token_layout" not in Common().loading()
    for flags in (Common(grid="14"), Common(grid="axb"), Common(prefix=3)):
        with pytest.raises(UsageError, match="--grid"):
            flags.loading()
