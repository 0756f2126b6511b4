"""Checkpoints as training code leaves them: wrappers, prefixes, other heads, other channels, other positions."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoscope.encoder import Encoder, load  # before timm: it makes torchvision's import work
from encoscope.encoder.state_names import matches_pattern
from encoscope.errors import EncoscopeError, MissingError, UsageError

import timm  # isort: skip

State = dict[str, Tensor]
NAME = "timm:resnet10t"


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


def insert(part: str, wrapper: str, state: State) -> State:
    """A part of the network wrapped."""
    return {name.replace(f"{part}.", f"{part}.{wrapper}.", 1): value for name, value in state.items()}


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
    "compiled, parallel": lambda state: prefixed("module._orig_mod.", state),
    "compiled part": lambda state: insert("layer2", "_orig_mod", state),
    "parallel part": lambda state: insert("layer2", "module", state),
    "sharded": lambda state: prefixed("_fsdp_wrapped_module.", insert("layer2", "_fsdp_wrapped_module", state)),
    "checkpointed": lambda state: {
        "model": prefixed("module.", insert("layer3.0", "_checkpoint_wrapped_module", state))
    },
    "averaged": lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.", state)},
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
    assert ("not used" in caplog.text) == (lost or wrapper in ("lightning-net", "averaged"))


@pytest.mark.parametrize("kind", ["safetensors", "bin", "whole"])
def test_weights_in_several_files(kind: str, state: State, tmp_path: Path) -> None:
    """As ``save_pretrained`` of transformers and timm writes them."""
    names = list(state)
    parts: list[State] = [{name: state[name] for name in names[::2]}, {name: state[name] for name in names[1::2]}]
    stem, end = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    files = [f"{stem}-{number:05d}-of-00002.{end}" for number in (1, 2)]
    index = tmp_path / f"{stem}.{end}.index.json"
    if kind == "whole":
        save_file(state, tmp_path / "model.safetensors")
    else:
        for file, part in zip(files, parts, strict=True):
            (torch.save if kind == "bin" else save_file)(part, tmp_path / file)
        weights = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index.write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    for checkpoint in [tmp_path, *tmp_path.glob("*.index.json")]:
        loaded = load(NAME, checkpoint=checkpoint).module.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())
    if kind == "whole":
        return
    with pytest.raises(EncoscopeError, match=r"is one of 2 files of weights: name their index"):
        load(NAME, checkpoint=tmp_path / files[1])
    (tmp_path / files[1]).unlink()
    with pytest.raises(MissingError, match=f"no checkpoint file .*{files[1]}"):
        load(NAME, checkpoint=tmp_path)
    index.write_text("{}")
    with pytest.raises(EncoscopeError, match="damaged or no index"):
        load(NAME, checkpoint=index)


def test_folders_without_a_file_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"is a folder without model\.safetensors"):
        load(NAME, checkpoint=tmp_path)
    (tmp_path / ".metadata").touch()
    (tmp_path / "__0_0.distcp").touch()
    with pytest.raises(EncoscopeError, match=r"in shards of torch\.distributed\.checkpoint: .*dcp_to_torch"):
        load(NAME, checkpoint=tmp_path)


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
    with caplog.at_level(logging.INFO, "encoscope"):
        encoder = load(name, checkpoint=file)
    assert encoder.preprocess.channels == 1 and len(encoder.preprocess.mean) == 1
    assert encoder.classes is None
    image = np.zeros((50, 40), np.uint8)
    assert encoder.logits(image).shape == (1, 7)
    assert torch.equal(encoder.module.state_dict()["fc.weight"], state["fc.weight"])
    assert "its own head of 7 classes is used" in caplog.text and "anew" not in caplog.text
    assert encoder.record == {}


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
    with pytest.raises(EncoscopeError, match=r"lacks 4 tensors .* random: layer4\.0\.bn2\.\*; .* --allow-missing"):
        load(NAME, checkpoint=file)
    encoder = load(NAME, checkpoint=file, allow_missing="layer4.0.bn2")
    assert "4 tensors of the network are not in it and random, as allowed: layer4.0.bn2.*" in caplog.text
    assert "1 tensor in it is not used: surplus.weight" in caplog.text
    assert encoder.record == {"weights": {"missing": ["layer4.0.bn2.*"], "unused": ["surplus.weight"]}}


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


@pytest.fixture(scope="module")
def vit_state() -> State:
    """Weights of a ViT with twelve blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return timm.create_model("vit_tiny_patch16_224").state_dict()


def without(pattern: str, state: State) -> State:
    return {name: value for name, value in state.items() if not re.search(pattern, name)}


