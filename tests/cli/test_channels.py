"""Networks of one and of many channels, from the constructor to the last verb, on files with as many bands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import encoscope
from encoscope.cli.app import run
from encoscope.encoder import Encoder
from encoscope.encoder.input_channels import count_input_channels

SIDE = 32
NETWORKS = """
import torch
from torch import nn
from encoscope import Encoder

def make(channels):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return Encoder(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), size=32)

class Mean(nn.Module):
    def forward(self, pixels): return pixels.mean(1, keepdim=True)

def any_number(): return nn.Sequential(Mean(), nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU())
def bands1(): return make(1)
def bands3(): return make(3)
def bands4(): return make(4)
def bands13(): return make(13)
"""


@pytest.fixture(params=[1, 4, 13])
def channels(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of channels; files of as many bands lie in ``images``, in two folders."""
    (tmp_path / "networks_of_channels.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    count = request.param
    generator = np.random.default_rng(count)
    for number in range(4):
        folder = tmp_path / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 65536, (SIDE, SIDE, count)).astype(np.uint16)
        np.save(tmp_path / f"{number}.npy", values)
        if count == 1:
            Image.fromarray(values[..., 0]).save(folder / f"{number}.png")
        else:
            extra = ["unassalpha"] if count == 4 else [0] * (count - 3)
            tifffile.imwrite(
                folder / f"{number}.tif", values, photometric="rgb", planarconfig="contig", extrasamples=extra
            )
    return count


