"""Networks with several outputs, wrappers and forms that cannot be observed: right, or one clear line."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoscope.encoder import Encoder, load, untrained_copy
from encoscope.errors import EncoscopeError, UsageError
from encoscope.relevance import compute_relevance

Pair = namedtuple("Pair", ["embedding", "scores"])


@pytest.fixture(autouse=True)
def same_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Net(nn.Module):
    """A trunk whose pooled features go to a projection and two heads; ``give`` says what is returned."""

    def __init__(self, give: Callable[..., Any], channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.project = nn.Linear(16, 24)
        self.head, self.aux = nn.Linear(24, 7), nn.Linear(8, 7)
        self.give = give

    def forward(self, pixels: Tensor) -> Any:
        early = self.stem(pixels)
        maps = self.stage(early)
        embedding = self.project(maps.mean((2, 3)))
        return self.give(embedding, self.head(embedding), self.aux(early.mean((2, 3))), maps)


PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))

CERTAIN: dict[str, tuple[Callable[..., Any], str, str]] = {
    "tuple": (lambda e, h, a, m: (e, h), "1", "layer head computes it from output 0"),
    "turned": (lambda e, h, a, m: (h, e), "0", "layer head computes it from output 1"),
    "list": (lambda e, h, a, m: [e, h], "1", "layer head computes it from output 0"),
    "dict": (lambda e, h, a, m: {"emb": e, "cls": h}, "cls", "layer head computes it from output emb"),
    "named": (lambda e, h, a, m: Pair(e, h), "scores", "layer head computes it from output embedding"),
    "nested": (lambda e, h, a, m: (m, {"e": e, "y": [h]}), "1.y.0", "layer head computes it from output 1.e"),
    "logits": (lambda e, h, a, m: OrderedDict(embedding=e, aux=a, logits=h), "logits", "it is called logits"),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_the_logits_among_several_outputs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    give, key, reason = CERTAIN[name]
    net = Net(give).eval()
    encoder = Encoder(net, size=32)
    with torch.no_grad():
        embedding = net.project(net.stage(net.stem(PIXELS)).mean((2, 3)))
        expected = net.head(embedding)
    assert encoder.outputs == 7 and encoder.head is net.head
    torch.testing.assert_close(encoder.logits(PIXELS), expected)
    torch.testing.assert_close(encoder.features(PIXELS), embedding)
    assert encoder.record == {"logits": {"output": key, "reason": reason}}
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{key} is taken as logits, because {reason}" in line
    assert len(encoder.layers) == 6


UNCERTAIN: dict[str, Callable[..., Any]] = {
    "deep supervision": lambda e, h, a, m: (h, a),
    "distilled": lambda e, h, a, m: {"out": h, "dist": a},
    "normalized embedding": lambda e, h, a, m: (nn.functional.normalize(e), h.tanh()),
    "probabilities": lambda e, h, a, m: (h, h.softmax(1)),
    "three": lambda e, h, a, m: [e, h, a],
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_the_user_is_asked_where_several_can_be_meant(name: str) -> None:
    net = Net(UNCERTAIN[name]).eval()
    encoder = Encoder(net, size=32)
    assert encoder.activations(PIXELS, "stage")["stage"].maps.shape == (3, 16, 8, 8)  # maps need no logits
    assert encoder.outputs is None
    for question in (encoder.logits, encoder.features):
        with pytest.raises(UsageError, match=r"several outputs that could be the logits: .*--logits"):
            question(PIXELS)
    with torch.no_grad():
        output = net(PIXELS)
    for key, value in output.items() if isinstance(output, dict) else enumerate(output):
        asked = Encoder(net, size=32, logits=key)
        torch.testing.assert_close(asked.logits(PIXELS), value)
        assert asked.outputs == value.shape[1] and asked.digest != encoder.digest
        assert asked.record == {"logits": {"output": str(key), "reason": "as requested"}}
    with pytest.raises(UsageError, match=r"no output 'nine' that could be logits: it has (0|out) \(\d+ wide\), "):
        Encoder(net, size=32, logits="nine").logits(PIXELS)


@pytest.mark.parametrize("order", [0, 1])
def test_class_names_tell_the_logits(order: int) -> None:
    def give(e: Tensor, h: Tensor, a: Tensor, m: Tensor) -> Any:
        return (e.tanh(), h.relu())[:: 1 - 2 * order]

    encoder = Encoder(Net(give), size=32, classes=list("abcdefg"))
    assert encoder.logits(PIXELS).shape == (3, 7) and encoder.features(PIXELS).shape == (3, 24)
    assert encoder.record["logits"]["reason"] == "it alone has 7 values, one for each class"
    with pytest.raises(UsageError, match="5 class names were given for a network of 7 outputs"):
        Encoder(Net(CERTAIN["tuple"][0]), size=32, classes=list("abcde")).logits(PIXELS)


def two_heads() -> nn.Module:
    return Net(UNCERTAIN["deep supervision"])


def test_load_takes_the_users_choice() -> None:
    encoder = load(f"py:{__name__}:two_heads", logits=1, device="cpu")
    torch.testing.assert_close(encoder.logits(torch.zeros(1, 3, 32, 32)), encoder.module(torch.zeros(1, 3, 32, 32))[1])
    assert untrained_copy(encoder).logits(PIXELS).shape == (3, 7)


def test_a_detector_is_refused() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, images: Tensor) -> Any:
            return [{"boxes": self.backbone(image[None]).flatten()[:4], "labels": image[0, 0]} for image in images]

    encoder = Encoder(Detector(), size=32)
    with pytest.raises(UsageError, match="is a detector: it gives boxes, labels for each image") as caught:
        _ = encoder.layers
    assert "backbone" in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # torchvision uses what torch calls deprecated
@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_torchvisions_detectors_are_refused_and_what_is_inside_works(name: str) -> None:
    from torchvision.models import detection

    sizes = {"min_size": 64, "max_size": 64, "rpn_pre_nms_top_n_test": 20} if name.startswith("faster") else {}
    detector = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=5, **sizes)
    encoder = Encoder(detector, size=64)
    for question in (lambda: encoder.layers, lambda: encoder.logits(PIXELS), lambda: encoder.features(PIXELS)):
        with pytest.raises(
            UsageError, match=r"is a detector: it gives boxes, \w+, \w+ for each image.*module.backbone"
        ):
            question()
    inside = Encoder(detector.backbone, size=64)
    last = inside.depths[-1]
    assert inside.activations(PIXELS, last)[last].maps.ndim == 4 and inside.outputs is None


class UNet(nn.Module):
    """Its last convolution gives a map of classes at the image's own resolution."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 4, 4), nn.ReLU())
        self.head = head

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.up(self.down2(self.down1(pixels))))


