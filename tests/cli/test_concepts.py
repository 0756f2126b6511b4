"""``encoscope concepts`` from argument to file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from encoscope.cli.app import run
from encoscope.craft import ConceptBank

MODEL = "py:tiny_network_of_the_concepts:network"
TINY = """
import torch
from torch import nn
from encoscope import Encoder

def network():
    torch.manual_seed(3)
    first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
    return Encoder(nn.Sequential(first, second, *end), size=32, classes=["cat", "dog"])
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "tiny_network_of_the_concepts.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number in range(5):
        file = tmp_path / "photos" / ("cat" if number < 4 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        image.resize((50, 40), Image.Resampling.BICUBIC).save(file)
    return tmp_path


ARGUMENTS = ["concepts", "class:cat", "--model", MODEL, "--references", "photos", "--concepts", "2", "--layer", "1"]


def test_directions_patches_and_pictures(here, capsys) -> None:
    assert run([*ARGUMENTS, "--steps", "2", "--crops", "3", "--out", "found", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((here / "found" / "result.json").read_text())
    bank = ConceptBank.load("found")
    assert len(bank) == 2
    assert len(bank.images) == 4
    assert [entry["unit"] for entry in document["results"]] == ["1@concept-1.npy", "1@concept-2.npy"]
    for entry in document["results"]:
        with Image.open(here / "found" / entry["visualization"]["picture"]) as picture:
            assert picture.size == (32, 32)
        with Image.open(here / "found" / entry["visualization"]["transparent"]) as picture:
            assert picture.mode == "RGBA"
        assert len(entry["crops"]) <= 3
        assert (here / "found" / entry["crops"][0]["path"]).is_file()
    with Image.open(here / "found" / "sheet.png") as sheet:
        assert sheet.size[0] > 4 * 120  # a picture and three patches in a row


def test_pictures_with_and_without_relevance(here) -> None:
    assert run([*ARGUMENTS, "--steps", "2", "--out", "lrp"]) == 0
    assert run([*ARGUMENTS, "--steps", "2", "--relevance", "none", "--out", "plain"]) == 0
    pictures = [(here / out / "concept-1.png").read_bytes() for out in ("lrp", "plain")]
    assert pictures[0] != pictures[1]
    documents = [json.loads((here / out / "result.json").read_text()) for out in ("lrp", "plain")]
    made = [document["results"][0]["visualization"]["settings"]["relevance"] for document in documents]
    assert made == ["lrp", "none"]


def test_without_pictures(here, capsys) -> None:
    (here / "photos" / "cat" / "broken.png").write_bytes(b"?")
    assert run([*ARGUMENTS, "--no-visualizations"]) == 1
    said = capsys.readouterr()
    assert "2 concepts of class:cat from 4 images: concepts/sheet.png" in said.out
    assert "1@concepts/concept-1.npy" in said.out
    assert "skipped: cannot read photos/cat/broken.png" in said.err
    assert (here / "concepts" / "sheet.png").is_file()
    assert not list((here / "concepts").glob("concept-*.png"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--layer", "0.0"], 2, "negative activations"),
        (["--samples", "12"], 2, "samples is a power of two"),
        (["--steps", "0"], 2, "steps is a number from 1 on"),
        (["--references", "nowhere"], 3, "no such file, folder or dataset"),
    ],
)
def test_mistakes_are_one_line(here, capsys, arguments, code, message) -> None:
    flags = dict(zip(ARGUMENTS[2::2], ARGUMENTS[3::2], strict=True)) | {arguments[0]: arguments[1]}
    assert run(["concepts", "class:cat", *(part for pair in flags.items() for part in pair)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
