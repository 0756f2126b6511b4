from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from encoscope.encoder import Encoder, load
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance import METHODS, choose_method, compute_channel_relevance, compute_relevance, make_attributor
from encoscope.relevance.modes import DetachedMode
from encoscope.units import direction_unit, measure_units, parse_unit


def noise(batch, size, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 7, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 4),
    ).eval()


class Functional(nn.Module):
    """The same network as ``plain``, its ReLUs functions, one of them in place."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(part for part in parts if not isinstance(part, nn.ReLU))

    def forward(self, x):
        first, norm, second, third, pool, flat, head = self.parts
        x = torch.relu(norm(first(x)))
        x = second(x)
        x.relu_()
        return head(flat(pool(nn.functional.relu(third(x), inplace=True))))


@pytest.fixture(scope="module")
def zoo():
    return load("zoo:resnet-caltech101", device="cpu")


def autograd(module, images, layer, value):
    """The layer's output and the gradient of a value with respect to it, by the network cut in two."""
    taken = module[: layer + 1](images).detach().requires_grad_()
    return taken.detach(), torch.autograd.grad(value(module[layer + 1 :], taken), taken)[0]


def test_gradient_times_input_is_autograds_on_a_plain_network():
    module, images = plain(), noise(3, 16)
    encoder = Encoder(module, size=16)
    found = compute_relevance(encoder, images, ["5:2", "5:4", "class:1"], ["0", "3"], "gradient-input")
    for layer in (0, 3):
        for image, value in enumerate(
            (
                lambda tail, x, stop=5 - layer: tail[:stop](x)[:, 2].mean(),
                lambda tail, x, stop=5 - layer: tail[:stop](x)[:, 4].mean(),
                lambda tail, x: tail(x)[:, 1].sum(),
            )
        ):
            maps, gradient = autograd(module, images[image : image + 1], layer, value)
            torch.testing.assert_close(found[str(layer)][image : image + 1], maps * gradient, rtol=1e-5, atol=1e-7)


def test_guided_backprop_is_captums():
    from captum.attr import GuidedBackprop

    module, images = plain(), noise(3, 16)
    found = compute_relevance(Encoder(module, size=16), images, "class:1", ["1", "2", "3"], "guided-backprop")
    for layer in (1, 2, 3):
        taken = module[: layer + 1](images).detach().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum tells that it sets hooks
            expected = GuidedBackprop(module[layer + 1 :]).attribute(taken, target=1)
        torch.testing.assert_close(found[str(layer)], expected.detach(), rtol=1e-5, atol=1e-7)
    plainly = autograd(module, images, 1, lambda tail, x: tail(x)[:, 1].sum())[1]
    assert not torch.allclose(found["1"], plainly)


def test_guided_backprop_sees_relus_that_are_functions():
    module, images = plain(), noise(2, 16)
    written = Functional(module).eval()
    expected = compute_relevance(Encoder(module, size=16), images, "class:3", ["0", "3"], "guided-backprop")
    found = compute_relevance(Encoder(written, size=16), images, "class:3", ["parts.0", "parts.2"], "guided-backprop")
    torch.testing.assert_close(found["parts.0"], expected["0"])
    torch.testing.assert_close(found["parts.2"], expected["3"])


RECTIFIERS = {
    "ReLU6": (nn.ReLU6, lambda x: ((x > 0) & (x < 6)).float()),
    "Hardtanh": (lambda: nn.Hardtanh(0, 2), lambda x: ((x > 0) & (x < 2)).float()),
    "Hardswish": (nn.Hardswish, lambda x: torch.where(x <= -3, 0, torch.where(x >= 3, 1, (2 * x + 3) / 6))),
    "SiLU": (nn.SiLU, lambda x: x.sigmoid() * (1 + x * (1 - x.sigmoid()))),
    "GELU": (nn.GELU, lambda x: torch.special.ndtr(x) + x * torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5),
    "LeakyReLU": (nn.LeakyReLU, lambda x: torch.where(x > 0, 1, 0.01)),
    "ELU": (nn.ELU, lambda x: torch.where(x > 0, torch.ones_like(x), x.exp())),
    "a clamp": (lambda: Clamp(), lambda x: (x > 0).float()),
}


class Clamp(nn.Module):
    def forward(self, x):
        return x.clamp(min=0)


