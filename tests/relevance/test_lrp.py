from __future__ import annotations

import pytest
import torch
from torch import nn

from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.relevance import compute_relevance, make_attributor
from encoscope.relevance.targets import place_at_best_position
from encoscope.units import direction_unit
from oracles import lrp as oracle

LAYERS = ["conv1", "layer1", "layer2", "layer3"]


def noise(batch, size, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def lived_in(module, seed=0):
    """An untrained network whose batch norms have scales, shifts and statistics of their own, as trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                for values, low, high in (
                    (child.weight, 0.5, 1.5),
                    (child.bias, -0.3, 0.3),
                    (child.running_mean, -0.3, 0.3),
                    (child.running_var, 0.5, 1.5),
                ):
                    assert values is not None
                    values.uniform_(low, high, generator=generator)
    return module.eval()


def torchvision_resnet(kind):
    from torchvision.models import resnet

    torch.manual_seed(0)
    return lived_in(resnet.ResNet(getattr(resnet, kind), [1, 2, 1, 1], num_classes=5))


def timm_resnet(kind, **settings):
    import timm

    torch.manual_seed(0)
    return lived_in(
        timm.models.resnet.ResNet(getattr(timm.models.resnet, kind), (1, 1, 1, 1), num_classes=5, **settings)
    )


NETWORKS = {
    "torchvision, BasicBlock": lambda: torchvision_resnet("BasicBlock"),
    "torchvision, Bottleneck": lambda: torchvision_resnet("Bottleneck"),
    "timm, BasicBlock, deep stem, average downsampling": lambda: timm_resnet(
        "BasicBlock", stem_type="deep_tiered", stem_width=16, avg_down=True
    ),
    "timm, Bottleneck, groups": lambda: timm_resnet("Bottleneck", cardinality=4, base_width=16),
}


@pytest.fixture(scope="module")
def zoo():
    return load("zoo:resnet-caltech101", device="cpu")


@pytest.mark.parametrize("size", [64, 66])  # 66: odd maps, with a partial last window of the pooling
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_rules_are_the_literal_ones(kind, size):
    encoder = Encoder(NETWORKS[kind](), size=64)
    image = noise(1, size)
    channel = int(encoder.activations(image, "layer4")["layer4"].maps.mean((0, 2, 3)).argmax())
    expected = oracle.resnet(encoder.module, image[0], channel)
    found = compute_relevance(encoder, image, f"layer4:{channel}", [*LAYERS, "layer4"])
    for name, maps in expected.items():
        assert maps.abs().sum() > 0
        torch.testing.assert_close(found[name][0], maps, rtol=1e-3, atol=1e-6 * float(maps.abs().max()))


def test_the_rules_are_the_literal_ones_on_trained_weights(zoo):
    image = noise(1, 64) * 0.5
    channel = int(zoo.activations(image, "layer4")["layer4"].maps.mean((0, 2, 3)).argmax())
    expected = oracle.resnet(zoo.module, image[0], channel)
    found = compute_relevance(zoo, image, f"layer4:{channel}", LAYERS)
    for name in LAYERS:
        torch.testing.assert_close(
            found[name][0], expected[name], rtol=1e-3, atol=1e-6 * float(expected[name].abs().max())
        )


def plain():
    """No residuals: strides, groups, dilation, padding, biases, average pooling, a linear layer over positions."""
    torch.manual_seed(1)
    return lived_in(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(12, 10, 3, padding=2, dilation=2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(10 * 4 * 4, 6),
        )
    )


def test_the_rules_are_zennits_where_there_is_no_residual():
    from zennit.composites import LayerMapComposite
    from zennit.rules import Norm, Pass, ZPlus

    module = plain()
    encoder = Encoder(module, size=16)
    images = noise(3, 16)
    taken = module[:2](images).detach().requires_grad_()
    rules = [
        (nn.AvgPool2d, Norm(stabilizer=1e-5)),
        ((nn.Conv2d, nn.Linear), ZPlus(stabilizer=1e-5, zero_params=["bias"])),
        ((nn.BatchNorm2d, nn.ReLU), Pass()),
    ]
    logits = module(images).detach()
    start = torch.zeros_like(logits)
    start[:, 2] = logits[:, 2]
    with LayerMapComposite(rules).context(module[2:]) as tail:
        (expected,) = torch.autograd.grad(tail(taken), taken, start)
    found = compute_relevance(encoder, images, "class:2", ["0", "1"])
    torch.testing.assert_close(found["1"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["0"], found["1"])  # a ReLU hands relevance on


@pytest.mark.parametrize("unit", ["layer4:3", "layer4:3,7,100", "class:11", "features:40"])
def test_relevance_is_conserved(zoo, unit):
    images = noise(2, 128) * 0.7
    found = compute_relevance(zoo, images, unit, [*LAYERS, "layer4"])
    if unit.startswith("layer4"):
        channels = [int(number) for number in unit.partition(":")[2].split(",")]
        begun = zoo.activations(images, "layer4")["layer4"].maps[:, channels].sum((1, 2, 3))
    else:
        index = int(unit.partition(":")[2])
        begun = (zoo.logits(images) if unit.startswith("class") else zoo.features(images))[:, index]
    assert begun.abs().min() > 1e-3
    for name in ("layer4", "layer3", "layer2", "layer1"):
        torch.testing.assert_close(found[name].sum((1, 2, 3)), begun, rtol=2e-3, atol=1e-5)
    # Max pooling counts as an average over 2 x 2: where these four are all zero, relevance ends.
    share = found["conv1"].sum((1, 2, 3)) / begun
    assert ((share > 0.8) & (share < 1.0001)).all()


def test_several_units_in_a_batch_are_each_as_if_alone(zoo):
    images = noise(4, 64)
    units = ["layer4:3", "layer4:77", "layer3:5", "layer4:1,2"]
    together = compute_relevance(zoo, images, units, ["conv1", "layer2"])
    for row, unit in enumerate(units):
        alone = compute_relevance(zoo, images[row : row + 1], unit, ["conv1", "layer2"])
        for name, maps in alone.items():
            assert maps.abs().sum() > 0
            torch.testing.assert_close(together[name][row], maps[0], rtol=1e-4, atol=1e-5 * float(maps.abs().max()))


def test_a_recorded_pass_gives_the_same_and_is_left_as_it_was(zoo):
    attributor = make_attributor(zoo, ["layer4:3", "layer4:9"], LAYERS)
    images = noise(2, 64)

    def step(watched):
        pixels = images.clone().requires_grad_()
        if watched:
            with attributor.recording():
                seen = zoo.observe(pixels, gradients=True, **attributor.needs)
            found = attributor.relevance()
        else:
            seen = zoo.observe(pixels, gradients=True, **attributor.needs)
            found = attributor(images)
        loss = sum((seen.activations[name].maps * found[name]).square().sum() for name in LAYERS)
        assert isinstance(loss, torch.Tensor)
        return found, torch.autograd.grad(loss, pixels)[0]

    (watched, gradient), (own, plain) = step(True), step(False)
    for name in LAYERS:
        assert not watched[name].requires_grad
        torch.testing.assert_close(watched[name], own[name], rtol=0, atol=0)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(gradient, plain, rtol=0, atol=0)


def test_a_recorded_pass_is_used_once_and_must_reach_the_unit(zoo):
    attributor = make_attributor(zoo, "layer4:3", ["layer1"])
    with pytest.raises(UsageError, match="no forward pass is recorded"):
        attributor.relevance()
    with attributor.recording():
        zoo.observe(noise(1, 64), ["layer1"])
    with pytest.raises(UsageError, match="ended before 'layer4'"):
        attributor.relevance()
    with pytest.raises(UsageError, match="no forward pass was run"), attributor.recording():
        pass
    attributor(noise(1, 64))
    with pytest.raises(UsageError, match="no forward pass is recorded"):
        attributor.relevance()


def test_changed_weights_are_noticed():
    encoder = Encoder(NETWORKS["torchvision, BasicBlock"](), size=64)
    image = noise(1, 64)
    attributor = make_attributor(encoder, "layer4:3", ["layer1"])
    before = attributor(image)["layer1"]
    with torch.no_grad():
        encoder.module.get_submodule("layer3.0.conv2").weight.mul_(-1)
    after = attributor(image)["layer1"]
    torch.testing.assert_close(
        after, compute_relevance(encoder, image, "layer4:3", ["layer1"])["layer1"], rtol=0, atol=0
    )
    assert not torch.allclose(before, after)


def test_a_direction_starts_where_it_is_most_similar(zoo):
    images = noise(2, 128)
    maps = zoo.activations(images, "layer4")["layer4"].maps
    direction = torch.rand(512, generator=torch.Generator().manual_seed(3))
    unit = direction_unit("layer4", direction, "mine")
    found = compute_relevance(zoo, images, unit, ["layer3", "layer4"], start="argmax")
    for image in range(2):
        cells = maps[image].flatten(1).T
        similarity = torch.stack([torch.dot(cell, direction) / cell.norm() for cell in cells])
        y, x = divmod(int(similarity.argmax()), maps.shape[3])
        expected = torch.zeros_like(maps[image])
        expected[:, y, x] = direction
        torch.testing.assert_close(found["layer4"][image], expected)
    assert found["layer3"].abs().sum() > 0
    everywhere = compute_relevance(zoo, images, unit, ["layer4"])["layer4"]
    torch.testing.assert_close(everywhere, maps * direction[:, None, None])
    assert (
        place_at_best_position(torch.zeros(1, 2, 2, 2), torch.ones(1, 2)).sum() == 2
    )  # nothing is similar: still one position


class WithEmbedding(nn.Module):
    """A network that returns its embedding beside its logits, in either order."""

    def __init__(self, body: nn.Module, first: bool) -> None:
        super().__init__()
        self.body, self.first = nn.Sequential(*list(body)[:-1]), first
        self.head = list(body)[-1]

    def forward(self, images):
        embedding = self.body(images)
        logits = self.head(embedding)
        return (embedding, logits) if self.first else (logits, embedding)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("unit", ["class:2", "features:3"])
def test_of_several_outputs_the_logits_are_those_of_the_encoder(first, unit):
    module, images = plain(), noise(2, 16)
    expected = compute_relevance(Encoder(module, size=16), images, unit, ["0", "2"])
    encoder = Encoder(WithEmbedding(module, first), size=16, logits="1" if first else "0")
    relevance = compute_relevance(encoder, images, unit, ["body.0", "body.2"])
    for one, other in zip(expected.values(), relevance.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_networks_without_head_and_with_unpooled_output():
    import timm

    image = noise(2, 64)
    for settings in ({"num_classes": 0}, {"num_classes": 0, "global_pool": ""}):
        torch.manual_seed(0)
        module = lived_in(timm.create_model("resnet10t", **settings))
        encoder = Encoder(module, size=64)
        found = compute_relevance(encoder, image, "features:9", ["layer4", "layer3"])
        begun = encoder.features(image)[:, 9]
        for maps in found.values():
            torch.testing.assert_close(maps.sum((1, 2, 3)), begun, rtol=2e-3, atol=1e-5)
