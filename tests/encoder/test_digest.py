"""The digest of a network tells apart what computes differently, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from encoscope import Encoder

BASE = """
import argparse
import torch
from functools import partial
from torch import nn
from torch.nn import functional as F
import torch.nn.functional as functional
LIMIT = 6.0

def squeeze(x):
    return x.mean((2, 3))

def outer(x):
    return squeeze(x)

class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()
    @staticmethod
    def backward(ctx, g):
        return g

class Magic:
    def __getattr__(self, name):
        return self

class Power:
    def __init__(self, exponent):
        self.exponent = exponent
    def __mul__(self, x):
        return x * self.exponent

class Settings:
    def __init__(self):
        self.power = 2
        self.folder = "/somewhere"

class Net(nn.Module):
    FACTOR = 1.5
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.act = nn.GELU()
        self.head = nn.Linear(8, 5)
        self.double = False
        self.config = Settings()
        self.options = {"power": 1}
        self.args = argparse.Namespace(slope=0.5, out="results")
        self.magic = Magic()
        self.gain = Power(1.0)
        self.gate = lambda x: x * 1.0
        self.cut = partial(torch.clamp, max=4.0)
        self.table = torch.linspace(0, 1, 8)
        self.register_buffer("shift", torch.ones(8), persistent=False)

    @property
    def scale(self):
        return 3.0

    def pool(self, x):
        return outer(x)

    def forward(self, x):
        "Says what it does."
        x = self.gate(self.act(self.conv(x))) * self.args.slope
        self.magic.anything
        x = self.gain * x
        if self.double:
            x = x * self.FACTOR
        x = x.clamp(max=LIMIT) ** self.config.power * self.options["power"]
        x = Straight.apply(self.cut(x)) * self.scale
        x = F.hardtanh(self.pool(x) + self.table + self.shift, -9, 9)
        return self.head(x)