@pytest.mark.parametrize(
    ("lost", "condensed", "allowed"),
    [
        (r"\.qkv\.", "blocks.*.attn.qkv.*", ["blocks.*.attn.qkv"]),
        (r"^blocks\.11\.", "blocks.11.*", ["blocks.11"]),
        (r"^pos_embed", "pos_embed", ["pos_embed"]),
        (r"blocks\.[0-4]\.norm1\.bias", "blocks.0.norm1.bias, blocks.1.norm1.bias", ["blocks.?.norm1.bias"]),
        (r"^norm\.|^patch_embed", "patch_embed.*, norm.*", ["norm", "patch_embed.proj.*"]),
    ],
)
def test_no_weight_stays_random_unless_it_is_named(
    lost: str, condensed: str, allowed: list[str], vit_state: State, tmp_path: Path
) -> None:
    file = tmp_path / "partial.pth"
    state = without(lost, vit_state)
    torch.save({"state_dict": prefixed("module.", state)}, file)
    with pytest.raises(EncoscopeError, match=re.escape(condensed)) as caught:
        load("timm:vit_tiny_patch16_224", checkpoint=file)
    assert f"lacks {len(vit_state) - len(state)} tensor" in str(caught.value) and "\n" not in str(caught.value)
    encoder = load("timm:vit_tiny_patch16_224", checkpoint=file, allow_missing=allowed)
    missing = encoder.record["weights"]["missing"]
    assert {name for name in vit_state if matches_pattern(name, missing)} == vit_state.keys() - state.keys()
    own = encoder.module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "extra",
    [
        "blocks.12.attn.qkv.weight",  # a deeper network
        "blocks.3.ls1.gamma",  # a network that scales its layers
        "blocks.3.attn.q_norm.weight",
        "patch_embed.norm.weight",
    ],
)
def test_tensors_inside_the_network_are_not_left_out_silently(extra: str, vit_state: State, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(vit_state | {extra: torch.ones(192), "decoder.0.weight": torch.ones(3)}, file)
    with pytest.raises(EncoscopeError, match="is of another network: it has 1 tensor inside") as caught:
        load("timm:vit_tiny_patch16_224", checkpoint=file)
    assert extra in str(caught.value) and "decoder" not in str(caught.value)
    record = load("timm:vit_tiny_patch16_224", checkpoint=file, allow_unused=[extra]).record
    assert record == {"weights": {"unused": [extra, "decoder.0.weight"]}}


def test_a_block_is_no_head(tmp_path: Path) -> None:
    """The last linear layer of a network without a norm and a classifier belongs to its last block."""
    state = blocks().state_dict()
    file = tmp_path / "blocks.pth"
    torch.save(without(r"^2\.fc2", state), file)
    with pytest.raises(EncoscopeError, match=r"lacks 2 tensors .* 2\.fc2\.\*"):
        load(f"py:{__name__}:blocks", checkpoint=file)


def blocks() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)

    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), Block(), Block())


def test_shared_and_counting_tensors_are_not_missing(tmp_path: Path) -> None:
    """safetensors keeps a weight that two layers share once."""
    state = tied().state_dict()
    file = tmp_path / "tied.safetensors"
    save_file(without(r"^1\.", state), file)
    assert load(f"py:{__name__}:tied", checkpoint=file).record == {}


def tied() -> nn.Module:
    first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight, second.bias = first.weight, first.bias
    return nn.Sequential(first, second, nn.BatchNorm2d(3))


def test_libraries_own_formats(state: State, tmp_path: Path) -> None:
    """torchvision's and transformers' state dictionaries, open_clip's, and those of mmengine and Lightning."""
    import torchvision
    import transformers

    def check(source: str, content: Any, expected: State, **record: Any) -> None:
        file = tmp_path / "file.pth"
        torch.save(content, file)
        encoder = load(source, checkpoint=file)
        own = encoder.module.state_dict()
        assert all(torch.equal(own[name], value) for name, value in expected.items())
        assert encoder.record.get("weights", {}) == record

    resnet = torchvision.models.resnet18(num_classes=4).state_dict()
    check("torchvision:resnet18", resnet, resnet)
    mmengine = {"meta": {"epoch": 3, "dataset_meta": {"classes": ("cat", "dog")}}}
    mmengine["state_dict"] = prefixed("backbone.", body(state)) | {"head.fc.weight": torch.zeros(2, 512)}
    check(NAME, mmengine, body(state), entry="state_dict/backbone", removed=["fc"], unused=["head.fc.weight"])
    lightning = {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}, "callbacks": {}}
    check(NAME, lightning, state, entry="state_dict/model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=3)).eval()
    vit.save_pretrained(tmp_path / "vit")
    check(f"hf:{tmp_path / 'vit'}", vit.state_dict(), vit.state_dict())
    visual = prefixed("visual.", load("openclip:RN50@untrained").module.state_dict())
    check(
        "openclip:RN50",
        visual | {"token_embedding.weight": torch.ones(2)},
        {},
        entry="visual",
        unused=["token_embedding.weight"],
    )


def test_a_head_saved_without_values_is_refused(tmp_path: Path) -> None:
    """transformers gives a classifier that a folder does not hold random weights."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(**sizes, num_labels=3, architectures=["ViTForImageClassification"])
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(without("classifier", state), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoscopeError, match=r"lacks 2 tensors of the network, .*: classifier\.\*"):
        load(f"hf:{tmp_path}")
    assert load(f"hf:{tmp_path}", allow_missing="classifier").record == {"weights": {"missing": ["classifier.*"]}}


NO_WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "meta": (lambda weight: weight.to("meta"), r"no values for fc\.weight"),
    "sparse": (lambda weight: weight.to_sparse(), r"fc\.weight as sparse_coo: save it dense"),
    "compressed": (lambda weight: weight.to_sparse_csr(), r"fc\.weight as sparse_csr: save it dense"),
    "NaN": (lambda weight: torch.where(weight == weight.max(), torch.nan, weight), r"NaN in fc\.weight"),
    "repeated": (lambda weight: weight[:1, :1].expand(10**9, 512), r"fc\.weight repeats .* bytes to 2048\.0 GB"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_tensors_that_hold_no_weights_are_refused(kind: str, state: State, tmp_path: Path) -> None:
    change, message = NO_WEIGHTS[kind]
    torch.save({**state, "fc.weight": change(state["fc.weight"])}, tmp_path / "x.pth")
    with pytest.raises(EncoscopeError, match=message):
        load(NAME, checkpoint=tmp_path / "x.pth")
    torch.save(
        {**state, "loss.weight": change(state["fc.weight"])}, tmp_path / "y.pth"
    )  # not used: anything may be there
    assert torch.equal(load(NAME, checkpoint=tmp_path / "y.pth").module.state_dict()["fc.weight"], state["fc.weight"])