def segmentation(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import segmentation

        return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **options)

    return make


@pytest.mark.parametrize(
    ("build", "last"),
    [
        (segmentation("lraspp_mobilenet_v3_large"), "backbone"),
        (segmentation("deeplabv3_mobilenet_v3_large", aux_loss=True), "backbone"),
        (segmentation("fcn_resnet50", aux_loss=True), "backbone.layer4"),
        (lambda: UNet(nn.Conv2d(8, 5, 1)), "up"),
        (lambda: UNet(nn.Sequential(nn.Conv2d(8, 5, 3, 1, 1), nn.Conv2d(5, 5, 1))), "up"),
    ],
)
def test_a_segmentation_networks_maps_of_classes_are_no_stage(build: Callable[[], nn.Module], last: str) -> None:
    encoder = Encoder(build(), size=64)
    main = [layer for layer in encoder.layers if layer.role in ("stage", "block")]
    assert encoder.depths[-1].startswith(last) and not any(layer.channels == 5 for layer in main)
    assert encoder.outputs is None
    with pytest.raises(UsageError, match="no classification head"):
        encoder.logits(torch.zeros(1, 3, 64, 64))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    observation = encoder.observe(pixels, encoder.layers[0].name, features=True)
    stage = encoder.activations(pixels, encoder.depths[-1])[encoder.depths[-1]]
    assert list(observation.activations) == [encoder.layers[0].name] and observation.features is not None
    assert torch.equal(observation.features, stage.maps.mean((2, 3)))  # and no mean of maps of classes
    assert encoder.width == stage.maps.shape[1] != 5
    with pytest.raises(UsageError, match="name a channel of that layer"):
        compute_relevance(encoder, pixels, "features:1", encoder.depths[0])


def test_a_network_that_gives_maps_keeps_its_last_stage() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()))
    assert Encoder(net, size=32).depths == ["1"]


def wrapped_parts(wrap: Callable[[nn.Module], nn.Module]) -> Net:
    net = Net(lambda e, h, a, m: h)
    net.stage = wrap(net.stage)  # type: ignore[assignment]
    return net


def compile_eagerly(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("run_before", [False, True])
@pytest.mark.parametrize("wrap", [compile_eagerly, nn.DataParallel], ids=["compile", "data-parallel"])
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_wrappers_are_taken_off(wrap: Callable[[Any], Any], part: bool, run_before: bool) -> None:
    plain = Net(lambda e, h, a, m: h).eval()
    module = wrapped_parts(wrap) if part else wrap(plain)
    module.eval()
    if part:
        module.load_state_dict(dict(zip(module.state_dict(), plain.state_dict().values(), strict=True)))
    if run_before:
        with torch.no_grad():
            module(PIXELS)
    encoder, expected = Encoder(module, size=32), Encoder(plain, size=32)
    assert encoder.layers == expected.layers and encoder.digest == expected.digest
    maps = encoder.activations(PIXELS, "stage")["stage"].maps
    assert torch.equal(maps, expected.activations(PIXELS, "stage")["stage"].maps)
    assert torch.equal(encoder.logits(PIXELS), expected.logits(PIXELS))
    if part:
        assert type(module.stage).__name__ in ("OptimizedModule", "DataParallel")  # the user's own stays as it was


def test_a_module_compiled_in_place() -> None:
    net = Net(lambda e, h, a, m: h).eval()
    expected = Encoder(net, size=32).layers
    net.compile(backend="eager")
    with torch.no_grad():
        net(PIXELS)
    assert Encoder(net, size=32).layers == expected and net._compiled_call_impl is not None


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.fc(self.conv(pixels).mean((2, 3)))


def script_part() -> nn.Module:
    net = Plain()
    net.conv = torch.jit.script(net.conv)  # type: ignore[assignment]
    return net


class Int8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv.weight = nn.Parameter(torch.zeros(4, 3, 3, 3, dtype=torch.int8), requires_grad=False)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3))


