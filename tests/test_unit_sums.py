"""Units with minus signs, at a position, across layers, and of the user's own making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import encoscope
from encoscope.encoder import Encoder  # before timm: it makes torchvision's import work
from encoscope.errors import EncoscopeError, UsageError
from encoscope.units import compute_values, measure_units, objective_unit, parse_unit, required_outputs

import timm  # isort: skip


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("resnet10t", num_classes=4).eval()
    return Encoder(module, size=64, classes=["Golden_Retriever", "sea lion", "tench", "t-shirt"])


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def raw(resnet: Encoder, pixels: Tensor) -> dict[str, Tensor]:
    """The network's own tensors, by plain hooks."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, output: outputs.update({name: output})

    names = ("layer3", "layer4")
    handles = [resnet.module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        outputs["logits"] = resnet.module(pixels)
    for handle in handles:
        handle.remove()
    outputs["features"] = outputs["layer4"].mean((2, 3))
    return outputs


VALUES = {
    "layer4:12,-97": lambda raw: raw["layer4"][:, 12].mean((1, 2)) - raw["layer4"][:, 97].mean((1, 2)),
    "layer3:-5": lambda raw: -raw["layer3"][:, 5].mean((1, 2)),
    "features:3,-7,9": lambda raw: raw["features"][:, 3] - raw["features"][:, 7] + raw["features"][:, 9],
    "layer3@x3,y1:12": lambda raw: raw["layer3"][:, 12, 1, 3],
    "layer3@x0,y2:12,-4": lambda raw: raw["layer3"][:, 12, 2, 0] - raw["layer3"][:, 4, 2, 0],
    "class:sea lion - class:golden retriever": lambda raw: raw["logits"][:, 1] - raw["logits"][:, 0],
    "class:t-shirt + class:2": lambda raw: raw["logits"][:, 3] + raw["logits"][:, 2],
    "layer4:1 - layer4:2,3": lambda raw: raw["layer4"].mean((2, 3)) @ _vector(512, {1: 1, 2: -1, 3: -1}),
    "layer4:1 + layer4:1": lambda raw: 2 * raw["layer4"][:, 1].mean((1, 2)),
    "layer3:8 - layer4:2": lambda raw: raw["layer3"][:, 8].mean((1, 2)) - raw["layer4"][:, 2].mean((1, 2)),
    "class:1 - layer4:2 + features:5": lambda raw: (
        raw["logits"][:, 1] - raw["layer4"][:, 2].mean((1, 2)) + raw["features"][:, 5]
    ),
    "layer4@x1,y0:3 - layer4@x0,y1:3": lambda raw: raw["layer4"][:, 3, 0, 1] - raw["layer4"][:, 3, 1, 0],
}


def _vector(width: int, entries: dict[int, float]) -> Tensor:
    vector = torch.zeros(width)
    for index, value in entries.items():
        vector[index] = value
    return vector


@pytest.mark.parametrize("text", VALUES)
def test_values_are_those_of_the_network_itself(
    resnet: Encoder, pixels: Tensor, raw: dict[str, Tensor], text: str
) -> None:
    unit = parse_unit(text, resnet)
    assert unit.text == text
    torch.testing.assert_close(measure_units(resnet, pixels, [unit])[:, 0], VALUES[text](raw))


def test_all_at_once_are_as_each_alone(resnet: Encoder, pixels: Tensor) -> None:
    units = [parse_unit(text, resnet) for text in VALUES]
    together = measure_units(resnet, pixels, units)
    alone = torch.cat([measure_units(resnet, pixels, [unit]) for unit in units], 1)
    assert torch.equal(together, alone)


def test_values_pass_gradients(resnet: Encoder, pixels: Tensor) -> None:
    unit = parse_unit("layer3:8 - layer4@x1,y1:2", resnet)
    leaf = pixels.clone().requires_grad_()
    compute_values(resnet.observe(leaf, **required_outputs([unit]), gradients=True), [unit]).sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer4@x9,y0:3", "columns x0 to x1 and rows y0 to y1"),
        ("layer4@x0,y0:512", "512 channels of layer4"),
        ("layer4:-512", "out of range"),
        ("layer4:3,-3", "twice"),
        ("layer4:3 - layer4:3", "zero whatever the image"),
        ("layer4:--3", "numbers with commas"),
        ("layer4:1 - lyer4:2", "nearest: layer4"),
        ("class:sea lion - class:golden retreiver", "nearest: golden retriever"),
        ("py:nothing", "py:module:function"),
    ],
)
def test_what_is_no_unit_is_refused(resnet: Encoder, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_unit(text, resnet)


def test_a_name_with_a_dash_is_a_name(resnet: Encoder) -> None:
    assert parse_unit("class:T-shirt", resnet).channels == (3,)


def test_keys_tell_units_apart(resnet: Encoder) -> None:
    texts = ["layer4:12", "layer4:-12", "layer4:12,-97", "layer4:12,97", "layer4@x0,y0:12", "layer4@x1,y0:12"]
    texts += ["layer3:1 - layer4:12", "layer3:1 + layer4:12"]
    keys = [repr(parse_unit(text, resnet).as_key()) for text in texts]
    assert len(set(keys)) == len(keys)


def test_a_function_of_your_own(resnet: Encoder, pixels: Tensor, raw: dict[str, Tensor]) -> None:
    unit = objective_unit(lambda seen: seen.activations["layer3"].maps[:, 4].amax((1, 2)), reads="layer3", name="peak")
    torch.testing.assert_close(measure_units(resnet, pixels, [unit])[:, 0], raw["layer3"][:, 4].amax((1, 2)))
    assert not unit.is_keyed


def test_a_function_of_a_module(
    resnet: Encoder, pixels: Tensor, raw: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "myobjectives.py").write_text(
        "def entropy(seen):\n    p = seen.logits.softmax(1)\n    return -(p * p.log()).sum(1)\n"
        "def energy(seen):\n    return seen.activations['layer4'].maps.square().mean((1, 2, 3))\n"
        "energy.reads = ['layer4']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    probabilities = raw["logits"].softmax(1)
    expected = -(probabilities * probabilities.log()).sum(1), raw["layer4"].square().mean((1, 2, 3))
    units = [parse_unit(f"py:myobjectives:{name}", resnet) for name in ("entropy", "energy")]
    torch.testing.assert_close(measure_units(resnet, pixels, units), torch.stack(expected, 1))


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (lambda seen: seen.logits, UsageError, "3 numbers, one an image"),
        (lambda seen: 3.0, UsageError, "not float"),
        (lambda seen: seen.nothing, EncoscopeError, "failed: AttributeError"),
    ],
)
def test_a_function_that_gives_something_else_is_refused(
    resnet: Encoder, pixels: Tensor, function: object, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        measure_units(resnet, pixels, [objective_unit(function, name="own")])  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["layer3:8 - layer4:2", "layer4@x1,y1:2"])
def test_words_need_the_mean_channels_of_one_layer(resnet: Encoder, tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="mean channels of one layer"):
        _ = parse_unit(text, resnet).space


@pytest.mark.parametrize("method", ["vital", "fourier"])
@pytest.mark.parametrize("text", ["layer3:8,-3", "layer2:1 + layer3:8", "layer3@x2,y2:8", "own"])
def test_they_are_visualized(resnet: Encoder, method: str, text: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 80, 80, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    unit = objective_unit(lambda seen: seen.logits[:, 1] - seen.logits[:, 0], name="own") if text == "own" else text
    settings = {"n_references": 2} if method == "vital" else {}
    references = tmp_path if method == "vital" else None
    visualization = encoscope.visualize(resnet, unit, references, method=method, steps=40, cache=False, **settings)
    assert visualization.unit == text and np.isfinite(visualization.image).all()
    loss = visualization.losses["loss"]
    assert loss[-10:].mean() < loss[:10].mean()
