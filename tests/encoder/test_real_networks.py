"""Real networks of many kinds, random weights: observing changes nothing, and each layer is the same alone as with all.

Eight run in any test run, all of them with ``pytest -m ''``, as in ``.ci/run``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from encoscope.encoder import Encoder


def timm(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=7, **arguments)

    return make


def torchvision(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, num_classes=7, **arguments)

    return make


def hf(kind: str, **arguments: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{kind}Config")(num_labels=7, **arguments)
        return getattr(transformers, f"{kind}ForImageClassification")(config)

    return make


PYRAMID = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 2, 1]}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm:resnet18": (timm("resnet18"), 64),
    "timm:densenet121": (timm("densenet121", block_config=(2, 2, 2, 2)), 64),
    "timm:mobilenetv3_small_100": (timm("mobilenetv3_small_100"), 64),
    "timm:resnetv2_50": (timm("resnetv2_50", layers=(1, 1, 1, 1)), 64),
    "timm:mvitv2_tiny": (timm("mvitv2_tiny", img_size=64), 64),
    "timm:hiera_tiny_224": (timm("hiera_tiny_224", img_size=64), 64),
    "timm:pvt_v2_b0": (timm("pvt_v2_b0"), 64),
    "timm:mobilevit_xxs": (timm("mobilevit_xxs"), 64),
    "timm:edgenext_xx_small": (timm("edgenext_xx_small", depths=(1, 1, 2, 1)), 64),
    "timm:coatnet_nano_rw_224": (timm("coatnet_nano_rw_224", img_size=64), 64),
    "timm:levit_128s": (timm("levit_128s", img_size=64, depth=(1, 2, 1)), 64),
    "timm:xcit_nano_12_p16_224": (timm("xcit_nano_12_p16_224", img_size=64, depth=2), 64),
    "timm:cait_xxs24_224": (timm("cait_xxs24_224", img_size=64, depth=2), 64),
    "timm:crossvit_9_240": (timm("crossvit_9_240", img_size=120), 120),
    "timm:twins_pcpvt_small": (timm("twins_pcpvt_small", img_size=64, depths=(1, 1, 1, 1)), 64),
    "timm:efficientformerv2_s0": (timm("efficientformerv2_s0", img_size=64), 64),
    "timm:fastvit_t8": (timm("fastvit_t8"), 64),
    "timm:repvgg_a0": (timm("repvgg_a0"), 64),
    "timm:dla34": (timm("dla34"), 64),
    "timm:hrnet_w18_small": (timm("hrnet_w18_small"), 64),
    "timm:nfnet_l0": (timm("nfnet_l0"), 64),
    "timm:mambaout_femto": (timm("mambaout_femto", depths=(1, 1, 2, 1)), 64),
    "timm:swinv2_cr_tiny_ns_224": (timm("swinv2_cr_tiny_ns_224", img_size=64, depths=(1, 1, 2, 1)), 64),
    "timm:visformer_tiny": (timm("visformer_tiny", img_size=64), 64),
    "timm:coat_tiny": (timm("coat_tiny", img_size=64, parallel_depth=2), 64),
    "timm:nest_tiny": (timm("nest_tiny", img_size=64), 64),
    "timm:gcvit_xxtiny": (timm("gcvit_xxtiny", img_size=64), 64),
    "timm:davit_tiny": (timm("davit_tiny", depths=(1, 1, 1, 1)), 64),
    "timm:focalnet_tiny_srf": (timm("focalnet_tiny_srf"), 64),
    "timm:maxvit_rmlp_pico_rw_256": (timm("maxvit_rmlp_pico_rw_256", img_size=64), 64),
    "torchvision:squeezenet1_1": (torchvision("squeezenet1_1"), 64),
    "torchvision:googlenet": (torchvision("googlenet", init_weights=False), 64),
    "torchvision:inception_v3": (torchvision("inception_v3", init_weights=False), 96),
    "torchvision:mnasnet0_5": (torchvision("mnasnet0_5"), 64),
    "torchvision:shufflenet_v2_x0_5": (torchvision("shufflenet_v2_x0_5"), 64),
    "torchvision:vit_b_32": (torchvision("vit_b_32", image_size=96), 96),
    "torchvision:swin_t": (torchvision("swin_t"), 64),
    "torchvision:alexnet": (torchvision("alexnet"), 64),
    "hf:segformer": (
        hf("Segformer", hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]),
        64,
    ),
    "hf:poolformer": (hf("PoolFormer", hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 2, 1]), 64),
    "hf:mobilevit": (
        hf("MobileViT", image_size=64, hidden_sizes=[24, 32, 48], neck_hidden_sizes=[8, 16, 16, 24, 32, 48, 64]),
        64,
    ),
    "hf:levit": (hf("Levit", image_size=64, hidden_sizes=[32, 48, 64], depths=[1, 1, 1], key_dim=[8, 8, 8]), 64),
    "hf:cvt": (hf("Cvt", embed_dim=[8, 16, 32], num_heads=[1, 2, 4], depth=[1, 2, 3]), 64),
    "hf:pvt": (
        hf("Pvt", image_size=64, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 8]),
        64,
    ),
    "hf:focalnet": (
        hf("FocalNet", image_size=64, embed_dim=16, depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 64, 128]),
        64,
    ),
}
ALWAYS = (
    "timm:resnet18",
    "timm:mobilenetv3_small_100",
    "timm:pvt_v2_b0",
    "timm:coat_tiny",
    "timm:hiera_tiny_224",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:vit_b_32",
    "hf:cvt",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.every_network) for name in NETWORKS]
)
def test_observing_changes_nothing(name: str) -> None:
    build, size = NETWORKS[name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own
        torch.manual_seed(0)
        encoder = Encoder(build().eval(), size=size, source=name)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = encoder.module(pixels)
    own = output if isinstance(output, torch.Tensor) else output.logits
    names = [info.name for info in encoder.layers]
    assert len(names) > 3
    assert torch.equal(encoder.logits(pixels), own)
    together = encoder.observe(pixels, names, logits=True)
    assert torch.equal(together.logits, own)
    for layer in names:
        alone = encoder.activations(pixels, layer)[layer]
        assert torch.equal(alone.maps, together.activations[layer].maps), layer
        assert len(alone.maps) == 1
    assert all(encoder.layer(layer).role in ("stage", "block") for layer in encoder.depths)


def test_the_default_of_a_block_with_several_maps_is_its_own() -> None:
    """CoaT's parallel blocks give a map of each scale, and their MLPs are branches inside."""
    build, size = NETWORKS["timm:coat_tiny"]
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(build().eval(), size=size)
    grids = {info.name: info.grid for info in encoder.layers if info.role == "stage"}
    assert grids == {f"parallel_blocks.1#{index}": (side, side) for index, side in enumerate((16, 8, 4, 2))}
    assert {encoder.layer(name).prefix for name in grids} == {1}
