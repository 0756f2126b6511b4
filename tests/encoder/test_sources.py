"""Getting a network by name from each source, and the message if it is not available."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from encoscope.encoder import load
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.zoo import registry

PIXELS = torch.zeros(1, 3, 64, 64)
HUBCONF = """
import torch
from torch import nn

def net(pretrained=True):
    made = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
    if pretrained:
        nn.init.ones_(made[0].weight)
    return made

def bare():
    return net()

def broken(pretrained=True):
    raise KeyError("no such file\\nat all")

def number(pretrained=True):
    return 3
"""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and nothing downloaded before."""
    from huggingface_hub import constants

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.getproxies", dict)


def refused(source: str, match: str, error: type[EncoscopeError] = UsageError, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("resnet18", r"unknown model 'resnet18'.*did you mean timm:resnet18\?"),
        ("tmm:resnet18", "unknown model 'tmm:resnet18'"),
        ("timm:", "names no model"),
        ("timm:resnt18", "unknown timm model 'resnt18' .nearest: resnet18"),
        ("timm:resnet18.a9_in1k", "no weights 'a9_in1k' .nearest: a3_in1k"),
        ("torchvision:resnt18", "unknown torchvision model 'resnt18' .nearest: resnet18"),
        ("torchvision:resnet18.V9", "no weights 'V9'; it has IMAGENET1K_V1"),
        ("openclip:RN5", "unknown open_clip model 'RN5' .nearest: RN50"),
        ("openclip:RN50/laion", "no weights 'laion'; it has openai"),
        ("openclip:RN50", "several weights: add one, such as openclip:RN50/openai"),
        ("hf:dinv2", "no such type of network .nearest: dinov2"),
        ("hf:dinov2", "is a type of network, not a trained one"),
        ("hub:owner/repo", "write hub:OWNER/REPO:ENTRY"),
        ("hub:owner/repo:entry", "runs the Python code of owner/repo: allow it with --trust"),
        ("zoo:resnet-caltech", "the zoo has no 'resnet-caltech'"),
        ("py:nets", "write py:module:function"),
        ("py:no_such_module:net", "there is no module 'no_such_module'"),
        ("py:json:lods", "json has no function 'lods' .nearest: loads"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(source: str, match: str, offline: None) -> None:
    refused(source, match)


def test_devices_that_are_not_there() -> None:
    refused("timm:resnet10t@untrained", "there is no device 'cuda:99'", device="cuda:99")
    refused("timm:resnet10t@untrained", "unknown device 'gpu'", device="gpu")


@pytest.mark.parametrize(
    "source",
    [
        "timm:resnet18",
        "timm:vit_small_patch16_224.dino",
        "torchvision:resnet18",
        "torchvision:resnet50.IMAGENET1K_V1",
        "openclip:RN50/openai",
        "hf:facebook/dinov2-small",
        "hub:facebookresearch/dino:dino_vits16",
    ],
)
def test_weights_that_cannot_be_had_are_missing_quickly_and_quietly(
    source: str, offline: None, capfd: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    refused(source, "--checkpoint FILE|save_pretrained", MissingError, trust=True)
    assert time.monotonic() - start < 20
    assert capfd.readouterr() == ("", "")


def test_untrained_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = load("timm:resnet10t@untrained")
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert load("timm:resnet10t", untrained=True).digest == first.digest
    assert load("timm:resnet10t", untrained=True, random_state=1).digest != first.digest
    assert first.source == load("timm:resnet10t", untrained=True).source == "timm:resnet10t@untrained"
    assert not first.module.training


def test_timm_preprocessing_and_any_size() -> None:
    encoder = load("timm:vit_tiny_patch16_224.augreg_in21k@untrained")
    chosen = encoder.preprocess
    assert (chosen.size, chosen.mean, chosen.crop) == ((224, 224), (0.5, 0.5, 0.5), 0.9)
    encoder.module.blocks = encoder.module.blocks[:1]  # type: ignore[index]
    found = encoder.activations(torch.zeros(1, 3, 32, 64), "blocks.0")["blocks.0"]
    assert found.maps.shape == (1, 192, 2, 4)


def test_torchvision_preprocessing() -> None:
    old = load("torchvision:resnet18.IMAGENET1K_V1@untrained").preprocess
    assert (old.size, old.interpolation, old.crop) == ((224, 224), "bilinear", 224 / 256)
    new = load("torchvision:mobilenet_v2.IMAGENET1K_V2@untrained").preprocess
    assert new.crop == 224 / 232


def nets(folder: Path, name: str, code: str) -> None:
    (folder / f"{name}.py").write_text(code)


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    nets(
        tmp_path,
        "own_nets",
        "from torch import nn\nfrom encoscope import Encoder\n"
        "def net(): return nn.Conv2d(3, 4, 4, 4)\n"
        "def encoder(): return Encoder(net(), size=96, classes=['x'])\n"
        "def number(): return 3\n"
        "def broken(): raise ValueError('wrong\\nthing')\n",
    )
    assert load("py:own_nets:net").preprocess.size == (224, 224)
    assert load("py:own_nets:net").digest == load("py:own_nets:net").digest
    encoder = load("py:own_nets:encoder")
    assert (encoder.preprocess.size, encoder.classes, encoder.source) == ((96, 96), ("x",), "py:own_nets:encoder")
    refused("py:own_nets:number", "returned int")
    refused("py:own_nets:broken", "failed: ValueError: wrong thing", EncoscopeError)
    nets(tmp_path, "needs_more", "import no_such_package_at_all\n")
    refused("py:needs_more:net", "needs no_such_package_at_all, which is not installed", EncoscopeError)


def test_functions_of_ones_own_untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained network never passes for an untrained one."""
    monkeypatch.chdir(tmp_path)
    nets(
        tmp_path,
        "trained_nets",
        "import torch\nfrom torch import nn\n"
        "def plain():\n    made = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4))\n"
        "    nn.init.ones_(made[0].weight)\n    return made\n"
        "def switch(pretrained=True):\n    return plain() if pretrained else nn.Conv2d(3, 4, 4)\n"
        "class Own(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.position = nn.Parameter(torch.ones(3))\n"
        "def own():\n    return Own()\n",
    )
    assert (load("py:trained_nets:plain").module.get_parameter("0.weight") == 1).all()
    untrained = load("py:trained_nets:plain@untrained")
    assert (untrained.module.get_parameter("0.weight") != 1).all()
    assert untrained.digest == load("py:trained_nets:plain", untrained=True).digest
    assert isinstance(load("py:trained_nets:switch@untrained").module, nn.Conv2d)
    assert isinstance(load("py:trained_nets:switch").module, nn.Sequential)
    refused("py:trained_nets:own@untrained", "has no untrained form: no reset_parameters draws .* anew .Own has none.")


def test_hub_folders(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    source = f"hub:{tmp_path}:net"
    trained = load(source, trust=True)
    assert (trained.module.get_parameter("0.weight") == 1).all()
    untrained = load(source, trust=True, untrained=True)
    assert (untrained.module.get_parameter("0.weight") != 1).any()
    file = tmp_path / "weights.pth"
    torch.save(trained.module.state_dict(), file)
    assert load(source, trust=True, checkpoint=file).digest == trained.digest
    assert load(f"hub:{tmp_path}:bare", trust=True).digest == trained.digest
    refused(source, "allow it with --trust")
    refused(f"hub:{tmp_path}:bare", "has no argument 'pretrained'", untrained=True, trust=True)
    refused(f"hub:{tmp_path}:broken", "failed: KeyError", EncoscopeError, trust=True)
    refused(f"hub:{tmp_path}:number", "returned int", trust=True)
    refused(f"hub:{tmp_path}:absent", "Cannot find callable absent", EncoscopeError, trust=True)


VIT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 64}


def saved(folder: Path, module: Any, **processor: Any) -> str:
    module.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"hf:{folder}"


def test_hf_classifier_with_its_labels_and_processor(tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(**VIT, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    module = transformers.ViTForImageClassification(config).eval()
    source = saved(
        tmp_path,
        module,
        size={"shortest_edge": 72},
        crop_size={"height": 64, "width": 64},
        do_center_crop=True,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.5, 0.5, 0.5],
        resample=2,
    )
    encoder = load(source)
    chosen = encoder.preprocess
    assert (chosen.size, chosen.mean, chosen.interpolation) == ((64, 64), (0.1, 0.2, 0.3), "bilinear")
    assert chosen.crop == pytest.approx(64 / 72)
    assert encoder.classes == ("cat", "dog")
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.logits(pixels), module(pixels).logits.detach())
    assert encoder.features(pixels).shape == (2, 32)
    assert load(f"{source}@untrained").digest != encoder.digest

    file = tmp_path / "tuned.pth"
    state = module.state_dict() | {"classifier.weight": torch.randn(5, 32), "classifier.bias": torch.zeros(5)}
    torch.save(state, file)
    tuned = load(source, checkpoint=file)
    assert tuned.logits(pixels).shape == (2, 5) and tuned.classes is None


def test_hf_image_tower_of_an_image_text_model(tmp_path: Path) -> None:
    import transformers

    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=VIT | {"patch_size": 16}, text_config=text)
    ).eval()
    encoder = load(saved(tmp_path, clip))
    pixels = torch.randn(1, 3, 64, 64)
    expected = clip.vision_model(pixels).pooler_output.detach()
    torch.testing.assert_close(encoder.features(pixels), expected)
    assert [info.name for info in encoder.layers if info.role == "block"] == ["encoder.layers.0"]


def test_hf_masked_autoencoder_sees_every_patch(tmp_path: Path) -> None:
    import transformers

    encoder = load(saved(tmp_path, transformers.ViTMAEModel(transformers.ViTMAEConfig(**VIT))))
    block = [info for info in encoder.layers if info.role == "block"][-1]
    assert (block.grid, block.prefix) == ((4, 4), 1)


def test_hf_pooler_saved_without_weights_takes_no_part(tmp_path: Path) -> None:
    import transformers

    module = transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False).eval()
    encoder = load(saved(tmp_path, module))
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(encoder.features(pixels), module(pixels)[0][:, 0].detach())


def test_hf_folder_without_a_configuration(tmp_path: Path, offline: None) -> None:
    refused(f"hf:{tmp_path}", "holds no config.json", MissingError)


def test_openclip_tower_from_a_folder(tmp_path: Path) -> None:
    import open_clip

    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 64, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    source = f"openclip:local-dir:{tmp_path}"
    untrained = load(f"{source}@untrained")
    assert untrained.digest == load(source, untrained=True).digest
    model = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")

    encoder = load(source)
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.features(pixels), model.eval().encode_image(pixels).detach())
    assert (encoder.preprocess.size, encoder.preprocess.mean) == ((64, 64), (0.1, 0.2, 0.3))
    assert encoder.head is None
    with pytest.raises(UsageError, match="no classification head"):
        encoder.logits(pixels)
    whole = load(source, checkpoint=tmp_path / "open_clip_pytorch_model.bin")
    assert whole.digest == encoder.digest


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A tiny network put where the zoo's weights are."""
    import hashlib

    import timm
    from safetensors.torch import save_file

    module = timm.create_model("resnet10t", num_classes=2)
    file = tmp_path / "resnet-caltech101.safetensors"
    halves = {name: value.half() if value.is_floating_point() else value for name, value in module.state_dict().items()}
    save_file(halves, file)
    record = {
        "format": registry.FORMAT,
        "name": "resnet-caltech101",
        "library": "timm",
        "architecture": "resnet10t",
        "kwargs": {"num_classes": 2},
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "preprocess": {"size": [64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop": 0.9},
        "classes": ["cat", "dog"],
        "accuracy": {},
        "parameters": 1,
        "about": "a test",
    }
    (tmp_path / "resnet-caltech101.json").write_text(json.dumps(record))
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    return module


def test_zoo(shipped: nn.Module, tmp_path: Path) -> None:
    encoder = load("zoo:resnet-caltech101")
    assert encoder.classes == ("cat", "dog")
    assert (encoder.preprocess.size, encoder.preprocess.crop) == ((64, 64), 0.9)
    loaded = encoder.module.state_dict()
    for name, value in shipped.state_dict().items():
        assert loaded[name].dtype == value.dtype
        torch.testing.assert_close(loaded[name], value, atol=1e-3, rtol=1e-3)
    assert encoder.logits(PIXELS).shape == (1, 2)
    untrained = load("zoo:resnet-caltech101@untrained")
    assert untrained.classes is None and untrained.digest != encoder.digest
    refused("zoo:vit-caltech101", "not in this installation", MissingError)
    (tmp_path / "resnet-caltech101.safetensors").write_bytes(b"other")
    refused("zoo:resnet-caltech101", "damaged", EncoscopeError)


def test_import_works_where_torchvisions_operators_do_not() -> None:
    """A fresh interpreter: after ``encoscope.encoder``, torchvision and timm import, whatever this machine's build."""
    code = "import encoscope.encoder, torchvision, timm; print(torchvision.ops.__name__)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "torchvision.ops"), done.stderr
