"""How a network's images are prepared: as its library does it, as the user states it, or assumed with a word."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from encoscope import results
from encoscope.encoder import Encoder, as_encoder, load, untrained_copy
from encoscope.encoder.sources.timm import read_timm_preprocess
from encoscope.encoder.sources.torchvision import _read_preprocess
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import make_batch, read_image
from encoscope.images.openclip import needs_quick_gelu, read_settings

SHAPES = [(256, 342), (301, 97), (75, 75), (40, 65)]  # (height, width)


def make_noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def assert_equal_pixels(preprocess: Any, transform: Any) -> None:
    for shape in SHAPES:
        ours = make_batch([read_image(make_noise(shape))], preprocess).pixels[0]
        torch.testing.assert_close(ours, transform(Image.fromarray(make_noise(shape))), rtol=0, atol=1e-6)


TIMM = {
    "center": {},
    "center-odd": {"crop_pct": 0.93, "interpolation": "bilinear", "input_size": (3, 65, 65)},
    "center-oblong": {"input_size": (3, 64, 96), "crop_pct": 0.9},
    "squash": {"crop_mode": "squash", "input_size": (3, 64, 80), "crop_pct": 1.0},
    "squash-cropped": {"crop_mode": "squash", "crop_pct": 0.875},
    "border": {"crop_mode": "border", "crop_pct": 1.0, "mean": (0.5, 0.4, 0.3)},
    "border-cropped": {"crop_mode": "border", "crop_pct": 0.8, "input_size": (3, 64, 80), "interpolation": "lanczos"},
    "pixels as they are": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "nearest"},
}


@pytest.mark.parametrize("kind", TIMM)
def test_timms_own_pixels(kind: str) -> None:
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform

    network = nn.Conv2d(3, 4, 4)
    network.pretrained_cfg = {"input_size": (3, 64, 64), "crop_pct": 0.9, **TIMM[kind]}  # type: ignore[assignment]
    own = resolve_data_config(pretrained_cfg=network.pretrained_cfg)
    assert_equal_pixels(read_timm_preprocess(network), create_transform(**own, is_training=False))


def test_timms_naflex_takes_images_of_its_size() -> None:
    import timm

    network = timm.create_model("naflexvit_base_patch16_siglip", embed_dim=32, depth=1, num_heads=2)
    preprocess = read_timm_preprocess(network)
    assert Encoder(network, size=preprocess.size, mean=(0.5,), std=(0.5,)).layers


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_l_16", "efficientnet_b3", "inception_v3"])
def test_torchvisions_own_pixels(name: str) -> None:
    from torchvision import models

    for weights in models.get_model_weights(name):
        assert_equal_pixels(_read_preprocess(weights, nn.Conv2d(3, 4, 4)), weights.transforms())


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 64},
        {"size": 65, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.25,) * 3},
        {"size": (64, 96), "interpolation": "bilinear"},
        {"size": (64, 64), "resize_mode": "squash"},
        {"size": (64, 96), "resize_mode": "squash", "interpolation": "random"},
        {"size": 64, "resize_mode": "longest", "fill_color": 90},
        {"size": (65, 96), "resize_mode": "longest", "interpolation": "bilinear"},
    ],
)
def test_open_clips_own_pixels(settings: dict[str, Any]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    assert_equal_pixels(read_settings(settings), image_transform_v2(PreprocessCfg(**settings), is_train=False))


@pytest.mark.parametrize(
    ("architecture", "tag", "expected"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-16", "metaclip_400m", True),
        ("ViT-L-14", "dfn2b", True),
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32", "", False),
    ],
)
def test_a_tags_activation(architecture: str, tag: str, expected: bool) -> None:
    assert needs_quick_gelu(architecture, tag) is expected


@pytest.fixture
def small_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two architectures of open_clip, small, with tags of their own."""
    import open_clip
    from open_clip import pretrained

    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 64, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    for name in ("Tiny-GELU", "Tiny-SigLIP"):
        config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    registry = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(registry))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path)
    own = {"url": "https://example.invalid/weights.pt"}
    plain = {
        "mean": (0.48, 0.46, 0.41),
        "std": (0.27, 0.26, 0.28),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    siglip = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    tags = {
        "tiny-gelu": {"quick": own | plain | {"quick_gelu": True}, "slow": own | plain},
        "tiny-siglip": {"webli": own | siglip},
    }
    monkeypatch.setattr(
        pretrained,
        "_PRETRAINED",
        pretrained._PRETRAINED
        | {
            key: value
            for name, value in tags.items()
            for key, value in ((name, value), (name.replace("tiny", "Tiny"), value))
        }
        | {"Tiny-GELU": tags["tiny-gelu"], "Tiny-SigLIP": tags["tiny-siglip"]},
    )


def find_activations(module: nn.Module) -> set[str]:
    return {type(child).__name__ for child in module.modules() if "GELU" in type(child).__name__}


def test_open_clips_activation_and_preprocessing_without_its_weights(small_clip: None, tmp_path: Path) -> None:
    assert find_activations(load("openclip:Tiny-GELU/quick@untrained").module) == {"QuickGELU"}
    assert find_activations(load("openclip:Tiny-GELU/slow@untrained").module) == {"GELU"}
    plain = load("openclip:Tiny-GELU@untrained")
    assert find_activations(plain.module) == {"GELU"}
    assert (plain.preprocess.mean, plain.preprocess.resize) == ((0.48, 0.46, 0.41), "short")
    file = tmp_path / "tower.pt"
    torch.save(plain.module.state_dict(), file)
    for source in (
        "openclip:Tiny-SigLIP@untrained",
        f"openclip:Tiny-SigLIP@{file}",
        f"openclip:Tiny-SigLIP/webli@{file}",
    ):
        siglip = load(source)
        chosen = siglip.preprocess
        assert (chosen.size, chosen.mean, chosen.std, chosen.resize) == ((64, 64), (0.5,) * 3, (0.5,) * 3, "squash")
        assert bool(siglip.preprocess_notes) is (source == f"openclip:Tiny-SigLIP@{file}")


@pytest.mark.parametrize("source", ["hf:siglip2@untrained", "hf:siglip2_vision_model@untrained"])
def test_naflex_is_refused_in_a_line(source: str) -> None:
    with pytest.raises(UsageError, match=r"NaFlex.*not supported: use a model of a fixed size"):
        load(source)


VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]},
        {"do_normalize": False},
        {"size": {"height": 96, "width": 96}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
        {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True, "rescale_factor": 1 / 127.5},
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 72}, "crop_size": 64},
        {"feature_extractor_type": "DeiTFeatureExtractor", "size": 72, "crop_size": 64, "resample": 3},
    ],
)
def test_a_saved_processors_own_pixels(settings: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    transformers.ViTModel(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}} | settings))
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    encoder = load(f"hf:{tmp_path}")
    assert encoder.preprocess_notes == ()
    for shape in SHAPES:
        expected = own(images=Image.fromarray(make_noise(shape)), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(encoder.prepare(make_noise(shape)).pixels[0], expected, rtol=0, atol=1e-6)


def test_a_processor_that_is_not_understood_needs_what_the_user_states(tmp_path: Path) -> None:
    import transformers

    transformers.ViTModel(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"image_processor_type": "Owlv2ImageProcessor", "size": {"height": 64, "width": 64}}))
    with pytest.raises(UsageError, match=r"Owlv2ImageProcessor has settings that are not supported"):
        load(f"hf:{tmp_path}")
    stated = load(f"hf:{tmp_path}", mean=(0.5,), std=(0.2,), input_size=64, interpolation="bilinear")
    assert (stated.preprocess.size, stated.preprocess.std) == ((64, 64), (0.2, 0.2, 0.2))
    file.write_text(json.dumps({"image_processor_type": "ProcessorOfNobody"}))
    with pytest.raises(UsageError, match="its image processor ProcessorOfNobody is not known"):
        load(f"hf:{tmp_path}")
    file.write_text("{")
    with pytest.raises(EncoscopeError, match="no valid JSON"):
        load(f"hf:{tmp_path}")


