"""What a unit's text means, and what its value on an image is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoscope.encoder import Encoder  # before timm: it makes torchvision's import work
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.units import (
    Unit,
    channel_unit,
    direction_unit,
    measure_units,
    parse_unit,
    required_outputs,
    unit_weights,
)

import timm  # isort: skip


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("resnet10t", num_classes=4)
    return Encoder(module, size=64, classes=["Golden_Retriever", "crane", "tench, Tinca tinca", "crane"])


@pytest.fixture(scope="module")
def vit() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)
    return Encoder(module, size=32)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("text", "kind", "layer", "channels"),
    [
        ("layer4:485", "channel", "layer4", (485,)),
        ("layer4:12, 97", "group", "layer4", (12, 97)),
        ("features:31", "features", None, (31,)),
        ("features:31,2", "features", None, (31, 2)),
        ("class:3", "class", None, (3,)),
        ("class:golden  retriever", "class", None, (0,)),
        ("class:TINCA_tinca", "class", None, (2,)),
    ],
)
def test_parse(resnet: Encoder, text: str, kind: str, layer: str | None, channels: tuple[int, ...]) -> None:
    unit = parse_unit(text, resnet)
    assert (unit.text, unit.kind, unit.layer, unit.channels) == (text, kind, layer, channels)
    assert parse_unit(unit, resnet) is unit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer4", "names no unit"),
        ("layer4:", "names no unit"),
        (":4", "names no unit"),
        ("layer4:x", "numbers with commas"),
        ("layer4:1-2", "numbers with commas"),
        ("layer4:512", "512 channels of layer4, 0 to 511"),
        ("layer4:1,1", "twice"),
        ("layr4:1", "nearest: layer4"),
        ("layer4@cls:1", "no class token"),
        ("features:512", "512 features"),
        ("class:4", "4 classes, 0 to 3"),
        ("class:golden retreiver", "nearest: golden retriever"),
        ("class:crane", "use an index, one of 1, 3"),
    ],
)
def test_a_wrong_unit_is_told_in_one_line(resnet: Encoder, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_unit(text, resnet)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_head_has_no_classes(vit: Encoder) -> None:
    with pytest.raises(UsageError, match="no classification head"):
        parse_unit("class:1", vit)


def test_direction_files(resnet: Encoder, tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=512)
    np.save(tmp_path / "d.npy", vector.astype(np.float32)[None])
    unit = parse_unit(f"layer4@{tmp_path / 'd.npy'}", resnet)
    assert unit.kind == "direction"
    np.testing.assert_allclose(unit_weights(unit, resnet).numpy(), vector, rtol=1e-6)
    np.save(tmp_path / "short.npy", vector[:3])
    np.save(tmp_path / "zero.npy", 0 * vector)
    (tmp_path / "text.npy").write_text("no")
    for name, error, said in [
        ("short.npy", UsageError, "not 512 numbers for the channels of layer4"),
        ("zero.npy", UsageError, "only zeros"),
        ("text.npy", EncoscopeError, "no .npy file"),
        ("none.npy", MissingError, "no direction file"),
    ]:
        with pytest.raises(error, match=said):
            parse_unit(f"layer4@{tmp_path / name}", resnet)


def test_values_are_what_they_are_said_to_be(resnet: Encoder, pixels: Tensor, tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=512)
    texts = ["layer4:485", "layer4:12,97", "features:31", "class:2", "layer2:7"]
    units = [*(parse_unit(text, resnet) for text in texts), direction_unit("layer4", vector, "mine")]
    found = measure_units(resnet, pixels, units)

    maps = resnet.activations(pixels, ["layer4", "layer2"])
    layer4 = maps["layer4"].maps
    expected = torch.stack(
        [
            layer4[:, 485].mean((1, 2)),
            layer4[:, 12].mean((1, 2)) + layer4[:, 97].mean((1, 2)),
            resnet.features(pixels)[:, 31],
            resnet.logits(pixels)[:, 2],
            maps["layer2"].maps[:, 7].mean((1, 2)),
            torch.einsum("bchw,c->bhw", layer4, torch.tensor(vector, dtype=torch.float32)).mean((1, 2)),
        ],
        1,
    )
    torch.testing.assert_close(found, expected)
    assert required_outputs(units) == {"layers": ["layer4", "layer2"], "features": True, "logits": True}


def test_a_transformer_is_measured_over_patch_tokens_or_at_its_class_token(vit: Encoder) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    units = [parse_unit(text, vit) for text in ("blocks.1:12", "blocks.1@cls:12", "blocks.0.mlp.act:700")]
    found = measure_units(vit, pixels, units)
    tokens = vit.module.forward_intermediates(pixels, indices=[1], return_prefix_tokens=True, intermediates_only=True)
    patches, prefix = tokens[0]  # without the last norm, as the block puts them out
    torch.testing.assert_close(found[:, 0], patches[:, 12].mean((1, 2)))
    torch.testing.assert_close(found[:, 1], prefix[:, 0, 12])
    assert found.shape == (2, 3)


def test_weights_agree_with_values(resnet: Encoder, pixels: Tensor) -> None:
    units = [parse_unit("layer4:12,97", resnet), parse_unit("class:1", resnet), parse_unit("features:3", resnet)]
    pooled = [resnet.activations(pixels, "layer4")["layer4"].maps.mean((2, 3)), resnet.logits(pixels)]
    pooled.append(resnet.features(pixels))
    expected = [vector @ unit_weights(unit, resnet) for vector, unit in zip(pooled, units, strict=True)]
    torch.testing.assert_close(measure_units(resnet, pixels, units), torch.stack(expected, 1))


def test_index_is_for_single_units() -> None:
    assert channel_unit("layer4", 5) == Unit("layer4:5", "channel", "layer4", (5,))
    assert channel_unit("layer4", 5).index == 5
    with pytest.raises(UsageError, match="not a single"):
        _ = Unit("layer4:1,2", "group", "layer4", (1, 2)).index


def test_width_and_outputs_of_networks(resnet: Encoder, vit: Encoder) -> None:
    assert (resnet.width, resnet.outputs) == (512, 4)
    assert (vit.width, vit.outputs) == (192, None)
    assert Encoder(nn.Sequential(nn.Conv2d(3, 6, 3, 2)), size=16).width == 6
