"""A trial input tells networks apart whose difference cannot be seen, and finds those that are random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import encoscope
from encoscope import Encoder
from encoscope.encoder.cached import is_same_network, record_trial
from encoscope.encoder.trial import find_difference

SETTING = [0.0]  # what no inspection of code finds: it stands for a function in C, a file, the environment


class Net(nn.Module):
    """Reads a number through eval, which hides it from inspection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.head(self.hidden(x.mean((2, 3))))

    def hidden(self, x: Tensor) -> Tensor:
        return x * (1 + eval("__import__('sys').modules['hidden_setting'].value"))


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch):
    import sys
    import types

    module = types.ModuleType("hidden_setting")
    module.value = 0.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hidden_setting", module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0)
    for index in range(6):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(drawn.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "images" / f"{index}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("change", [0.02, 0.1, -0.5, 3.0])
def test_an_invisible_change_is_found_and_values_are_computed_anew(
    setting, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: float
) -> None:
    encoder = Encoder(Net(), size=32)
    before = encoder.digest
    first = np.array(encoscope.probe(encoder, str(folder), "logits", cache_dir=tmp_path).values)
    assert not caplog.records
    setting.value = change
    other = Encoder(Net(), size=32)
    assert other.digest == before  # nothing to be seen
    second = np.array(encoscope.probe(other, str(folder), "logits", cache_dir=tmp_path).values)
    truth = np.concatenate([other.logits(path).numpy() for path in sorted(folder.iterdir())])
    assert np.abs(second - truth).max() < 1e-5 < np.abs(first - second).max()
    [message] = [record.getMessage() for record in caplog.records]
    assert "features" in message and "anew" in message and "\n" not in message
    caplog.clear()
    encoscope.probe(other, str(folder), "logits", cache_dir=tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("error", [0.0, 1e-7, 1e-5, 5e-4])
def test_rounding_is_no_difference(setting, error: float) -> None:
    kept = json.loads(json.dumps(record_trial(Encoder(Net(), size=32), ["conv"])))
    setting.value = error
    assert is_same_network(Encoder(Net(), size=32), kept, ["conv"])


def test_a_layer_that_was_not_kept_is_a_difference(setting) -> None:
    encoder = Encoder(Net(), size=32)
    kept = record_trial(encoder)
    assert find_difference(kept, encoder.trial(["conv"])) in (None, "conv")
    assert find_difference({name: kept[name] for name in kept if name != "conv"}, encoder.trial(["conv"])) == "conv"
    for damaged in (None, {}, [], "x", {"features": 3}, {"features": {"shape": [8]}}):
        assert find_difference(damaged, encoder.trial()) == "features"


def no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 1.0


def inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x * 1.0


@pytest.mark.parametrize("cut", [no_grad, inference, Tensor.detach, lambda x: x.round(decimals=3).data])
def test_a_trial_knows_which_outputs_pass_a_gradient(cut: Callable[[Tensor], Tensor]) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 4, 4, 4)
            self.two = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(cut(self.one(x)).clone())

    outputs = Encoder(Cut(), size=16).trial(["one", "two"]).outputs
    assert not outputs["two"].gradient and not outputs["features"].gradient
    assert outputs["one"].gradient or cut is inference  # a forward pass that fails with gradients passes none


def test_a_network_passes_gradients_and_keeps_its_flags() -> None:
    net = Net.__new__(Net)
    nn.Module.__init__(net)
    net.conv, net.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 5)
    net.hidden = lambda x: x  # type: ignore[method-assign]
    net.conv.requires_grad_(False)
    net.train()
    encoder = Encoder(net, size=32)
    assert all(output.gradient for output in encoder.trial(["conv"]).outputs.values())
    assert net.training and not net.conv.weight.requires_grad and net.head.weight.requires_grad
    assert net.head.weight.grad is None


def with_dropout(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5)


def with_rare_dropout(x: Tensor) -> Tensor:
    return x * (torch.rand(len(x), 1) > 0.3)


def with_noise(x: Tensor) -> Tensor:
    return x + 0.01 * torch.randn_like(x)


def with_numpy(x: Tensor) -> Tensor:
    return x * float(np.random.rand())  # noqa: NPY002


def with_python(x: Tensor) -> Tensor:
    return x * (1 + random.random())


COUNT = [0]


def with_state(x: Tensor) -> Tensor:
    COUNT[0] += 1
    return x * COUNT[0]


class Shaken(Net):
    def __init__(self, shake: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shake = shake

    def hidden(self, x: Tensor) -> Tensor:
        return self.shake(x)


RANDOM = [with_dropout, with_rare_dropout, with_noise, with_numpy, with_python, with_state]


@pytest.mark.parametrize("shake", RANDOM)
def test_a_random_network_is_named_once_recorded_and_never_cached(
    shake: Callable[[Tensor], Tensor], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(Shaken(shake), size=32, source="py:shaken")
    assert encoder.layers
    state = torch.get_rng_state()
    assert encoder.trial().random
    assert torch.equal(torch.get_rng_state(), state)
    probes = [encoscope.probe(encoder, str(folder), "logits", cache_dir=tmp_path / "cache") for _ in range(2)]
    assert not np.array_equal(probes[0].values, probes[1].values)
    assert not (tmp_path / "cache").exists()
    segmentation = encoscope.segment(encoder, sorted(folder.iterdir())[0], n_clusters=2)
    [message] = [record.getMessage() for record in caplog.records]
    assert "py:shaken" in message and "nothing is cached" in message and "\n" not in message
    assert segmentation.to_dict()["model"]["warnings"] == [message]


@pytest.mark.parametrize(
    "hook",
    [
        lambda net: net.head.register_forward_hook(lambda _module, _args, output: output * 2),
        lambda net: net.conv.register_forward_pre_hook(lambda _module, args: (args[0].abs(),)),
        lambda net: net.head.register_forward_hook(lambda _module, _args, output: output.detach()),
    ],
)
def test_a_hook_that_changes_outputs_is_found_and_one_that_looks_is_not(hook: Callable[[Net], object], setting) -> None:
    net = Net()
    encoder = Encoder(net, size=32)
    before, kept = encoder.digest, record_trial(encoder, ["conv"])
    seen: list[int] = []
    net.head.register_forward_hook(lambda _module, _args, output: seen.append(len(output)))
    assert encoder.digest == before and is_same_network(encoder, kept, ["conv"]) and seen
    hook(net)
    assert not is_same_network(encoder, kept, ["conv"])


def test_a_setting_that_no_digest_knows_is_found_in_the_same_process() -> None:
    from timm.layers import ScaledStdConv2d  # of an installed library, and its scale is not in its description

    net = nn.Sequential(ScaledStdConv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = Encoder(net, size=32)
    before, kept = encoder.digest, record_trial(encoder, ["0"])
    assert is_same_network(encoder, kept, ["0"])
    net[0].scale *= 2
    assert encoder.digest == before and not is_same_network(encoder, kept, ["0"])


def fixed(x: Tensor) -> Tensor:
    return x * torch.rand(x.shape, generator=torch.Generator().manual_seed(3))


def drawn_but_not_used(x: Tensor) -> Tensor:
    torch.rand(3)
    return x


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(5)
    return x * torch.rand(x.shape)


@pytest.mark.parametrize("shake", [fixed, drawn_but_not_used, seeded, lambda x: F.dropout(x, 0.5, training=False)])
def test_a_network_that_only_looks_random_is_not_called_so(
    shake: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(Shaken(shake), size=32)
    assert not encoder.trial().random and encoder.warnings == () and not caplog.records