def test_a_model_saved_without_a_processor_says_what_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    transformers.ViTModel(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    encoder = load(f"hf:{tmp_path}")
    [note] = [line for line in warned(caplog) if "prepared" in line]
    assert "ViTImageProcessor's defaults are assumed (64 x 64 pixels, bilinear, mean 0.5" in note
    assert encoder.preprocess_notes == (note,)


@pytest.mark.parametrize(
    ("mean", "std", "match"),
    [
        (
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            "mean is 123.675, 116.28, 103.53.*divide mean and std by 255",
        ),
        ((103.939, 116.779, 123.68), (1, 1, 1), "divide mean and std by 255"),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), "std is 58.395.*divide mean and std by 255"),
        ((127.5,), (127.5,), "divide mean and std by 255"),
        ((-1, 0, 0), (0.5,), "mean is -1, 0, 0: each value is from 0 to 1"),
        ((0.5,), (0.0,), "std is 0: each value is above 0"),
        ((0.5,), (-0.1,), "std is -0.1: each value is above 0"),
        ((float("nan"),), (0.1,), "NaN"),
    ],
)
def test_a_scale_of_255_is_refused_with_the_cure(mean: tuple[float, ...], std: tuple[float, ...], match: str) -> None:
    for make in (
        lambda: Encoder(nn.Conv2d(3, 4, 4), mean=mean, std=std),
        lambda: load("timm:resnet10t@untrained", mean=mean, std=std),
    ):
        with pytest.raises(UsageError, match=match) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_what_is_stated_takes_the_place_of_the_sources_own() -> None:
    encoder = load("timm:resnet10t@untrained", mean=(0.1, 0.2, 0.3), std=(0.5,), input_size=96, interpolation="nearest")
    chosen = encoder.preprocess
    assert (chosen.size, chosen.mean, chosen.std, chosen.interpolation) == (
        (96, 96),
        (0.1, 0.2, 0.3),
        (0.5, 0.5, 0.5),
        "nearest",
    )
    image = make_noise((96, 96))
    expected = (torch.from_numpy(image).permute(2, 0, 1) / 255 - Tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
    resized = make_batch([read_image(image)], load("timm:resnet10t@untrained", input_size=(96, 96)).preprocess)
    assert resized.pixels.shape == (1, 3, 96, 96)
    flat = Encoder(nn.Conv2d(3, 4, 4), size=96, mean=(0.1, 0.2, 0.3), std=(0.5,), interpolation="nearest")
    torch.testing.assert_close(flat.prepare(image).pixels[0], expected)
    record = results.record_model(encoder, ["layer1"]).as_dict()["preprocess"]
    assert record["stated"] == ["mean", "std", "input_size", "interpolation"] and record["mean"] == [0.1, 0.2, 0.3]
    assert encoder.digest != load("timm:resnet10t@untrained").digest
    assert untrained_copy(encoder).preprocess == encoder.preprocess


def test_stated_wrongly() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for 3 channels"),
        ({"input_size": 0}, "input size is from 1"),
        ({"interpolation": "bicubc"}, "unknown interpolation 'bicubc'.*bicubic"),
    ]
    for options, match in wrong:
        with pytest.raises(UsageError, match=match):
            load("timm:resnet10t@untrained", **options)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("source", ["torchvision:resnet18", "timm:resnet10t"])
