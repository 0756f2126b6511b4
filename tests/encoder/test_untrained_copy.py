"""Untrained copies of encoders made from modules: every weight drawn anew, from the seed, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoscope.encoder import Encoder, load, untrained_copy
from encoscope.errors import UsageError


@pytest.fixture(autouse=True)
def keep_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def tokens(self, pixels: Tensor) -> Tensor:
        tokens = self.norm(self.conv(pixels)).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.tokens(pixels).mean(1))


def trained() -> Net:
    """Weights and statistics that no initialization gives."""
    net = Net()
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(5)
    return net.eval()


def test_every_weight_is_drawn_anew_from_the_seed() -> None:
    net = trained()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    encoder = Encoder(net, size=16, mean=(0.1, 0.2, 0.3), classes=list("abcd"), source="mine")
    state = torch.get_rng_state()
    copies = [untrained_copy(encoder, random_state=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    first, again, other = (copy.module.state_dict() for copy in copies)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])
    assert all(value.abs().max() < 2 for value in first.values())  # nothing of what was trained is left
    assert torch.equal(first["norm.running_mean"], torch.zeros(8)) and torch.equal(first["norm.weight"], torch.ones(8))
    assert first["conv.weight"].abs().max() <= (3 * 9) ** -0.5  # Kaiming's bound for this layer
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert copies[0].preprocess == encoder.preprocess and copies[0].classes == encoder.classes
    assert copies[0].source == "mine@untrained" and copies[0].digest == copies[1].digest != encoder.digest


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))


class Outer(nn.Module):
    """Its own initialization has the last word on what it contains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.conv.weight, 0.25)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv(pixels)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.ones(3))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (Own(), r"draws scale anew .Own has none."),
        (nn.Sequential(nn.Conv2d(3, 3, 1), Own()), r"draws 1\.scale anew .Own has none."),
        (nn.Sequential(nn.Conv2d(3, 3, 1), Frozen()), r"draws 1\.running_mean anew .Frozen has none."),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), "draws .*parametrizations.* anew"),
    ],
)
def test_a_weight_that_nothing_draws_anew_is_refused_by_name(module: nn.Module, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        untrained_copy(Encoder(module, size=8, source="mine"))
    assert str(caught.value).startswith("no untrained control for mine: ") and "untrained=" in str(caught.value)


def test_the_outer_modules_initialization_has_the_last_word() -> None:
    encoder = Encoder(Outer(), size=8)
    assert torch.equal(untrained_copy(encoder).module.state_dict()["conv.weight"], torch.full((4, 3, 3, 3), 0.25))


def test_a_function_gives_the_untrained_network() -> None:
    encoder = Encoder(Own(), size=16, source="mine", untrained=Net, std=(0.5, 0.5, 0.5))
    copy = untrained_copy(encoder, random_state=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = Net().state_dict()
    assert all(torch.equal(copy.module.state_dict()[name], value) for name, value in expected.items())
    assert copy.preprocess == encoder.preprocess and copy.source == "mine@untrained"
    whole = Encoder(Own(), size=16, untrained=lambda: Encoder(Net(), size=24))
    assert untrained_copy(whole).preprocess.size == (24, 24)
    for make, match in ((lambda: 3, "returned int"), (lambda: 1 / 0, "failed: ZeroDivisionError")):
        with pytest.raises(UsageError, match=match):
            untrained_copy(Encoder(Net(), size=16, untrained=make))


def own_encoder() -> Encoder:
    return Encoder(Own(), size=16, untrained=Net)


def test_load_takes_the_function_too() -> None:
    encoder = load(f"py:{__name__}:Own", untrained=Net, device="cpu")
    assert isinstance(encoder.module, Own) and isinstance(untrained_copy(encoder).module, Net)
    assert isinstance(load(f"py:{__name__}:own_encoder@untrained", device="cpu").module, Net)
    with pytest.raises(UsageError, match=r"py:.*Own has no untrained form: no reset_parameters draws scale"):
        load(f"py:{__name__}:Own@untrained")


def test_a_function_that_calls_the_network_goes_to_the_copy() -> None:
    net = trained()
    pixels = torch.randn(2, 3, 16, 16)
    copy = untrained_copy(Encoder(net, size=16, forward=net.tokens))
    with torch.no_grad():
        module: Any = copy.module
        torch.testing.assert_close(copy.observe(pixels, features=True).features, module.tokens(pixels)[:, 0])
    with pytest.raises(UsageError, match="called by a function of its own"):
        untrained_copy(Encoder(net, size=16, forward=lambda x: net(x)))


def test_a_network_without_weights_has_no_control() -> None:
    with pytest.raises(UsageError, match="no untrained control for pool: the network has no weights"):
        untrained_copy(Encoder(nn.AvgPool2d(2), size=8, source="pool"))
