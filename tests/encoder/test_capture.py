"""What is kept of a layer is a copy, and the network computes what it computes without being observed."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoscope.encoder import Encoder


@dataclass
class Named:
    y: Tensor
    other: Any = None


@dataclass(frozen=True)
class Frozen:
    nothing: None
    inner: Any


Pair = namedtuple("Pair", ["y", "scale"])

WRAPPERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tensor": (lambda y: y, lambda out: out),
    "pair": (lambda y: (y, None), lambda out: out[0]),
    "list": (lambda y: [y], lambda out: out[0]),
    "dict": (lambda y: {"maps": y}, lambda out: out["maps"]),
    "named tuple": (lambda y: Pair(y, 2.0), lambda out: out.y),
    "dataclass": (lambda y: Named(y), lambda out: out.y),
    "frozen, nested": (lambda y: Frozen(None, [{"y": (y,)}]), lambda out: out.inner[0]["y"][0]),
    "after whole numbers": (lambda y: (torch.arange(3), y), lambda out: out[1]),
    "view": (lambda y: (y[:, :4], y[:, 4:]), lambda out: torch.cat([out[0], out[1]], 1)),
}
IN_PLACE: dict[str, Callable[[Tensor], Any]] = {
    "relu": lambda y: y.relu_(),
    "add": lambda y: y.add_(1.5),
    "item": lambda y: y.__setitem__((slice(None), 0), 3.0),
    "relu of a view": lambda y: y[:, 2:].relu_(),
    "zero": lambda y: y.zero_().add_(torch.arange(y.shape[-1])),
}


class Wrapping(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any], stride: int = 1, width: int = 6) -> None:
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(width, 6, 3, stride, 1), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.conv(x))


class InPlaceAfterwards(nn.Module):
    """Two layers whose outputs are changed in place by the network, in whatever they are wrapped."""

    def __init__(self, wrapper: str, change: str) -> None:
        super().__init__()
        self.wrap, self.unwrap = WRAPPERS[wrapper]
        self.change = IN_PLACE[change]
        self.first = Wrapping(self.wrap, 2, 3)
        self.second = Wrapping(self.wrap)
        self.fc = nn.Linear(6, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            out = layer(pixels)
            pixels = self.unwrap(out)
            self.change(pixels)
        return self.fc(pixels.mean((2, 3)))


def make(build: Callable[[], nn.Module]) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(build().eval(), size=16)


def draw(count: int = 3, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def assert_unchanged_by_observing(encoder: Encoder, pixels: Tensor) -> None:
    """Logits and features bit for bit with and without all layers; each layer alone as together with all others."""
    with torch.no_grad():
        own = encoder.module(pixels.clone())
    names = [info.name for info in encoder.layers]
    assert names
    together = encoder.observe(pixels, names, features=True, logits=True)
    assert torch.equal(together.logits, own)
    assert torch.equal(together.features, encoder.features(pixels))
    for name in names:
        alone = encoder.activations(pixels, name)[name].maps
        assert torch.equal(alone, together.activations[name].maps), name
        with_logits = encoder.observe(pixels, name, logits=True)
        assert torch.equal(with_logits.activations[name].maps, alone), name
        assert torch.equal(with_logits.logits, own), name


@pytest.mark.parametrize("change", list(IN_PLACE))
@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_what_is_kept_is_the_layers_output_before_later_changes_in_place(wrapper: str, change: str) -> None:
    encoder, pixels = make(lambda: InPlaceAfterwards(wrapper, change)), draw()
    assert_unchanged_by_observing(encoder, pixels)
    with torch.no_grad():
        expected = encoder.module.first.conv(pixels)
    if wrapper == "view":
        maps = encoder.activations(pixels, ["first#0", "first#1"])
        found = torch.cat([maps["first#0"].maps, maps["first#1"].maps], 1)
    else:
        found = encoder.activations(pixels, "first")["first"].maps
    assert torch.equal(found, expected)


class Aliases(nn.Module):
    """Modules that return their input itself, or a view of it, before it is changed in place."""

    def __init__(self, alias: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.shortcut = alias()
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv(pixels)
        kept = self.shortcut(x)
        return self.fc((self.relu(x) + 2 * self.shortcut(kept)).mean((2, 3)))


class Part(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :].view_as(x)


class Holder(nn.Module):
    """Keeps its output for later, as modules with a state do."""

    def forward(self, x: Tensor) -> Tensor:
        self.latest = x
        return self.latest


ALIASES = {
    "identity": nn.Identity,
    "empty sequential": nn.Sequential,
    "sequential of identities": lambda: nn.Sequential(nn.Identity(), nn.Dropout(0.5)),
    "view": Part,
    "holder": Holder,
    "flatten of nothing": lambda: nn.Flatten(1, 1),
}


@pytest.mark.parametrize("alias", list(ALIASES))
def test_modules_that_return_their_input_still_do_when_observed(alias: str) -> None:
    encoder, pixels = make(lambda: Aliases(ALIASES[alias])), draw()
    assert_unchanged_by_observing(encoder, pixels)
    with torch.no_grad():
        conv = encoder.module.conv(pixels)
    kept = encoder.activations(pixels, ["conv", "shortcut"])
    assert torch.equal(kept["conv"].maps, conv)
    assert torch.equal(kept["shortcut"].maps, conv.relu())  # its last call comes after the ReLU in place


def test_a_network_that_changes_its_input_in_place_leaves_the_users_pixels() -> None:
    class Normalizing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2, 2)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.conv(pixels.sub_(0.5).mul_(4))

    encoder, pixels = make(Normalizing), draw()
    before = pixels.clone()
    first = encoder.activations(pixels, "conv")["conv"].maps
    assert torch.equal(pixels, before)
    assert torch.equal(first, encoder.activations(pixels, "conv")["conv"].maps)
    leaf = before.clone().requires_grad_()
    seen = encoder.observe(leaf, "conv", gradients=True).activations["conv"].maps
    (gradient,) = torch.autograd.grad(seen.sum(), leaf)
    weights = encoder.module.conv.weight.detach().sum(0) * 4
    torch.testing.assert_close(gradient, weights.repeat(3, 1, 8, 8).reshape(gradient.shape))


def test_results_are_copies_that_the_user_may_change() -> None:
    encoder, pixels = make(lambda: nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 2, 2))), draw()
    before = pixels.clone()
    encoder.activations(pixels, "0")["0"].maps.zero_()
    assert torch.equal(pixels, before)


class Shared(nn.Module):
    """One module called twice, and a head that is called with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.mix = nn.Conv2d(8, 8, 3, 1, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(pixels)
        x += self.mix(x)
        x = self.mix(x).relu_()
        return self.fc(input=x.mean((2, 3)))


def test_a_module_called_twice_gives_its_last_output_whatever_else_is_asked_for() -> None:
    encoder, pixels = make(Shared), draw()
    assert_unchanged_by_observing(encoder, pixels)
    with torch.no_grad():
        x = encoder.module.stem(pixels)
        expected = encoder.module.mix(x + encoder.module.mix(x))
    assert torch.equal(encoder.activations(pixels, "mix")["mix"].maps, expected)
    torch.testing.assert_close(encoder.features(pixels), expected.relu().mean((2, 3)))


def test_torchs_own_transformer_layers_give_the_same_bits_observed_or_not() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 4, 4)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.blocks = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
            self.fc = nn.Linear(16, 4)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.fc(self.blocks(self.patch(pixels).flatten(2).transpose(1, 2)).mean(1))

    encoder, pixels = make(Tokens), draw()
    names = [info.name for info in encoder.layers]
    assert "blocks.layers.2" in names
    logits = encoder.logits(pixels)
    together = encoder.observe(pixels, names, logits=True)
    assert torch.equal(together.logits, logits)
    torch.testing.assert_close(logits, encoder.module(pixels).detach())
    for name in names:
        seen = encoder.observe(pixels, name, logits=True)
        assert torch.equal(seen.logits, logits), name
        assert torch.equal(seen.activations[name].maps, together.activations[name].maps), name