def sparse() -> nn.Module:
    net = Plain()
    net.fc.weight = nn.Parameter(net.fc.weight.detach().to_sparse())
    return net


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "script": (lambda: torch.jit.script(Plain()), "is a TorchScript module"),
    "trace": (lambda: torch.jit.trace(Plain().eval(), PIXELS), "is a TorchScript module"),
    "part": (script_part, r"conv \(.*\) is a TorchScript module"),
    "int8": (Int8, r"conv \(Conv2d\) is quantized"),
    "meta": (lambda: Plain().to("meta"), r"conv \(Conv2d\) has a weight without values"),
    "lazy": (lazy, r"0 \(LazyConv2d\) has a weight without a shape"),
    "sparse": (sparse, r"fc \(Linear\) has a sparse weight"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_networks_that_cannot_be_observed_are_refused(name: str) -> None:
    make, match = REFUSED[name]
    with pytest.raises(UsageError, match=match) as caught:
        Encoder(make(), size=32)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_quantized_networks_are_refused(kind: str) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    net = Plain().eval()
    if kind == "dynamic":
        net = quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
        name = "fc"
    else:
        net = nn.Sequential(quantization.QuantStub(), net.conv, quantization.DeQuantStub()).eval()
        net.qconfig = quantization.default_qconfig  # type: ignore[assignment]
        prepared = quantization.prepare(net)
        prepared(PIXELS)
        net = quantization.convert(prepared)
        name = "0"
    with pytest.raises(UsageError, match=rf"{name} \(\w+\) is quantized"):
        Encoder(net, size=32)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "script.pt"
    torch.jit.script(Plain()).save(str(file))
    with pytest.raises(EncoscopeError, match=r"is a TorchScript archive .torch\.jit\.save.: save the state_dict"):
        load(f"py:{__name__}:Plain", checkpoint=file)


class Inference(Plain):
    def forward(self, pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(pixels)


def test_inference_mode_inside_the_network() -> None:
    net = Inference().eval()
    encoder = Encoder(net, size=32)
    maps = encoder.activations(PIXELS, "conv")["conv"].maps
    maps += 1  # a plain tensor
    with torch.no_grad():
        assert torch.equal(maps - 1, net.conv(PIXELS) + 1 - 1)
        assert torch.equal(encoder.logits(PIXELS), net(PIXELS)) and not encoder.logits(PIXELS).is_inference()
    with pytest.raises(EncoscopeError, match="passes no gradient"):
        encoder.observe(PIXELS.clone().requires_grad_(), "conv", gradients=True)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_number_of_input_channels_is_the_networks(channels: int) -> None:
    encoder = Encoder(Net(lambda e, h, a, m: h, channels), size=32)
    assert encoder.preprocess.channels == channels == len(encoder.preprocess.mean)
    assert encoder.logits(np.zeros((40, 50, channels), np.uint8)).shape == (1, 7)


class Rearranged(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.conv, self.side = nn.Conv2d(channels * side**2, 8, 3, 1, 1), side

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv(nn.functional.pixel_unshuffle(pixels, self.side))


class OutOfOrder(nn.Module):
    """Its first convolution is not the one that reads the image."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(16, 8, 1), nn.Conv2d(3, 16, 3, 2, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.last(self.first(pixels))


@pytest.mark.parametrize(
    ("build", "channels"),
    [
        (lambda: nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3)), 3),
        (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3)), 1),
        (lambda: Rearranged(3, 2), 3),
        (lambda: Rearranged(5, 2), 5),
        (lambda: nn.Sequential(nn.Conv2d(12, 8, 3)), 12),
        (OutOfOrder, 3),
    ],
)
def test_channels_that_the_first_convolution_does_not_tell_are_tried(build: Any, channels: int) -> None:
    encoder = Encoder(build(), size=16)
    assert encoder.preprocess.channels == channels == len(encoder.preprocess.std)
    assert encoder.layers and encoder.prepare(np.zeros((20, 20, channels), np.uint8)).pixels.shape[1] == channels


@pytest.mark.parametrize(
    "build", [lambda: nn.Conv3d(3, 8, 3), lambda: nn.Conv1d(3, 8, 3), lambda: nn.Linear(7, 3)], ids=["3d", "1d", "flat"]
)
def test_a_network_that_takes_no_images_is_refused_in_one_line(build: Any) -> None:
    with pytest.raises(
        EncoscopeError, match=r"failed: .*tried with 3 channels of 16x16 pixels.*--input-size"
    ) as caught:
        _ = Encoder(build(), size=16).layers
    assert "\n" not in str(caught.value)


def test_a_later_convolution_of_three_channels_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 4, 1))
    assert Encoder(net, size=8).preprocess.channels == 3
