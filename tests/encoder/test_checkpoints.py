"""Checkpoints as training code leaves them: wrappers, prefixes, other heads, other channels, other positions."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from encoscope.encoder import Encoder, load  # before timm: it makes torchvision's import work
from encoscope.errors import EncoscopeError, MissingError, UsageError

import timm  # isort: skip

State = dict[str, Tensor]
NAME = "timm:resnet10t"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def state() -> State:
    """Weights of a ResNet-10 with ImageNet's head, as a user's training left them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return timm.create_model("resnet10t").state_dict()


def body(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def other(state: State) -> State:
    """Another network's weights under the same names."""
    return {name: value + 1 for name, value in state.items()}


def moco(state: State) -> Any:
    head = {"fc.weight": torch.zeros(128, 512), "fc.bias": torch.zeros(128)}
    query, key = {**body(state), **head}, {**other(body(state)), **head}
    return {
        "epoch": 200,
        "state_dict": prefixed("module.encoder_q.", query) | prefixed("module.encoder_k.", key),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
    }


def dino(state: State) -> Any:
    projection = {"head.mlp.0.weight": torch.zeros(4, 512), "head.last_layer.weight": torch.zeros(9, 4)}
    return {
        "student": prefixed("module.backbone.", other(body(state))) | prefixed("module.", projection),
        "teacher": prefixed("backbone.", body(state)) | projection,
        "args": argparse.Namespace(arch="resnet", lr=np.float64(0.1)),
        "epoch": 3,
    }


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": np.float64(0.5)},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "module": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "lightning": lambda state: {"state_dict": prefixed("model.", state), "pytorch-lightning_version": "2.0"},
    "lightning-net": lambda state: {"state_dict": prefixed("net.backbone.", state) | {"loss.weight": torch.ones(5)}},
    "ema": lambda state: {"state_dict": other(state), "state_dict_ema": state},
    "simclr": lambda state: prefixed("encoder.", body(state)) | {"projector.0.weight": torch.zeros(8, 512)},
    "moco": moco,
    "dino": dino,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_and_prefixes(wrapper: str, state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(WRAPPERS[wrapper](state), file)
    with caplog.at_level(logging.INFO, "encoscope"):
        encoder = load(NAME, checkpoint=file)
    loaded = encoder.module.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in body(state).items())
    lost = wrapper in ("simclr", "moco", "dino")
    assert ("the network's fc is removed" in caplog.text) == lost
    assert (encoder.head is None) == lost
    assert encoder.features(torch.zeros(1, 3, 64, 64)).shape == (1, 512)
    if lost:
        with pytest.raises(UsageError, match="no classification head"):
            encoder.logits(torch.zeros(1, 3, 64, 64))
    else:
        assert torch.equal(loaded["fc.weight"], state["fc.weight"])
    assert ("not used" in caplog.text) == (lost or wrapper == "lightning-net")


def test_safetensors_and_at_in_the_name(state: State, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    first, second = load(f"{NAME}@{file}"), load(NAME, checkpoint=str(file))
    assert first.digest == second.digest
    assert first.source == second.source == f"{NAME}@{file}"
    with pytest.raises(UsageError, match="two checkpoints"):
        load(f"{NAME}@{file}", checkpoint=file)
    with pytest.raises(UsageError, match="contradict"):
        load(f"{NAME}@{file}", untrained=True)


@pytest.mark.parametrize("name", [NAME, "torchvision:resnet18"])
def test_another_number_of_classes_and_channels(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = load(f"{name}@untrained").module
    state = module.state_dict()
    first = next(key for key in state if state[key].ndim == 4)
    state |= {"fc.weight": torch.randn(7, 512), "fc.bias": torch.zeros(7), first: state[first][:, :1]}
    file = tmp_path / "xray.pt"
    torch.save(state, file)
    encoder = load(name, checkpoint=file)
    assert encoder.preprocess.channels == 1 and len(encoder.preprocess.mean) == 1
    assert encoder.classes is None
    image = np.zeros((50, 40), np.uint8)
    assert encoder.logits(image).shape == (1, 7)
    assert torch.equal(encoder.module.state_dict()["fc.weight"], state["fc.weight"])
    assert "a head of 7 classes" in caplog.text


def test_imagenet_heads_have_class_names(state: State, tmp_path: Path) -> None:
    file = tmp_path / "imagenet.pth"
    torch.save(state, file)
    classes = load(NAME, checkpoint=file).classes
    assert classes is not None and len(classes) == 1000 and "golden retriever" in classes[207]
    assert load(f"{NAME}@untrained").classes is None


def test_position_embeddings_are_resized(tmp_path: Path) -> None:
    small = timm.create_model("vit_tiny_patch16_224", depth=12, img_size=64, num_classes=0)
    file = tmp_path / "vit.pth"
    torch.save(small.state_dict(), file)
    encoder = load("timm:vit_tiny_patch16_224", checkpoint=file)
    own = encoder.module.state_dict()["pos_embed"]
    assert own.shape == (1, 197, 192)
    torch.testing.assert_close(own[:, 0], small.state_dict()["pos_embed"][:, 0])
    torch.testing.assert_close(own[:, 1:].mean(), small.state_dict()["pos_embed"][:, 1:].mean(), atol=1e-3, rtol=0.1)


def test_published_names_are_converted(tmp_path: Path) -> None:
    """ConvNeXt's authors name its layers in another way; timm knows it."""
    module = timm.create_model("convnext_atto", num_classes=10)
    renamed = {}
    for name, value in module.state_dict().items():
        name = name.replace("stages.", "stages_", 1).replace(".blocks.", ".", 1).replace("stages_", "stages.", 1)
        for ours, theirs in (
            ("stem.", "downsample_layers.0."),
            ("conv_dw.", "dwconv."),
            ("mlp.fc1.", "pwconv1."),
            ("mlp.fc2.", "pwconv2."),
            ("head.norm.", "norm."),
            ("head.fc.", "head."),
        ):
            name = name.replace(ours, theirs)
        if ".downsample." in name:
            stage, _, rest = name.removeprefix("stages.").partition(".downsample.")
            name = f"downsample_layers.{stage}.{rest}"
        renamed[name] = value
    file = tmp_path / "convnext.pth"
    torch.save({"model": renamed}, file)
    encoder = load("timm:convnext_atto", checkpoint=file)
    loaded = encoder.module.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in module.state_dict().items())


def test_missing_and_unused_tensors_are_told(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "partial.pth"
    partial = {name: value for name, value in state.items() if not name.startswith("layer4.0.bn2.")}
    torch.save(partial | {"surplus.weight": torch.zeros(2)}, file)
    load(NAME, checkpoint=file)
    assert "4 tensors of the network are not in it and keep random values: layer4.0.bn2.weight" in caplog.text
    assert "1 tensors in it are not used: surplus.weight" in caplog.text


class Wrapped(nn.Module):
    """A user's own network around a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet10t", num_classes=0)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone(pixels)


def wrapped() -> Wrapped:
    return Wrapped()


def wrapped_encoder() -> Encoder:
    return Encoder(Wrapped(), size=64, classes=None, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("function", ["wrapped", "wrapped_encoder"])
def test_bare_weights_into_a_users_own_wrapper(function: str, state: State, tmp_path: Path) -> None:
    file = tmp_path / "backbone.pth"
    torch.save(body(state), file)
    encoder = load(f"py:{__name__}:{function}", checkpoint=file)
    loaded = encoder.module.state_dict()
    assert all(torch.equal(loaded[f"backbone.{name}"], value) for name, value in body(state).items())


def test_files_that_do_not_fit_or_cannot_be_read(state: State, tmp_path: Path) -> None:
    def refused(content: Any, match: str, error: type[EncoscopeError] = EncoscopeError, name: str = NAME) -> None:
        file = tmp_path / "file.pth"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(error, match=match) as caught:
            load(name, checkpoint=file)
        assert "\n" not in str(caught.value)

    refused(timm.create_model("resnet10t"), "holds more than weights")
    refused(b"not a checkpoint", "damaged")
    torch.save(state, tmp_path / "whole.pth")
    refused((tmp_path / "whole.pth").read_bytes()[:100_000], "damaged")
    refused(b"", "damaged")
    refused([1, 2], "holds no weights that match")
    refused({"epoch": 3}, "holds no weights that match")
    refused(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(), "does not fit|no table")
    wider = state | {"layer1.0.conv1.weight": torch.zeros(96, 64, 3, 3)}
    refused(wider, r"layer1.0.conv1.weight is 96x64x3x3 in the file, 64x64x3x3 in the network")
    with pytest.raises(MissingError, match="no checkpoint file"):
        load(NAME, checkpoint=tmp_path / "absent.pth")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(EncoscopeError, match="damaged"):
        load(NAME, checkpoint=broken)
