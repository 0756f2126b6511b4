"""LRP through networks other than ResNets: signed inputs, gates, attention, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from encoscope.encoder import Encoder, load
from encoscope.errors import UsageError
from encoscope.relevance import compute_relevance, make_attributor
from oracles import signed_lrp as oracle


def noise(batch, size, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def set_parameters(module, *, biases=False):
    """Weights as of a trained network; without biases (and shifts of norms) nothing but the image gives the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                assert child.running_mean is not None and child.running_var is not None
                child.running_mean.uniform_(-0.3, 0.3, generator=generator).mul_(biases)
                child.running_var.uniform_(0.5, 1.5, generator=generator)
                child.weight.uniform_(-1.5, 1.5, generator=generator)
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.3, 0.3, generator=generator).mul_(biases)
            elif parameter.ndim in (2, 4):
                parameter.normal_(0, 2 / parameter[0].numel() ** 0.5, generator=generator)
    return module.eval()


def from_timm(name, size=64, **settings):
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **settings), size


def torchvision_vit():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3), 32


def torchvision_swin():
    from torchvision.models import SwinTransformer

    torch.manual_seed(0)
    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3), 64


def torchvision(name):
    import torchvision

    torch.manual_seed(0)
    return getattr(torchvision.models, name)(num_classes=3), 64


NETWORKS = {
    "EfficientNet-lite": lambda: from_timm("tf_efficientnet_lite0"),
    "EfficientNet, same padding": lambda: from_timm("tf_efficientnet_b0"),
    "MobileNetV3": lambda: from_timm("mobilenetv3_small_050"),
    "MobileNetV2, torchvision": lambda: torchvision("mobilenet_v2"),
    "MobileNetV3, torchvision": lambda: torchvision("mobilenet_v3_small"),
    "ShuffleNet, torchvision": lambda: torchvision("shufflenet_v2_x0_5"),
    "RegNetY": lambda: from_timm("regnety_002"),
    "SE-ResNeXt": lambda: from_timm("seresnext26t_32x4d"),
    "DenseNet": lambda: from_timm("densenet121", block_config=(2, 2), growth_rate=8),
    "ConvNeXt": lambda: from_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
    "ConvNeXt V2": lambda: from_timm("convnextv2_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
    "ViT": lambda: from_timm("vit_tiny_patch16_224", depth=2, img_size=64, class_token=False, global_pool="avg"),
    "ViT, torchvision": torchvision_vit,
    "DeiT, distilled": lambda: from_timm("deit_tiny_distilled_patch16_224", depth=2, img_size=64),
    "Swin": lambda: from_timm(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 2)
    ),
    "Swin, torchvision": torchvision_swin,
    "PoolFormer": lambda: from_timm("poolformer_s12"),
    "Inception, torchvision": lambda: torchvision("googlenet"),
}


