"""``encoscope probe`` from argument to store."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from encoscope.cli.app import run
from encoscope.probing import load

MODEL = "py:tiny_network_of_the_probe:network"
TINY = """
import torch
from torch import nn
from encoscope import Encoder

def network():
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
    return Encoder(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)), size=32)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "tiny_network_of_the_probe.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path


def test_what_it_says_and_where_the_store_is(here, capsys) -> None:
    assert run(["probe", "photos", "--model", MODEL]) == 0
    text = capsys.readouterr().out.strip()
    assert text.startswith("3 images, 5 channels of features: ")
    assert load(text.split(": ")[1]).labels == ("cat", "cat", "dog")
    (here / "photos" / "cat" / "broken.png").write_bytes(b"?")
    assert run(["probe", "photos", "--model", MODEL, "--layer", "0", "--json"]) == 1
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["format"] == "encoscope.probe/1"
    (entry,) = document["results"]
    assert (entry["images"], entry["channels"], entry["labelled"], entry["layer"]) == (3, 5, 3, "0")
    assert [item["path"] for item in document["skipped"]] == ["photos/cat/broken.png"]
    assert "skipped: cannot read photos/cat/broken.png" in said.err
    assert len(load(entry["store"])) == 3


def test_features_from_a_file(here, capsys) -> None:
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.save("own.npy", values)
    assert run(["probe", "photos", "--model", MODEL, "--features", "own.npy"]) == 0
    store = capsys.readouterr().out.strip().split(": ")[1]
    assert np.array_equal(load(store).values, values)
    assert run(["probe", "photos", "--model", MODEL, "--features", "own.npy"]) == 2
    assert "replace it with --fresh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give a dataset"),
        (["nowhere"], 3, "no such file, folder or dataset: nowhere"),
        (["photos", "--layer", "7"], 2, "unknown layer '7'"),
        (["photos", "--batch", "0"], 2, "--batch takes a number from 1 on, not 0"),
        (["photos", "--features", "no.npy"], 3, "no such file, folder or dataset: no.npy"),
    ],
)
def test_mistakes_are_one_line(here, capsys, arguments, code, message) -> None:
    assert run(["probe", *arguments, "--model", MODEL]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