def test_a_checkpoint_of_unknown_preprocessing_says_so(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    untrained = load(f"{source}@untrained")
    assert warned(caplog) == [] and untrained.preprocess_notes == ()
    file = tmp_path / "weights.pth"
    torch.save(untrained.module.state_dict(), file)
    encoder = load(f"{source}@{file}")
    [note] = warned(caplog)
    assert "nothing says how its images were prepared" in note and "--input-size" in note
    assert results.record_model(encoder, []).as_dict()["preprocess"]["notes"] == [note]
    caplog.clear()
    stated = load(f"{source}@{file}", mean=(0.5,), std=(0.2,), input_size=96, interpolation="bilinear")
    assert warned(caplog) == [] and stated.preprocess_notes == ()


def test_modules_functions_and_hub_folders_say_what_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Encoder(nn.Conv2d(3, 4, 4), mean=(0.5,), std=(0.5,))
    assert warned(caplog) == []
    assert "the usual settings are assumed" in Encoder(nn.Conv2d(3, 4, 4)).preprocess_notes[0]
    assert warned(caplog) == []  # whoever makes an encoder chose its settings; they are recorded
    assert as_encoder(nn.Conv2d(3, 4, 4)).preprocess_notes == tuple(warned(caplog)) != ()
    caplog.clear()
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\nfrom encoscope import Encoder\ndef net(): return nn.Conv2d(3, 4, 4)\n"
    (tmp_path / "plain_nets.py").write_text(
        code + "def encoder(): return Encoder(net(), size=96, mean=(0.5,), std=(0.5,))\n"
    )
    assert load("py:plain_nets:net").preprocess_notes == tuple(warned(caplog)) != ()
    caplog.clear()
    assert load("py:plain_nets:encoder", input_size=64).preprocess.size == (64, 64)
    assert warned(caplog) == []


class Normalizing(nn.Module):
    """A network that prepares pixels itself."""

    def __init__(self, scale: float, shift: float, first: nn.Module | None = None) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift
        self.body = nn.Sequential(first or nn.Identity(), nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.body(pixels * self.scale + self.shift)


@pytest.mark.parametrize(
    ("scale", "shift", "match"),
    [
        (2.0, -1.0, "mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5"),
        (255.0, 0.0, "mean 0, 0, 0, std 0.003922"),
        (1 / 0.225, -0.45 / 0.225, "mean 0.45, 0.45, 0.45, std 0.225"),
    ],
)
def test_networks_that_normalize_inside_are_found(
    scale: float, shift: float, match: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(Normalizing(scale, shift), size=32, mean=(0.5,), std=(0.25,))
    assert [layer.name for layer in encoder.layers if layer.name == "body.1"]
    [note] = warned(caplog)
    assert match in note and "normalized twice" in note and encoder.preprocess_notes == (note,)
    caplog.clear()
    assert Encoder(Normalizing(scale, shift), size=32, mean=(0.0,), std=(1.0,)).layers
    assert warned(caplog) == []
    assert not any(child._forward_pre_hooks for child in encoder.module.modules())


@pytest.mark.parametrize(
    "network",
    [
        Normalizing(1.0, 0.0),
        Normalizing(0.458, -0.03),  # as torchvision's Inception does with normalized pixels
        Normalizing(1.0, 0.0, nn.BatchNorm2d(3)),
        nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 1)),
    ],
)
def test_other_networks_are_not_said_to_normalize(network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    assert Encoder(network.eval(), size=32, channels=3, mean=(0.5,), std=(0.25,)).layers
    assert warned(caplog) == []


def test_each_images_own_mean(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Encoder(Normalizing(1.0, 0.0, nn.InstanceNorm2d(3)), size=32, mean=(0.5,), std=(0.25,))
    assert encoder.layers
    [note] = warned(caplog)
    assert "make no difference" in note


def test_a_detector_normalizes_inside(caplog: pytest.LogCaptureFixture) -> None:
    from torchvision.models import detection

    module = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    encoder = Encoder(module, size=320, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    encoder._note_inner_normalization()
    [note] = warned(caplog)
    assert "mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225" in note