@pytest.mark.parametrize("kind", RECTIFIERS)
@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_through_capped_and_smooth_rectifiers_is_the_literal_one(kind, inplace):
    make, derivative = RECTIFIERS[kind]
    torch.manual_seed(0)
    rectifier = make()
    if inplace and not hasattr(rectifier, "inplace"):
        pytest.skip("this module has no form in place")
    if inplace:
        rectifier.inplace = True
    module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 1), rectifier, nn.Conv2d(6, 2, 1))
    images = 5 * noise(2, 4)
    relevance = compute_relevance(Encoder(module, size=4), images, "3:1", ["0"], "guided-backprop")["0"]
    with torch.no_grad():
        hidden = module[1](module[0](images))
        above = module[3].weight[1, :, 0, 0] / 16  # of the mean over 4 x 4
        guided = above.clamp(min=0)[None, :, None, None] * derivative(hidden)
        expected = torch.einsum("bohw,oi->bihw", guided, module[1].weight[:, :, 0, 0])
    assert expected.abs().sum() > 0
    torch.testing.assert_close(relevance, expected, rtol=1e-4, atol=1e-7)


def test_guided_backprop_reaches_networks_without_relus():
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=3)
    encoder = Encoder(vit, size=32)
    guided, plainly = (
        compute_relevance(encoder, noise(1, 32), "class:1", ["blocks.0"], method)["blocks.0"]
        for method in ("guided-backprop", "gradient-input")
    )
    assert guided.abs().sum() > 0 and not torch.allclose(guided, plainly)


def test_guided_backprop_without_rectifiers_is_refused():
    encoder = Encoder(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 2, 1)), size=8)
    for use in (compute_relevance, lambda encoder, _, *rest: make_attributor(encoder, *rest)):
        with pytest.raises(UsageError, match=r"needs ReLUs or their smooth forms.*calls none.*gradient-input"):
            use(encoder, noise(1, 8), "2:1", ["0"], "guided-backprop")


def test_gradient_times_input_is_conserved_through_norms_and_attention():
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    module = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=3,
        num_heads=2,
        num_classes=5,
        class_token=False,
        global_pool="avg",
        act_layer=nn.Identity,
    )
    with torch.no_grad():  # with no bias and no nonlinearity but norms and attention, the logit is all there is
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim > 1:
                parameter.mul_(5)
    encoder, images = Encoder(module, size=32), noise(2, 32)
    found = compute_relevance(encoder, images, "class:2", ["blocks.0", "blocks.1", "blocks.2"], "gradient-input")
    logits = encoder.logits(images)[:, 2]
    assert logits.abs().min() > 1e-3
    for maps in found.values():
        assert maps.shape == (2, 16, 4, 4)
        torch.testing.assert_close(maps.sum((1, 2, 3)), logits, rtol=1e-3, atol=1e-5)


class Written(nn.Module):
    """Attention with its softmax written out."""

    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.transpose(1, 2)).softmax(-1) @ v


