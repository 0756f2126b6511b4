"""What an Encoder promises of any network: maps, features, logits, one-line errors, and nothing left behind."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoscope.encoder import Encoder
from encoscope.encoder.capture import OutputLocation, capture, recording_outputs
from encoscope.errors import EncoscopeError, UsageError
from encoscope.images import make_batch, read_image


class Net(nn.Module):
    """Two stages, one ReLU shared by all, a dropout that shows whether evaluation mode is on."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.stage2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16))
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.relu(self.stage1(pixels))
        x = self.relu(self.stage2(x))
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


@pytest.fixture
def encoder(net: Net) -> Encoder:
    return Encoder(net, size=32, classes=["a", "b", "c", "d", "e"])


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def hooks_of(module: nn.Module) -> int:
    return sum(len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules())


def test_activations_are_the_layers_own_outputs(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    """Also where a later operation works in place on them, and where the layer is called several times."""
    net.eval()
    with torch.no_grad():
        first = net.stage1(pixels)
        second = net.stage2(first.relu())
    alone = encoder.activations(pixels, "stage1")["stage1"].maps
    together = encoder.activations(pixels, ["relu", "stage2", "stage1"])
    torch.testing.assert_close(alone, first)
    torch.testing.assert_close(together["stage1"].maps, first)
    torch.testing.assert_close(together["stage2"].maps, second)
    torch.testing.assert_close(together["relu"].maps, second.relu())
    assert list(together) == ["stage1", "stage2", "relu"]


def test_the_pass_ends_after_the_last_layer_asked_for(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    assert encoder.layers  # the trial run, whole
    net.stage2.register_forward_hook(lambda *_: pytest.fail("stage2 was run"))
    assert encoder.activations(pixels, "stage1")


def test_the_network_is_left_as_it_was(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    net.train()
    net.stage1.eval()  # as when a part is frozen
    net.fc.weight.requires_grad_(False)
    flags = [child.training for child in net.modules()]
    grads = [parameter.requires_grad for parameter in net.parameters()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    encoder.activations(pixels, ["stage1", "relu"])
    encoder.features(pixels)
    encoder.logits(pixels)
    assert encoder.resizable
    assert torch.equal(torch.rand(1), expected)  # the global random state is not touched
    assert [child.training for child in net.modules()] == flags
    assert [parameter.requires_grad for parameter in net.parameters()] == grads
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert hooks_of(net) == 0


def test_hooks_and_flags_are_restored_when_the_network_fails(encoder: Encoder, net: Net) -> None:
    assert encoder.layers
    net.train()
    with pytest.raises(EncoscopeError, match=r"forward pass of python failed: RuntimeError: .*channels"):
        encoder.activations(torch.zeros(1, 4, 32, 32), "stage2")
    assert hooks_of(net) == 0 and net.training and net.drop.training


def test_features_are_the_heads_input_and_logits_its_output(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    maps = encoder.activations(pixels, "relu")["relu"].maps
    torch.testing.assert_close(encoder.features(pixels), maps.mean((2, 3)))
    torch.testing.assert_close(encoder.logits(pixels), net.eval()(pixels).detach())
    assert encoder.head is net.fc


def test_without_a_head(net: Net, pixels: Tensor) -> None:
    body = nn.Sequential(net.stage1, net.stage2)
    encoder = Encoder(body, size=32)
    assert encoder.head is None
    expected = body.eval()(pixels).mean((2, 3))
    torch.testing.assert_close(encoder.features(pixels), expected.detach())
    with pytest.raises(UsageError, match="no classification head"):
        encoder.logits(pixels)


def test_unknown_layers_name_the_nearest(encoder: Encoder, pixels: Tensor) -> None:
    with pytest.raises(UsageError, match=r"unknown layer 'stag1' \(nearest: stage1"):
        encoder.activations(pixels, ["stag1"])
    with pytest.raises(UsageError, match="layer 'fc' has no spatial output"):
        encoder.layer("fc")
    with pytest.raises(UsageError, match="no layers"):
        encoder.activations(pixels, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_name_the_layer(
    encoder: Encoder, net: Net, pixels: Tensor, value: float
) -> None:
    with torch.no_grad():
        net.stage2[0].bias[3] = value
    assert encoder.activations(pixels, "stage1")
    with pytest.raises(EncoscopeError, match="layer 'stage2' gives NaN or infinite"):
        encoder.activations(pixels, "stage2")


def test_features_and_logits_that_are_no_numbers_are_refused(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    with torch.no_grad():
        net.fc.bias[1] = float("nan")
    assert torch.isfinite(encoder.features(pixels)).all()
    with pytest.raises(EncoscopeError, match="gives NaN as logits"):
        encoder.logits(pixels)


def test_out_of_memory_halves_the_batch_and_says_so(net: Net, pixels: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    class Small(Net):
        def forward(self, pixels: Tensor) -> Tensor:
            if len(pixels) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(pixels)

    limit = 8
    small = Small()
    small.load_state_dict(net.state_dict())
    encoder = Encoder(small, size=32)
    batch = pixels.repeat(2, 1, 1, 1)[:5]
    expected = Encoder(net, size=32).activations(batch, "relu")["relu"].maps
    assert encoder.layers
    limit = 1
    with caplog.at_level(logging.WARNING, "encoscope"):
        found = encoder.activations(batch, "relu")["relu"].maps
    torch.testing.assert_close(found, expected)
    assert "out of memory" in caplog.text and "continuing with 3" in caplog.text
    torch.testing.assert_close(encoder.features(batch), expected.mean((2, 3)))
    limit = 0
    with pytest.raises(EncoscopeError, match="one image of 32x32 does not fit the memory"):
        encoder.activations(batch, "relu")


def test_class_names_must_be_as_many_as_outputs(net: Net) -> None:
    with pytest.raises(UsageError, match="3 class names were given for a network of 5 outputs"):
        _ = Encoder(net, size=32, classes=["a", "b", "c"]).layers


def test_digest_follows_weights_and_preprocessing(net: Net) -> None:
    encoder = Encoder(net, size=32)
    first = encoder.digest
    assert len(first) == 64 and Encoder(net, size=32).digest == first
    assert Encoder(net, size=48).digest != first
    with torch.no_grad():
        net.fc.bias[0] += 1
    changed = encoder.digest
    assert changed != first
    with torch.no_grad():
        net.fc.bias[0] -= 1
    net.stage1[1].running_mean[0] = 7  # type: ignore[index]
    assert encoder.digest not in (first, changed)


def test_digest_is_of_types_and_names_too(net: Net) -> None:
    first = Encoder(net, size=32).digest
    assert Encoder(nn.Sequential(net), size=32).digest != first
    assert Encoder(net.half(), size=32).digest != first


def test_prepare_takes_what_images_takes(encoder: Encoder) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    batch = encoder.prepare([image, read_image(image)])
    expected = make_batch([read_image(image)] * 2, encoder.preprocess)
    torch.testing.assert_close(batch.pixels, expected.pixels)
    assert encoder.prepare(batch) is batch
    whole = encoder.prepare(image, geometry="whole")
    assert whole.pixels.shape == (1, 3, 32, 48)
    assert encoder.activations(whole, "stage2")["stage2"].maps.shape == (1, 16, 8, 12)
    torch.testing.assert_close(encoder.features(image), encoder.features(batch)[:1])
    with pytest.raises(UsageError, match="no images"):
        encoder.prepare([])


def test_a_network_of_one_size_gets_the_whole_image_squashed() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, 4)
            self.position = nn.Parameter(torch.zeros(1, 4, 8, 8))
            self.mix = nn.Conv2d(4, 4, 1)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.mix(self.conv(pixels) + self.position)

    encoder = Encoder(Fixed(), size=32)
    assert not encoder.resizable
    image = np.zeros((40, 80, 3), np.uint8)
    assert encoder.prepare(image, geometry="whole").pixels.shape == (1, 3, 32, 32)
    with pytest.raises(UsageError):
        encoder.prepare(image, geometry="whole", size=64)


def test_oblong_networks(pixels: Tensor) -> None:
    encoder = Encoder(Net(), size=(32, 64))
    assert encoder.layer("stage2").grid == (8, 16)
    assert encoder.activations(torch.zeros(1, 3, 32, 64), "stage2")["stage2"].maps.shape == (1, 16, 8, 16)


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(channels: int) -> None:
    encoder = Encoder(Net(channels), size=32, channels=channels)
    assert len(encoder.preprocess.mean) == channels
    shape = (40, 60) if channels == 1 else (40, 60, channels)
    assert encoder.features(np.zeros(shape, np.float32)).shape == (1, 16)


def test_mean_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="mean has 2 values for 3 channels"):
        Encoder(Net(), mean=(0.5, 0.5))


def test_autocast_gives_close_float32_maps(net: Net, pixels: Tensor) -> None:
    full = Encoder(net, size=32).activations(pixels, "stage2")["stage2"].maps
    half = Encoder(net, size=32, precision="bf16").activations(pixels, "stage2")["stage2"].maps
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.05, rtol=0.05)
    with pytest.raises(UsageError, match="precision"):
        Encoder(net, precision="fp8")


def test_half_precision_networks_take_their_own_type(net: Net, pixels: Tensor) -> None:
    maps = Encoder(net.bfloat16(), size=32).activations(pixels, "stage2")["stage2"].maps
    assert maps.dtype == torch.float32


def test_gradients_of_the_rest_of_the_network_are_those_at_the_layers_output(net: Net, pixels: Tensor) -> None:
    """In-place operations after the layer or not."""
    net.eval()
    with recording_outputs(net, {"stage1": OutputLocation("stage1")}) as recorded:
        output = net(pixels)
    stage1 = recorded["stage1"]
    assert stage1.edge is not None
    (gradient,) = torch.autograd.grad(output[:, 0].sum(), [stage1.edge])
    leaf = stage1.value.detach().requires_grad_()
    rest = net.fc(net.stage2(leaf.relu()).relu().mean((2, 3)))
    (expected,) = torch.autograd.grad(rest[:, 0].sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    assert hooks_of(net) == 0


def test_captured_outputs_can_be_differentiated(net: Net, pixels: Tensor) -> None:
    net.eval()
    leaf = pixels.clone().requires_grad_()
    kept, _ = capture(net, leaf, {"stage1": OutputLocation("stage1")}, stop=False)
    (gradient,) = torch.autograd.grad(kept["stage1"].square().sum(), leaf)
    again = pixels.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net.stage1(again).square().sum(), again)
    torch.testing.assert_close(gradient, expected)


class Sequences(nn.Module):
    """Tokens [N, B, C] as older towers keep them, and outputs wrapped in tuples and mappings."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.LayerNorm(6)
        self.wrap = Wrap()

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.norm(self.patch(pixels).flatten(2).permute(2, 0, 1))
        return self.wrap(tokens)["last_hidden_state"][0]


class Wrap(nn.Module):
    def forward(self, tokens: Tensor) -> dict[str, Any]:
        return {"cache": None, "last_hidden_state": tokens.transpose(0, 1)}


def test_sequence_first_tokens_and_wrapped_outputs(pixels: Tensor) -> None:
    encoder = Encoder(Sequences(), size=32)
    assert {info.name: info.grid for info in encoder.layers} == {"patch": (4, 4), "norm": (4, 4), "wrap": (4, 4)}
    found = encoder.activations(pixels, ["norm", "wrap"])
    torch.testing.assert_close(found["norm"].maps, found["wrap"].maps)


def test_attention_matrices_are_no_maps() -> None:
    class Attention(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return (tokens @ tokens.transpose(1, 2)).unsqueeze(1).expand(-1, 4, -1, -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 8, 8)
            self.norm = nn.LayerNorm(6)
            self.attention = Attention()

        def forward(self, pixels: Tensor) -> Tensor:
            return self.attention(self.norm(self.patch(pixels).flatten(2).transpose(1, 2)))

    assert [info.name for info in Encoder(Net(), size=32).layers] == ["patch", "norm"]


def test_as_many_channels_as_cells_are_told_apart() -> None:
    class Last(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return maps.permute(0, 2, 3, 1)

    class Fixed(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            assert maps.shape[1:] == (8, 8, 8)
            return maps

    module = nn.Sequential(nn.Conv2d(3, 8, 4, 4), Last(), nn.LayerNorm(8), Fixed())
    encoder = Encoder(module, size=32)
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, :4, -4:] = 5
    found = encoder.activations(pixels, ["0", "1"])
    torch.testing.assert_close(found["0"].maps, found["1"].maps)


def test_a_forward_that_cannot_run_is_one_line() -> None:
    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            raise ValueError("first line\nsecond line")

    with pytest.raises(EncoscopeError, match=r"first line second line \(tried with 3 channels of 32x32"):
        _ = Encoder(Broken(), size=32).layers


def test_observe_gives_in_one_pass_what_the_parts_give(encoder: Encoder, pixels: Tensor) -> None:
    seen = encoder.observe(pixels, ["stage2", "stage1"], features=True, logits=True)
    assert list(seen.activations) == ["stage1", "stage2"]
    for name, activation in encoder.activations(pixels, ["stage1", "stage2"]).items():
        torch.testing.assert_close(seen.activations[name].maps, activation.maps, rtol=0, atol=0)
    assert seen.features is not None and seen.logits is not None
    torch.testing.assert_close(seen.features, encoder.features(pixels), rtol=0, atol=0)
    torch.testing.assert_close(seen.logits, encoder.logits(pixels), rtol=0, atol=0)


def test_observe_keeps_the_graph_to_the_input_on_request(encoder: Encoder, net: Net, pixels: Tensor) -> None:
    net.train()
    leaf = pixels.clone().requires_grad_()
    seen = encoder.observe(leaf, "stage1", logits=True, gradients=True)
    assert seen.logits is not None
    (gradient,) = torch.autograd.grad(seen.activations["stage1"].maps.sum() + seen.logits.sum(), leaf)

    net.eval()
    again = pixels.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net.stage1(again).sum() + net(again).sum(), again)
    torch.testing.assert_close(gradient, expected)
    assert all(parameter.grad is None for parameter in net.parameters())
    with pytest.raises(UsageError, match="gradients need a normalized tensor"):
        encoder.observe(np.zeros((32, 32, 3), np.uint8), "stage1", gradients=True)


def test_a_notebook_shows_source_preprocessing_and_layers_and_computes_no_digest(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.source = "py:<nets>:net"
    monkeypatch.setattr("encoscope.encoder.encoder.compute_digest", lambda *_: pytest.fail("a digest was computed"))
    page = encoder._repr_html_()
    monkeypatch.undo()
    for text in ("py:&lt;nets&gt;:net", "32 x 32 pixels", "<td>5</td>", "<code>relu</code>", "8 x 8", "stage"):
        assert text in page
    assert "digest" not in page
    known = encoder.digest
    assert known[:12] in encoder._repr_html_()
    assert known[:13] not in encoder._repr_html_()
    with torch.no_grad():
        encoder.module.get_parameter("fc.bias").add_(1)
    assert known[:12] not in encoder._repr_html_()


def test_a_notebook_shows_a_network_whose_forward_pass_fails() -> None:
    page = Encoder(nn.Linear(3, 4), size=32, source="broken")._repr_html_()
    assert "broken" in page
    assert "the forward pass of broken failed" in page