"""

# (what is replaced, by what): each changes what the network computes, or whether it passes a gradient
CHANGES = {
    "a function two calls away": ("return x.mean((2, 3))", "return x.amax((2, 3))"),
    "another helper": ("return squeeze(x)", "return squeeze(x) * 2"),
    "a global": ("LIMIT = 6.0", "LIMIT = 5.0"),
    "no_grad in forward": ("return self.head(x)", "with torch.no_grad():\n            return self.head(x)"),
    "no_grad around forward": (
        '    def forward(self, x):\n        "Says',
        '    @torch.no_grad()\n    def forward(self, x):\n        "Says',
    ),
    "inference mode around a method": ("    def pool(self, x):", "    @torch.inference_mode()\n    def pool(self, x):"),
    "an activation module": ("nn.GELU()", "nn.SiLU()"),
    "a module's setting": ("nn.GELU()", "nn.GELU(approximate='tanh')"),
    "a stride": ("stride=4)", "stride=4, padding_mode='reflect', padding=1)"),
    "a flag": ("self.double = False", "self.double = True"),
    "a class attribute": ("FACTOR = 1.5", "FACTOR = 1.25"),
    "a settings object": ("self.power = 2", "self.power = 3"),
    "a namespace": ("slope=0.5", "slope=0.25"),
    "an operator's number": ("Power(1.0)", "Power(2.0)"),
    "an operator": ("return x * self.exponent", "return x + self.exponent"),
    "a dictionary": ('"power": 1', '"power": 2'),
    "a lambda": ("x * 1.0", "x * 1.1"),
    "a partial's argument": ("max=4.0", "max=3.0"),
    "a partial's function": ("partial(torch.clamp, max=4.0)", "partial(torch.clamp, min=4.0)"),
    "a plain tensor": ("linspace(0, 1, 8)", "linspace(0, 1.1, 8)"),
    "a buffer that is not saved": ("torch.ones(8)", "torch.full((8,), 0.9)"),
    "a property": ("return 3.0", "return 2.0"),
    "a backward pass": ("return g\n", "return g * 2\n"),
    "functional dropout": ("return self.head(x)", "return self.head(F.dropout(x, 0.5))"),
    "another function of torch": ("F.hardtanh(", "F.threshold("),
    "a constant": ("-9, 9", "-9, 8"),
}
DECORATED = (
    '    def forward(self, x):\n        "Says',
    '    @torch.no_grad()\n    def forward(self, x):\n        "Says',
)
SAME = {
    "a docstring": ("Says what it does.", "Says it otherwise."),
    "a comment": ("return self.head(x)", "return self.head(x)  # the classes"),
    "lines": ("class Net", "\n\n\nclass Net"),
    "an attribute that nothing reads": ("self.double = False", "self.double = False\n        self.created = 'today'"),
    "a name that nothing reads": ('out="results"', 'out="elsewhere"'),
    "a folder that nothing reads": ("/somewhere", "/elsewhere"),
    "a method that nothing calls": (
        "    def pool(self, x):",
        "    def summary(self):\n        return 1\n\n    def pool(self, x):",
    ),
    "a function that nothing calls": ("def outer", "def unused():\n    return 1\n\ndef outer"),
}


def make(change: tuple[str, str] | None = None, base: str = BASE) -> nn.Module:
    code = base if change is None else base.replace(*change)
    assert change is None or code != base
    module = types.ModuleType("own")
    exec(compile(code, "own.py", "exec"), module.__dict__)
    torch.manual_seed(0)
    return module.Net().eval()


def digest(module: nn.Module) -> str:
    return Encoder(module, size=32).digest


@pytest.mark.parametrize("change", CHANGES)
def test_another_computation_is_another_digest(change: str) -> None:
    assert digest(make(CHANGES[change])) != digest(make())


@pytest.mark.parametrize("change", ["a flag", "a constant", "another function of torch", "a function two calls away"])
def test_what_a_library_s_decorator_wraps_is_seen(change: str) -> None:
    wrapped = BASE.replace(*DECORATED)
    assert wrapped != BASE
    assert digest(make(CHANGES[change], wrapped)) != digest(make(None, wrapped))
    assert digest(make(None, wrapped)) == digest(make(None, wrapped)) != digest(make())


@pytest.mark.parametrize("change", SAME)
def test_what_computes_nothing_changes_no_digest(change: str) -> None:
    assert digest(make(SAME[change])) == digest(make())


def loud(self: nn.Module, x: Tensor) -> Tensor:
    return 2 * type(self).forward(self, x)


def maximum(x: Tensor) -> Tensor:
    return x.amax((2, 3))


# what users do to a network that is there, the library's own networks too
PATCHES: dict[str, Callable[[nn.Module], object]] = {
    "forward of the object": lambda net: setattr(net, "forward", types.MethodType(loud, net)),
    "forward without gradients": lambda net: setattr(net, "forward", torch.no_grad()(net.forward)),
    "forward of a part": lambda net: setattr(net.get_submodule("head"), "forward", lambda x: x[:, :5]),
    "a lambda": lambda net: setattr(net, "forward", lambda x, old=net.forward: old(x) + 1),
    "a closure": lambda net: setattr(net, "forward", (lambda scale, old: lambda x: old(x) * scale)(2.0, net.forward)),
    "a module": lambda net: setattr(net, "act", nn.Sigmoid()),
    "a weight": lambda net: net.get_submodule("head").bias.data.add_(1),
}


@pytest.mark.parametrize("patch", PATCHES)
def test_a_change_at_run_time_is_another_digest_of_the_same_encoder(patch: str) -> None:
    net = make()
    encoder = Encoder(net, size=32)
    before = encoder.digest
    PATCHES[patch](net)
    assert encoder.digest != before


@pytest.mark.parametrize(
    ("name", "value"),
    [("double", True), ("options", {"power": 5}), ("cut", partial(torch.clamp, max=1.0)), ("gate", F.relu)],
)
def test_an_attribute_set_at_run_time_is_another_digest(name: str, value: object) -> None:
    net = make()
    encoder = Encoder(net, size=32)
    before = encoder.digest
    setattr(net, name, value)
    assert encoder.digest != before


def test_a_library_s_function_that_was_replaced_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(make(), size=32)
    before = encoder.digest
    monkeypatch.setattr(F, "hardtanh", lambda x, low, high: x)
    assert encoder.digest != before


def test_a_library_s_class_that_was_patched_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    encoder = Encoder(network, size=16)
    before = encoder.digest
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: x * torch.sigmoid(1.702 * x))
    assert encoder.digest != before


@pytest.mark.parametrize(
    "pair",
    [
        (nn.GELU(), nn.GELU("tanh")),
        (nn.GELU(), nn.SiLU()),
        (nn.ReLU(), nn.ReLU6()),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (nn.AvgPool2d(2), nn.MaxPool2d(2)),
        (nn.AvgPool2d(2), nn.AvgPool2d(2, count_include_pad=False, padding=1)),
        (nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2)),
        (nn.Softplus(), nn.Softplus(beta=2)),
        (nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")),
        (nn.GroupNorm(2, 4, eps=1e-5), nn.GroupNorm(2, 4, eps=1e-3)),
        (nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
    ],
)
def test_library_modules_are_told_apart_by_type_and_settings(pair: tuple[nn.Module, nn.Module]) -> None:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 4, 4, 4)
    first, second = (Encoder(nn.Sequential(stem, part), size=16).digest for part in pair)
    assert first != second


@pytest.mark.parametrize("part", [nn.Dropout(0.3), nn.Identity(), nn.Dropout2d(0.1)])
def test_modules_that_do_nothing_in_evaluation_make_no_difference(part: nn.Module) -> None:
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 4, 4, 4)
    assert digest(nn.Sequential(stem, part)) == digest(nn.Sequential(stem, nn.Identity()))


def test_state_that_forward_keeps_changes_no_digest() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, 4)
            self.calls = 0
            self.last = None
            self.cache = {}

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.conv(x)
            self.cache[x.shape[2]] = self.last
            return self.last * (self.calls > 0)

    encoder = Encoder(Keeping(), size=16)
    before = encoder.digest
    encoder.features(torch.rand(1, 3, 16, 16))
    encoder.features(torch.rand(1, 3, 32, 32))
    assert encoder.digest == before


def test_modules_in_a_plain_list_count_with_their_weights() -> None:
    class Hidden(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.parts = [nn.Conv2d(3, 4, 4, 4)]

        def forward(self, x: Tensor) -> Tensor:
            return self.parts[0](x)

    assert digest(Hidden(0)) == digest(Hidden(0)) != digest(Hidden(1))


@given(
    st.floats(-3, 3).map(lambda value: round(value, 3) + 0.0), st.floats(-3, 3).map(lambda value: round(value, 3) + 0.0)
)
@settings(max_examples=30, deadline=None)
def test_constants_in_closures_are_told_apart_by_their_values(first: float, second: float) -> None:
    def build(scale: float) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Conv2d(3, 4, 4, 4)
        old = net.forward
        net.forward = lambda x: old(x) * scale  # type: ignore[method-assign]
        return net

    assert (digest(build(first)) == digest(build(second))) == (first == second)


def test_threads_and_rounding_of_computed_tables_change_no_digest() -> None:
    first, second = make(), make()
    second.shift = second.shift * (1 + 1e-7)
    second.table = second.table * (1 - 1e-7)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = digest(first)
        torch.set_num_threads(4)
        assert digest(second) == one
    finally:
        torch.set_num_threads(before)


def test_the_digest_is_the_same_in_other_processes_and_under_other_names(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import torch
        from encoscope import Encoder
        module = __import__(sys.argv[2])
        torch.manual_seed(0)
        print(Encoder(module.Net().eval(), size=32).digest)
    """)
    constant = BASE.replace(
        "return self.head(x)", 'return self.head(x) * (1 if "gelu" in {"relu", "gelu", "tanh"} else 0)'
    )
    (tmp_path / "mine.py").write_text(constant)
    (tmp_path / "copied.py").write_text(f"# a copy\n\n{constant}")
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), name],
            capture_output=True,
            text=True,
            check=True,
            env={**__import__("os").environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
        ).stdout
        for name, seed, threads in (("mine", "1", "1"), ("copied", "77", "2"))
    ]
    assert runs[0] == runs[1] and len(runs[0].strip()) == 64
