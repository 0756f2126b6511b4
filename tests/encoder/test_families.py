"""Every family of networks: layers found, roles, grids, prefix tokens, and maps that lie where the image lies."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from encoscope.encoder import Encoder, load

STAGES4 = [(16, 16), (8, 8), (4, 4), (2, 2)]


@dataclass(frozen=True)
class Family:
    """What discovery should find in an untrained network of a family."""

    make: Callable[[], nn.Module]
    size: int = 64
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)
    blocks: str = ""  # the last block's name, where there are no stages
    grid: tuple[int, int] = (4, 4)
    prefix: int = 0
    stem: str | None = None
    stride: int = 32
    resizable: bool = True
    head: bool = True  # whether it ends in a linear layer


def timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, **arguments)

    return make


def maxvit() -> nn.Module:
    from timm.models.maxxvit import MaxxVit, MaxxVitCfg, MaxxVitTransformerCfg

    windows = MaxxVitTransformerCfg(dim_head=8, window_size=(2, 2), grid_size=(2, 2))
    widths, depths, kinds = (8, 16, 32, 64), (1, 1, 2, 1), ("M", "M", "M", "M")
    return MaxxVit(MaxxVitCfg(widths, depths, kinds, stem_width=8, transformer_cfg=windows), img_size=64)


def mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=3, img_size=64, patch_size=16, num_blocks=2, embed_dim=48)


def torchvision(build: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return build(torchvision.models)

    return make


def hf(kind: str, **arguments: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**arguments))

    return make


def open_clip(build: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import open_clip.model

        return build(open_clip.model)

    return make


def stages(*names: str, grids: list[tuple[int, int]] = STAGES4) -> dict[str, tuple[int, int]]:
    return dict(zip(names, grids, strict=True))


def numbered(pattern: str, numbers: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, tuple[int, int]]:
    return stages(*(pattern.format(number) for number in numbers))


VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
HF_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
}
HF_SWIN = {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}
SWIN = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "strict_img_size": False}
PYRAMID = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 2, 1]}
MOBILE = [(32, 32), *STAGES4]

FAMILIES = {
    "resnet": Family(timm("resnet10t"), stages=numbered("layer{}", (1, 2, 3, 4)), stem="conv1"),
    "resnet-tv": Family(torchvision(lambda m: m.resnet18()), stages=numbered("layer{}", (1, 2, 3, 4)), stem="conv1"),
    "resnetv2": Family(  # the last stage as the head reads it: after the final norm and ReLU
        timm("resnetv2_18"), stages=stages("stages.0", "stages.1", "stages.2", "norm"), stem="stem", head=False
    ),
    "convnext": Family(timm("convnext_atto", depths=(1, 1, 2, 1)), stages=numbered("stages.{}"), stem="stem"),
    "convnext-tv": Family(
        torchvision(
            lambda m: m.ConvNeXt(
                [m.convnext.CNBlockConfig(8 * 2**i, 16 * 2**i if i < 3 else None, 1) for i in range(4)]
            )
        ),
        stages=numbered("features.{}", (1, 3, 5, 7)),
        stem="features.0",
    ),
    "densenet": Family(
        timm("densenet121", block_config=(2, 2, 2, 2), growth_rate=8),
        stages=stages(*(f"features.denseblock{number}" for number in (1, 2, 3)), "features.norm5"),
        stem="features.conv0",
    ),
    "efficientnet": Family(
        timm("efficientnet_lite0"),
        stages=stages("blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2", grids=MOBILE),
        stem="conv_stem",
    ),
    "efficientnet-tv": Family(
        torchvision(lambda m: m.mobilenet_v2(width_mult=0.25)),
        stages=stages("features.1", "features.3", "features.6", "features.13", "features.18", grids=MOBILE),
        stem="features.0",
    ),
    "mobilenet": Family(timm("mobilenetv3_small_050"), stages=numbered("blocks.{}", (0, 1, 3, 5)), stem="conv_stem"),
    "regnet": Family(timm("regnetx_002"), stages=numbered("s{}", (1, 2, 3, 4)), stem="stem"),
    "vgg": Family(
        timm("vgg11", num_classes=3, mlp_ratio=0.01),
        stages=stages(
            *(f"features.{i}" for i in (1, 4, 9, 14, 19)), grids=[(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]
        ),
        stem="features.0",
        stride=16,
    ),
    "alexnet": Family(
        torchvision(lambda m: m.alexnet(num_classes=5)),
        stages=stages("features.1", "features.4", "features.11", grids=[(15, 15), (7, 7), (3, 3)]),
        stem="features.0",
    ),
    "swin": Family(
        timm("swin_tiny_patch4_window7_224", window_size=4, **SWIN), stages=numbered("layers.{}"), stem="patch_embed"
    ),
    "swin-v2": Family(
        timm("swinv2_tiny_window8_256", window_size=4, **SWIN), stages=numbered("layers.{}"), stem="patch_embed"
    ),
    "swin-tv": Family(
        torchvision(lambda m: m.SwinTransformer([4, 4], 16, [1, 1, 2, 1], [1, 2, 2, 4], [4, 4])),
        stages=numbered("features.{}", (1, 3, 5, 7)),
        stem="features.0",
    ),
    "swin-hf": Family(
        hf("Swin", **HF_SWIN),
        stages=stages(*(f"encoder.layers.{i}" for i in ("0.blocks.0", "1.blocks.0", "2.blocks.1", "3"))),
        stem="embeddings",
        head=False,
    ),
    "vit": Family(
        timm("vit_tiny_patch16_224", img_size=64, **VIT), blocks="blocks.1", prefix=1, stem="patch_embed", stride=16
    ),
    "vit-tv": Family(
        torchvision(lambda m: m.VisionTransformer(64, 16, 2, 2, 32, 64)),
        blocks="encoder.layers.encoder_layer_1",
        prefix=1,
        stem="conv_proj",
        stride=16,
        resizable=False,
    ),
    "vit-hf": Family(hf("ViT", **HF_VIT), blocks="layers.1", prefix=1, stem="embeddings", stride=16, head=False),
    "vit-hybrid": Family(
        timm("vit_tiny_r_s16_p8_224", img_size=128, **VIT),
        size=128,
        blocks="blocks.1",
        prefix=1,
        stem="patch_embed",
    ),
    "deit-distilled": Family(
        timm("deit_tiny_distilled_patch16_224", img_size=64, **VIT),
        blocks="blocks.1",
        prefix=2,
        stem="patch_embed",
        stride=16,
        head=False,
    ),
    "dinov2-registers": Family(
        timm("vit_small_patch14_reg4_dinov2", img_size=56, **VIT),
        size=56,
        blocks="blocks.1",
        prefix=5,
        stem="patch_embed",
        stride=14,
        head=False,
    ),
    "dinov2-hf": Family(
        hf("Dinov2", **HF_VIT, patch_size=16),
        blocks="encoder.layer.1",
        prefix=1,
        stem="embeddings",
        stride=16,
        head=False,
    ),
    "dinov2-registers-hf": Family(
        hf("Dinov2WithRegisters", **HF_VIT, patch_size=16),
        blocks="encoder.layer.1",
        prefix=5,
        stem="embeddings",
        stride=16,
        head=False,
    ),
    "dinov3": Family(
        timm("vit_small_patch16_dinov3", img_size=64, **VIT),
        blocks="blocks.1",
        prefix=5,
        stem="patch_embed",
        stride=16,
        head=False,
    ),
    "dinov3-hf": Family(
        hf("DINOv3ViT", **HF_VIT, num_register_tokens=4),
        blocks="model.layer.1",
        prefix=5,
        stem="embeddings",
        stride=16,
        head=False,
    ),
    "dinov3-convnext-hf": Family(hf("DINOv3ConvNext", **PYRAMID), stages=numbered("model.stages.{}"), head=False),
    "eva": Family(
        timm("eva02_tiny_patch14_224", img_size=56, num_classes=3, **VIT),
        size=56,
        blocks="blocks.1",
        prefix=1,
        stem="patch_embed",
        stride=14,
    ),
    "hiera": Family(
        timm("hiera_tiny_224", img_size=64, embed_dim=16, stages=(1, 1, 2, 1), mask_unit_size=(8, 8)),
        stages=numbered("blocks.{}", (0, 1, 3, 4)),
        stem="patch_embed",
        resizable=False,
    ),
    "hiera-hf": Family(
        hf("Hiera", image_size=[64, 64], embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]),
        stages=numbered("encoder.stages.{}"),
        stem="embeddings",
        resizable=False,
        head=False,
    ),
    "maxvit": Family(
        maxvit,
        stages=numbered("stages.{}"),
        stem="stem",
        resizable=False,
    ),
    "mixer": Family(
        mixer,
        blocks="blocks.1",
        stem="stem",
        stride=16,
        resizable=False,
    ),
    "resnet-hf": Family(
        hf("ResNet", embedding_size=8, **PYRAMID), stages=numbered("encoder.stages.{}"), stem="embedder", head=False
    ),
    "convnext-hf": Family(
        hf("ConvNext", **PYRAMID), stages=numbered("encoder.stages.{}"), stem="embeddings", head=False
    ),
    "clip-hf": Family(
        hf("CLIPVision", **HF_VIT, patch_size=16),
        blocks="encoder.layers.1",
        prefix=1,
        stem="embeddings",
        stride=16,
        head=False,
    ),
    "siglip-hf": Family(
        hf("SiglipVision", **HF_VIT, patch_size=16), blocks="encoder.layers.1", stem="embeddings", stride=16, head=False
    ),
    "clip-vit": Family(
        open_clip(
            lambda m: m._build_vision_tower(
                16, m.CLIPVisionCfg(layers=2, width=64, patch_size=16, image_size=64, head_width=16)
            )
        ),
        blocks="transformer.resblocks.1",
        prefix=1,
        stem="conv1",
        stride=16,
        resizable=False,
        head=False,
    ),
    "clip-resnet": Family(
        open_clip(lambda m: m._build_vision_tower(16, m.CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64))),
        stages=numbered("layer{}", (1, 2, 3, 4)),
        stem="conv1",
        head=False,
    ),
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Encoder]:
    family = FAMILIES[request.param]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        torch.manual_seed(0)
        module = family.make()
        if isinstance(
            save := getattr(module, "save_pretrained", None), Callable
        ):  # the way transformers' networks come
            folder = tmp_path_factory.mktemp(request.param)
            save(folder)
            processor = {"size": {"shortest_edge": family.size}, "crop_size": family.size}
            (folder / "preprocessor_config.json").write_text(json.dumps(processor))
            return family, load(f"hf:{folder}")
    return family, Encoder(module, size=family.size, source=request.param)


def test_layers_and_roles(case: tuple[Family, Encoder]) -> None:
    family, encoder = case
    found = {info.name: info.grid for info in encoder.layers if info.role == "stage"}
    assert found == family.stages
    assert list(found) == list(family.stages)  # in the network's order
    assert [info.name for info in encoder.layers if info.role == "stem"] == ([family.stem] if family.stem else [])
    if family.blocks:
        blocks = [info for info in encoder.layers if info.role == "block"]
        assert blocks[-1].name == family.blocks
        assert len(blocks) == 2
        assert {(info.grid, info.prefix, info.kind) for info in blocks} == {(family.grid, family.prefix, "tokens")}
    assert encoder.stride == family.stride
    assert encoder.resizable is family.resizable
    assert (encoder.head is not None) is family.head


def test_activations_lie_where_the_image_lies(case: tuple[Family, Encoder]) -> None:
    """A change in the upper right quarter of the image changes that quarter of the map most: no layout is mixed up."""
    family, encoder = case
    names = list(family.stages) or [family.blocks]
    side, half = family.size, family.size // 2
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    pixels[1, :, :half, half:] += 2
    found = encoder.activations(pixels, names[::-1])
    assert list(found) == names
    for name, activation in found.items():
        info = encoder.layer(name)
        assert activation.maps.shape == (2, info.channels, *info.grid)
        assert (activation.prefix is None) == (info.prefix == 0)
        if activation.prefix is not None:
            assert activation.prefix.shape == (2, info.prefix, info.channels)
        if min(info.grid) < 4:
            continue  # the receptive field of every cell is the whole image
        change = (activation.maps[1] - activation.maps[0]).norm(dim=0)
        rows, columns = (cells // 2 for cells in info.grid)
        upper, lower = change[:rows], change[-rows:]
        quarters = [
            part.sum() for part in (upper[:, -columns:], upper[:, :columns], lower[:, -columns:], lower[:, :columns])
        ]
        assert quarters[0] > max(quarters[1:]), name


def test_oblong_images(case: tuple[Family, Encoder]) -> None:
    family, encoder = case
    if not encoder.resizable:  # the whole image, squashed
        whole = encoder.prepare(np.zeros((30, 50, 3), np.uint8), geometry="whole")
        assert whole.pixels.shape[2:] == (family.size, family.size)
        return
    last = (list(family.stages) or [family.blocks])[-1]
    height, width = family.size + encoder.stride, family.size + 2 * encoder.stride
    rows, columns = encoder.activations(torch.zeros(1, 3, height, width), last)[last].maps.shape[2:]
    own = encoder.layer(last).grid
    assert rows > own[0] and abs(rows - own[0] * height / family.size) <= 1
    assert columns > rows and abs(columns - own[1] * width / family.size) <= 1


def test_nothing_is_left_behind(case: tuple[Family, Encoder]) -> None:
    family, encoder = case
    encoder.activations(torch.zeros(1, 3, family.size, family.size), [encoder.layers[0].name])
    for child in encoder.module.modules():
        assert not child._forward_hooks and not child._forward_pre_hooks
    assert encoder.module.training == next(iter(encoder.module.children())).training