@pytest.fixture
def prefixes(monkeypatch):
    """The relevance of class tokens, which is not in the maps, by layer."""
    sums, read = {}, Encoder.as_activation

    def spy(self, layer, output, canvas):
        activation = read(self, layer, output, canvas)
        sums[layer] = 0 if activation.prefix is None else activation.prefix.detach().sum((1, 2))
        return activation

    monkeypatch.setattr(Encoder, "as_activation", spy)
    return sums


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
@pytest.mark.parametrize("network", NETWORKS)
def test_relevance_is_conserved_where_there_are_no_biases(network, prefixes):
    module, size = NETWORKS[network]()
    encoder = Encoder(set_parameters(module), size=size)
    images = noise(2, size)
    names = [info.name for info in encoder.layers if info.role != "inner"]
    if network.startswith("Inception"):  # its branches have parts of the relevance each
        names = ["conv1", "conv3"]
    if network in (
        "ViT, torchvision",
        "DeiT, distilled",
    ):  # some goes to the class token, which is no part of the image
        names = names[1:]
    layers = [names[0], names[len(names) // 2], names[-1]]
    relevance = compute_relevance(encoder, images, "class:1", layers)
    logits = encoder.logits(images)[:, 1]
    assert logits.abs().min() > 1e-4
    for name, maps in relevance.items():
        total = maps.sum((1, 2, 3)) + prefixes[name]
        if network.startswith(("SE-ResNeXt", "DenseNet", "Inception", "ShuffleNet")):
            share = total / logits  # max pooling counts as an average: where all its values are 0, relevance ends
            assert ((share > 0.75) & (share < 1.001)).all()
        else:
            torch.testing.assert_close(total, logits, rtol=2e-3, atol=1e-6)
        # Nothing explodes, and nothing cancels: all relevance has the sign of the logit.
        assert (maps.abs().sum((1, 2, 3)) <= 1.001 * logits.abs()).all()


def test_with_biases_relevance_is_only_lost_on_trained_weights():
    encoder = load("zoo:tf_efficientnet_lite0", device="cpu")
    images = noise(1, 224) * 0.5
    names = ["conv_stem", "blocks.1.1", "blocks.3.2", "blocks.5.3", "bn2"]
    relevance = compute_relevance(encoder, images, "class:3", names)
    logit = encoder.logits(images)[0, 3]
    shares = [float(relevance[name].sum() / logit) for name in names]
    assert shares == sorted(shares)  # on the way down some is left to biases, and none comes from nowhere
    assert shares[0] > 0.002 and abs(shares[-1] - 1) < 1e-3
    assert all(float(maps.abs().sum() / logit.abs()) < 1.001 for maps in relevance.values())
    torch.testing.assert_close(
        compute_relevance(encoder, torch.cat([images, -images]), "class:3", ["blocks.3.2"])["blocks.3.2"][:1],
        relevance["blocks.3.2"],
        rtol=1e-4,
        atol=1e-6,
    )


def bottleneck():
    """A linear bottleneck: the layers after the first get inputs of both signs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ReLU6(),
        nn.Conv2d(8, 4, 3, stride=2, bias=False),
        nn.Conv2d(4, 5, 1, bias=False),
    )


def test_the_rule_of_signed_layers_is_zennits_generalized_gamma_for_a_large_gamma():
    from zennit.composites import LayerMapComposite
    from zennit.rules import Gamma, Pass

    module, images = bottleneck().double(), noise(2, 9).double()
    inputs = module[0](images).detach().requires_grad_()
    output = module(images).detach()
    start = torch.zeros_like(output)
    start[:, 3] = output[:, 3]
    rules = [(nn.Conv2d, Gamma(gamma=1e7, stabilizer=1e-12)), (nn.ReLU6, Pass())]
    with LayerMapComposite(rules).context(module[1:]) as tail:
        (expected,) = torch.autograd.grad(tail(inputs), inputs, start)
    relevance = compute_relevance(Encoder(module, size=9), images, "5:3", ["0"])["0"]
    torch.testing.assert_close(relevance, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fused", [True, False])
def test_the_rules_of_a_transformer_block_are_the_literal_ones(fused):
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    module = VisionTransformer(
        img_size=16,
        patch_size=4,
        embed_dim=6,
        depth=2,
        num_heads=1,
        num_classes=3,
        class_token=False,
        global_pool="avg",
    )
    set_parameters(module, biases=True).double()
    for block in module.blocks:
        block.get_submodule("attn").fused_attn = fused
    encoder, images = Encoder(module, size=16), noise(1, 16).double()
    relevance = compute_relevance(encoder, images, "blocks.1:2", ["blocks.0", "patch_embed"])
    with torch.no_grad():
        embedded = module.patch_embed(images)[0] + module.pos_embed[0]
        first = module.blocks[0](embedded[None])[0]
        start = torch.zeros_like(first)
        start[:, 2] = module.blocks[1](first[None])[0][:, 2]
        after = oracle.transformer_block(module.blocks[1], first, start)
        before = oracle.transformer_block(module.blocks[0], embedded, after)
    for name, expected in (("blocks.0", after), ("patch_embed", before)):
        tokens = relevance[name][0].flatten(1).T
        torch.testing.assert_close(tokens, expected.to(tokens.dtype), rtol=1e-4, atol=1e-6)


class Packed(nn.Module):
    """Attention by nn.MultiheadAttention, tokens first or batch first."""

    def __init__(self, batch_first):
        super().__init__()
        self.stem, self.batch_first = nn.Conv2d(3, 8, 4, stride=4), batch_first
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        x = self.stem(images).flatten(2)
        x = x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1)
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1 if self.batch_first else 0))


class Written(Packed):
    """The same by matrix products, or by einsum."""

    def __init__(self, einsum):
        super().__init__(True)
        self.einsum = einsum

    def forward(self, images):
        x, own = self.stem(images).flatten(2).transpose(1, 2), self.attention
        q, k, v = F.linear(x, own.in_proj_weight, own.in_proj_bias).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixture = (q * 4**-0.5 @ k.transpose(2, 3)).softmax(3)
        mixed = torch.einsum("bhij,bhjc->bhic", mixture, v) if self.einsum else mixture @ v
        return self.head(own.out_proj(mixed.transpose(1, 2).flatten(2)).mean(1))


def test_packed_attention_is_written_attention():
    torch.manual_seed(0)
    first, images = Packed(True), noise(2, 16)
    expected = None
    for module in (first, Packed(False), Written(True), Written(False)):
        module.load_state_dict(first.state_dict())
        relevance = compute_relevance(Encoder(module, size=16), images, "class:1", "stem")["stem"]
        expected = relevance if expected is None else expected
        torch.testing.assert_close(relevance, expected, rtol=1e-4, atol=1e-7)
    assert expected is not None and expected.abs().sum() > 0


def test_a_batch_norm_that_turns_its_input_over_turns_the_contributions():
    module = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1, bias=False)
    ).eval()
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].bias.copy_(torch.tensor([1.0, 1.0]))
        module[2].weight.copy_(torch.tensor([[[[-3.0]], [[1.0]]]]))
        module[3].weight.fill_(-1)
        module[4].weight.fill_(1)
    relevance = compute_relevance(Encoder(module, size=2), noise(1, 2), "4:0", ["1"])["1"]
    # The output is 2: the first input, with -3, raises it after the norm, and the second lowers it.
    torch.testing.assert_close(relevance[0, :, 0, 0], torch.tensor([2.0, 0.0]), rtol=1e-4, atol=1e-5)


class Parts(nn.Module):
    """The same network with its operations as modules or as functions."""

    def __init__(self, form, activation):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.activation = form, activation
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2)
        self.squeeze, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        module, function = self.activation
        raised = (module() if self.form == "modules" else function)(self.first(x))
        padded = nn.ZeroPad2d((0, 1, 0, 1))(raised) if self.form == "modules" else F.pad(raised, (0, 1, 0, 1))
        y = self.second(padded)
        gate = self.squeeze(y.mean((2, 3), keepdim=True))
        if self.form == "modules":
            return self.last(torch.cat([y * nn.Sigmoid()(gate), nn.Identity()(y)], 1))
        return self.last(torch.concat([gate.sigmoid().mul(y), y.roll(1, 2).roll(-1, 2)], dim=1))


ACTIVATIONS = {
    "ReLU6": (nn.ReLU6, F.relu6),
    "Hardtanh": (lambda: nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6)),
    "Hardswish": (nn.Hardswish, F.hardswish),
    "SiLU": (nn.SiLU, F.silu),
    "written SiLU": (nn.SiLU, lambda x: x * torch.sigmoid(x)),
    "written hardswish": (nn.Hardswish, lambda x: x * (F.relu6(x + 3) / 6)),
    "GELU": (nn.GELU, F.gelu),
    "GELU by tanh": (lambda: nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "LeakyReLU": (nn.LeakyReLU, F.leaky_relu),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_modules_and_functions_give_the_same(activation):
    images, relevance = noise(2, 10), []
    for form in ("modules", "functions"):
        encoder = Encoder(Parts(form, ACTIVATIONS[activation]), size=10)
        relevance.append(compute_relevance(encoder, images, "last:1", ["first", "second"]))
    for name in ("first", "second"):
        assert relevance[0][name].abs().sum() > 0
        torch.testing.assert_close(relevance[0][name], relevance[1][name], rtol=1e-4, atol=1e-6)


def test_a_gate_is_a_constant():
    module, images = Parts("modules", ACTIVATIONS["SiLU"]), noise(1, 10)
    relevance = compute_relevance(Encoder(module, size=10), images, "last:1", ["second"])["second"]
    with torch.no_grad():
        y = module.second(F.pad(F.silu(module.first(images)), (0, 1, 0, 1)))
        gate = module.squeeze(y.mean((2, 3), keepdim=True)).sigmoid()
        output = module.last(torch.cat([y * gate, y], 1))[0, 1]
        expected = torch.zeros_like(y[0])
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                inputs = torch.cat([y * gate, y], 1)[0, :, row, column]
                value = output[row, column : column + 1]
                shares = oracle.linear_rule(inputs, module.last.weight[1:2, :, 0, 0], value, value)
                expected[:, row, column] = shares[:6] + shares[6:]
    torch.testing.assert_close(relevance[0], expected, rtol=1e-4, atol=1e-6)


def test_relevance_of_a_transformers_units_starts_at_their_tokens(prefixes):
    module, size = from_timm("vit_tiny_patch16_224", depth=2, img_size=64)
    encoder, images = Encoder(set_parameters(module), size=size), noise(2, size)
    activation = encoder.activations(images, "blocks.1")["blocks.1"]
    assert activation.prefix is not None
    for unit, start in (
        ("blocks.1:3", activation.maps[:, 3].sum((1, 2))),
        ("blocks.1@cls:3", activation.prefix[:, 0, 3]),
    ):
        relevance = compute_relevance(encoder, images, unit, ["blocks.0"])["blocks.0"]
        assert relevance.abs().sum() > 0
        torch.testing.assert_close(relevance.sum((1, 2, 3)) + prefixes["blocks.0"], start, rtol=1e-3, atol=1e-5)


class Spectral(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        if self.kind == "fourier":
            return self.last(torch.fft.fft2(x).real)
        if self.kind == "sorted":
            return self.last(x.sort(1).values)
        return self.last(x + _Double.apply(x))


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(2 * x.detach().numpy())

    @staticmethod
    def backward(ctx, *gradients):
        return 2 * gradients[0]


@pytest.mark.parametrize(
    ("kind", "name"), [("fourier", "fft"), ("sorted", "sort"), ("own", "computed outside of torch's functions")]
)
def test_operations_without_a_rule_are_refused_by_name(kind, name):
    encoder = Encoder(Spectral(kind), size=8)
    with pytest.raises(UsageError, match=rf"LRP has no rule for .*{name}.*use method='gradient-input'"):
        make_attributor(encoder, "last:1", ["first"])
    assert compute_relevance(encoder, noise(1, 8), "last:1", ["first"], "gradient-input")