class Packed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    "part",
    [
        lambda: nn.LayerNorm(8),
        lambda: nn.GroupNorm(1, 5),
        lambda: nn.RMSNorm(8),
        lambda: Written(8),
        lambda: Packed(8),
    ],
    ids=["layer norm", "group norm", "RMS norm", "written attention", "packed attention"],
)
def test_with_statistics_held_the_value_stays_and_is_its_gradient_times_input(part):
    torch.manual_seed(0)
    module = part().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.uniform_(0.5, 2) if parameter.ndim == 1 else parameter.mul_(2)
    x = torch.randn(3, 5, 8, requires_grad=True)
    with DetachedMode():
        held = module(x)
    torch.testing.assert_close(held, module(x), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(held.square().sum() / 2, x)  # y is linear in x without its biases
    torch.testing.assert_close((gradient * x).sum(), held.square().sum(), rtol=1e-4, atol=1e-4)
    (plainly,) = torch.autograd.grad(module(x).square().sum() / 2, x)
    assert not torch.allclose(plainly, gradient)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", ["all", "argmax"])
def test_every_image_is_as_if_alone_and_a_recorded_pass_gives_the_same(zoo, method, start):
    images = noise(3, 64)
    direction = torch.rand(512, generator=torch.Generator().manual_seed(3))
    units = ["layer4:3", direction_unit("layer4", direction, "mine"), "layer3:5"]
    layers = ["conv1", "layer2"]
    attributor = make_attributor(zoo, units, layers, method, start=start)
    together = attributor(images)
    with attributor.recording():
        zoo.observe(images.clone().requires_grad_(), gradients=True, **attributor.needs)
    recorded = attributor.relevance()
    for name in layers:
        torch.testing.assert_close(recorded[name], together[name], rtol=1e-6, atol=0)
        assert not recorded[name].requires_grad
    for row, unit in enumerate(units):
        alone = compute_relevance(zoo, images[row : row + 1], unit, layers, method, start=start)
        for name, maps in alone.items():
            assert maps.abs().sum() > 0
            torch.testing.assert_close(together[name][row], maps[0], rtol=1e-4, atol=1e-5 * float(maps.abs().max()))


def test_gradients_of_a_transformers_class_token():
    import timm

    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=48, num_classes=3)
    encoder, images = Encoder(module, size=48), noise(2, 48)
    found = compute_relevance(encoder, images, "blocks.1@cls:4", ["blocks.0", "patch_embed"], "gradient-input")
    assert {name: tuple(maps.shape) for name, maps in found.items()} == dict.fromkeys(found, (2, 192, 3, 3))
    assert all(maps.abs().sum() > 0 for maps in found.values())


@pytest.mark.parametrize("method", [*METHODS, "callable"])
def test_nothing_is_left_behind(method):
    module = plain().train()
    module[2].eval()
    module[0].weight.requires_grad_(False)
    encoder = Encoder(module, size=16)

    def state():
        hooked = sum(
            len(child._forward_hooks) + len(child._forward_pre_hooks) + len(child._backward_hooks)
            for child in module.modules()
        )
        flags = [child.training for child in module.modules()]
        return hooked, flags, [p.requires_grad for p in module.parameters()], [p.grad for p in module.parameters()]

    before, weights = state(), [value.clone() for value in module.state_dict().values()]
    how = (lambda _e, pixels, _u, _l: {"0": torch.ones(len(pixels), 8, 16, 16)}) if method == "callable" else method
    attributor = make_attributor(encoder, "5:2", ["0"], how)
    attributor(noise(2, 16))
    with pytest.raises(RuntimeError, match="mine"), attributor.recording():
        raise RuntimeError("mine")
    assert state() == before and before[0] == 0
    assert all(torch.equal(a, b) for a, b in zip(weights, module.state_dict().values(), strict=True))
    assert torch.overrides._get_current_function_mode_stack() == []


def test_anyones_attribution_is_plugged_in_and_checked():
    from captum.attr import LayerGradCam

    module, images = plain(), noise(3, 16)
    encoder = Encoder(module, size=16)
    called = []

    def gradcam(encoder, pixels, unit, layers):
        called.append((unit.text, len(pixels)))
        found = {}
        for name in layers:
            layer = encoder.module.get_submodule(name)
            maps = LayerGradCam(encoder.module, layer).attribute(pixels, target=unit.index)
            found[name] = maps.expand(-1, encoder.layer(name).channels, -1, -1)
        return found

    found = compute_relevance(encoder, images, ["class:1", "class:2", "class:1"], ["3"], gradcam)["3"]
    assert called == [("class:1", 2), ("class:2", 1)]
    expected = [LayerGradCam(module, module[3]).attribute(images[i : i + 1], target=t) for i, t in enumerate((1, 2, 1))]
    torch.testing.assert_close(found, torch.cat(expected).detach().expand(-1, 6, -1, -1))
    assert not found.requires_grad
    with pytest.raises(UsageError, match=r"gave \(3, 1, 8, 8\) for layer '3', whose maps are \(3, 6, 8, 8\)"):
        compute_relevance(encoder, images, "class:1", ["3"], lambda _e, x, _u, _l: {"3": torch.zeros(len(x), 1, 8, 8)})
    with pytest.raises(UsageError, match=r"no relevance for layer '3' \(it gave 4\)"):
        compute_relevance(encoder, images, "class:1", ["3"], lambda _e, x, _u, _l: {"4": torch.zeros(len(x), 1, 8, 8)})