def test_a_network_gets_the_bands_as_they_are_stored(channels: int, tmp_path: Path) -> None:
    encoder = encoscope.Encoder(encoscope.load(f"py:networks_of_channels:bands{channels}").module, size=SIDE)
    assert encoder.preprocess.channels == channels
    Path("plain.py").write_text(NETWORKS.replace("Encoder(nn", "(nn").replace(", size=32)", ")"))
    assert encoscope.load(f"py:plain:bands{channels}").preprocess.channels == channels  # a module, not an Encoder
    (file,) = (tmp_path / "images" / "0").glob("0.*")
    mean, std = np.mean([0.485, 0.456, 0.406]), np.mean([0.229, 0.224, 0.225])
    expected = (np.load("0.npy") / 65535 - mean) / std
    for source in (file, "0.npy"):
        pixels = encoder.prepare(source).pixels[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_every_verb_takes_it(channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", f"py:networks_of_channels:bands{channels}"]
    (file,) = map(str, (tmp_path / "images" / "0").glob("0.*"))
    steps = ["--steps", "2"]
    lines = [
        ["layers", model[1]],
        ["segment", file, *model, "--clusters", "3", "--out", "segmented"],
        ["probe", "images", *model],
        ["visualize", "class:1", *model, "--references", "images", *steps, "--out", "visualized"],
    ]
    if channels == 1:  # the verbs that read no image otherwise than these do
        site = ["--out", "site", "--no-describe", *steps, "--features", "1", "--classes", "1"]
        lines += [
            ["atlas", "build", *model, "--images", "images", *site],
        ]
    if channels == 13:
        number = ["--concepts", "2", "--samples", "4", *steps]
        lines.append(["concepts", "class:1", *model, "--references", "images", *number, "--out", "concepts"])
    if channels == 4:
        lines += [
            [
                "compare",
                model[1],
                f"{model[1]}@untrained",
                "--images",
                "images",
                "--clusters",
                "2",
                "--out",
                "compared",
            ],
            ["audit", model[1], "--images", "images", "--out", "audited"],
        ]
    for line in lines:
        assert run(line) == 0, (line, capsys.readouterr().err)
        capsys.readouterr()
    entry = json.loads(Path("segmented/result.json").read_text())["images"][0]
    with Image.open(Path("segmented") / entry["labels"]) as labels:
        assert labels.size == (SIDE, SIDE)


def test_the_command_line_says_which_bands(channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if channels != 13:
        return
    (file,) = map(str, (tmp_path / "images" / "0").glob("0.*"))
    line = ["segment", file, "--model", "py:networks_of_channels:bands3", "--clusters", "3", "--out", "out"]
    assert run([*line, "--bands", "4,3,2"]) == 0, capsys.readouterr().err
    document = json.loads(Path("out/result.json").read_text())
    assert document["model"]["preprocess"]["bands"] == [4, 3, 2] and document["model"]["preprocess"]["stated"] == [
        "bands"
    ]
    with Image.open(Path("out") / document["images"][0]["labels"]) as labels:
        written = np.asarray(labels)
    encoder = encoscope.load("py:networks_of_channels:bands3")
    expected = encoscope.segment(encoder, np.load("0.npy")[..., [3, 2, 1]], n_clusters=3).labels
    np.testing.assert_array_equal(written, expected)
    for bands, code, message in (
        (None, 1, "10 of them are neither color nor opacity"),
        ("14,1,2", 1, "has 13 bands, and band 14 of it is requested"),
        ("4,3", 2, "2 bands for a network of 3 channels"),
        ("0,1,2", 2, "--bands takes whole numbers from 1 on"),
    ):
        capsys.readouterr()
        assert run([*line, *(["--bands", bands] if bands else [])]) == code
        assert message in capsys.readouterr().err


def test_other_files_are_refused_in_one_line(channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    if channels == 1:
        return  # color becomes grey
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save("color.png")
    model = f"py:networks_of_channels:bands{channels}"
    assert run(["segment", "color.png", "--model", model, "--clusters", "2", "--out", "out"]) == 1
    assert f"has 3 channels where {channels} are needed" in capsys.readouterr().err
    assert run(["describe", "features:1", "--model", model, "--probe", "images", "--out", "out"]) == 2
    assert f"takes {channels} channels, and an image-text model sees grey or color" in capsys.readouterr().err


def test_grey_and_color_for_a_network_of_one_channel() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    encoder = Encoder(network, size=SIDE, mean=[0.5], std=[0.25])
    color = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(color).convert("L"))
    for source in (color, grey):
        np.testing.assert_allclose(encoder.prepare(source).pixels[0, 0].numpy(), (grey / 255 - 0.5) / 0.25, atol=1e-5)
    assert encoscope.segment(encoder, color, n_clusters=2).labels.shape == (SIDE, SIDE)


def test_references_in_memory(channels: int) -> None:
    encoder = encoscope.load(f"py:networks_of_channels:bands{channels}")
    arrays = [np.load(f"{number}.npy") for number in range(3)]
    result = encoscope.visualize(encoder, "class:1", arrays, steps=1, cache=False)
    mean = float(encoder.logits(arrays)[:, 1].mean())
    assert result.reference_activation == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_the_channels_of_networks_of_libraries(channels: int) -> None:
    import timm

    for name in (
        "resnet10t",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "efficientnet_b0",
        "swin_tiny_patch4_window7_224",
    ):
        with torch.device("meta"):  # no weights: only the modules are looked at
            module = timm.create_model(name, in_chans=channels, num_classes=2)
        assert count_input_channels(module) == channels, name
    assert count_input_channels(nn.Linear(7, 2)) == 3


def test_a_stated_number_of_channels(channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = "py:networks_of_channels:any_number"
    flags = ["--input-size", "32", "--channels", str(channels), "--device", "cpu"]
    assert run(["segment", "0.npy", "--model", model, *flags, "--clusters", "2", "--out", "out"]) == 0
    record = json.loads(Path("out/result.json").read_text())["model"]["preprocess"]
    assert record["channels"] == channels and len(record["mean"]) == channels and "channels" in record["stated"]
    assert encoscope.load(model, channels=7, input_size=32).preprocess.channels == 7
    capsys.readouterr()
    other = f"py:networks_of_channels:bands{channels}"  # a network of one number alone
    assert run(["segment", "0.npy", "--model", other, "--channels", "5", "--out", "out2"]) == 1
    assert capsys.readouterr().err.strip().count("\n") == 0
    with pytest.raises(encoscope.errors.UsageError, match="channels is a number from 1"):
        encoscope.load(model, channels=0)