class TwoMaps(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], unwrap: Callable[[Any], list[Tensor]]) -> None:
        super().__init__()
        self.fine, self.coarse, self.wrap = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(3, 6, 4, 4), wrap

    def forward(self, pixels: Tensor) -> Any:
        return self.wrap(self.fine(pixels), self.coarse(pixels))


class Scales(nn.Module):
    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], unwrap: Callable[[Any], list[Tensor]]) -> None:
        super().__init__()
        self.scales, self.unwrap = TwoMaps(wrap, unwrap), unwrap
        self.fc = nn.Linear(10, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.unwrap(self.scales(pixels))
        return self.fc(torch.cat([each.relu_().mean((2, 3)) for each in maps], 1))


SCALES = {
    "tuple": (lambda a, b: (a, b), list),
    "dict": (lambda a, b: {"res2": a, "res3": b}, lambda out: list(out.values())),
    "read-only mapping": (lambda a, b: MappingProxyType({"a": a, "b": b}), lambda out: list(out.values())),
    "dataclass": (lambda a, b: Named(a, b), lambda out: [out.y, out.other]),
    "nested": (lambda a, b: [(a,), {"b": [b]}], lambda out: [out[0][0], out[1]["b"][0]]),
}


@pytest.mark.parametrize("kind", list(SCALES))
def test_each_map_of_a_module_is_a_layer(kind: str) -> None:
    encoder, pixels = make(lambda: Scales(*SCALES[kind])), draw()
    # the module's first output is the convolution's own, and yet it is listed with the others
    names = {info.name: (info.channels, info.grid) for info in encoder.layers if info.name.startswith("scales")}
    assert names["scales.fine"] == (4, (8, 8)) and names["scales.coarse"] == (6, (4, 4))
    assert_unchanged_by_observing(encoder, pixels)