def test_wrong_arguments_say_what_to_do(zoo):
    image = noise(1, 64)
    with pytest.raises(UsageError, match=r"unknown relevance method 'lpr' \(nearest: lrp\)"):
        compute_relevance(zoo, image, "layer4:1", "layer1", "lpr")
    with pytest.raises(UsageError, match="layer 'layer4' comes after layer3:1"):
        compute_relevance(zoo, image, ["layer3:1"], ["layer1", "layer4"])
    with pytest.raises(UsageError, match=r"unknown layer 'layer9'"):
        compute_relevance(zoo, image, "layer4:1", ["layer9"])
    with pytest.raises(UsageError, match="out of range"):
        compute_relevance(zoo, image, "layer4:512", ["layer1"])
    with pytest.raises(UsageError, match="2 units were given for 1 images"):
        compute_relevance(zoo, image, ["layer4:1", "layer4:2"], ["layer1"])
    with pytest.raises(UsageError, match="no layers were given"):
        compute_relevance(zoo, image, "layer4:1", [])
    with pytest.raises(UsageError, match="no units were given"):
        compute_relevance(zoo, image, [], ["layer1"])
    with pytest.raises(UsageError, match="class:1 has no positions"):
        compute_relevance(zoo, image, "class:1", ["layer1"], start="argmax")


class Branches(nn.Module):
    """Two branches of which only one goes on to the output of the first."""

    def __init__(self):
        super().__init__()
        self.first, self.side, self.main = (nn.Conv2d(width, 4, 3, padding=1) for width in (3, 3, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        side, main = self.side(x), self.main(self.first(x).relu())
        return self.head(main.mean((2, 3))) + 0 * side.detach().mean()


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_the_unit_is_not_computed_from_is_an_error(method):
    torch.manual_seed(0)
    encoder = Encoder(Branches(), size=8)
    with pytest.raises(EncoscopeError, match=r"no relevance reaches layer 'side' from main:1|gives no gradient"):
        compute_relevance(encoder, noise(1, 8), "main:1", ["side"], method)


def test_the_method_for_a_network_is_found_by_trying_it(zoo):
    import timm

    assert choose_method(zoo) == "lrp"
    networks: list[tuple[str, dict[str, Any]]] = [
        ("densenet121", {"block_config": (2, 2), "growth_rate": 8}),
        ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32}),
    ]
    for name, settings in networks:
        module = timm.create_model(name, num_classes=3, **settings)
        assert choose_method(Encoder(module, size=32)) == "lrp"
    assert choose_method(Encoder(nn.Sequential(nn.Conv2d(3, 4, 1), Sorting(), nn.Conv2d(4, 2, 1)), size=8)) == (
        "gradient-input"
    )


class Sorting(nn.Module):
    def forward(self, x):
        return x.sort(1).values


def test_the_channels_that_matter_to_a_class(zoo, tmp_path, caplog):
    images = noise(5, 64)
    found = compute_channel_relevance(zoo, images, "class:9", batch_size=2)
    maps = compute_relevance(zoo, images, "class:9", ["layer4"])["layer4"]
    assert found.shape == (512,)
    torch.testing.assert_close(found, maps.sum((2, 3)).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        found.sum(), measure_units(zoo, images, [parse_unit("class:9", zoo)])[:, 0].mean(), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        compute_channel_relevance(zoo, images, "class:9", batch_size=5), found, rtol=1e-5, atol=1e-7
    )
    assert (
        compute_channel_relevance(zoo, images, "layer3:1").shape
        == zoo.activations(images[:1], "layer2")["layer2"].maps.shape[1:2]
    )

    values = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    for index, value in enumerate(values):
        Image.fromarray(value).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING, "encoscope"):
        from_files = compute_channel_relevance(zoo, tmp_path, "class:9")
    assert "broken.png" in caplog.text
    pixels = zoo.prepare(sorted(tmp_path.glob("[01].png"))).pixels
    torch.testing.assert_close(from_files, compute_channel_relevance(zoo, pixels, "class:9"), rtol=1e-5, atol=1e-7)
    with pytest.raises(UsageError, match="no image"):
        compute_channel_relevance(zoo, tmp_path / "broken.png", "class:9")
    with pytest.raises(UsageError, match="no stage or block comes before conv1:1"):
        compute_channel_relevance(zoo, images, "conv1:1")
