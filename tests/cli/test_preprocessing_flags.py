"""--mean, --std, --input-size and --interpolation: every verb takes them, and every result says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

import encoscope
from encoscope.cli.app import run
from encoscope.encoder import Encoder

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
"""
MODEL = "py:network_of_flags:make"
FLAGS = ["--mean", "0.1,0.2,0.3", "--std", "0.5", "--input-size", "40x48", "--interpolation", "nearest"]
STATED: dict[str, Any] = {
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.5, 0.5],
    "size": [40, 48],
    "interpolation": "nearest",
    "stated": ["mean", "std", "input_size", "interpolation"],
}
LINES: dict[str, list[str]] = {
    "layers": [MODEL],
    "segment": ["images/0/0.png", "--model", MODEL, "--clusters", "3"],
    "colors": ["images", "--model", MODEL],
    "probe": ["images", "--model", MODEL],
    "visualize": ["class:1", "--model", MODEL, "--references", "images", "--steps", "1"],
    "circuit": ["class:1", "--model", MODEL, "--references", "images", "--steps", "1", "--channels", "1"],
    "concepts": ["class:1", "--model", MODEL, "--references", "images", "--no-visualizations", "--samples", "4"],
    "audit": [MODEL, "--images", "images", "--permutations", "20"],
    "evaluate stability": ["--model", MODEL, "--dataset", "images", "--clusters", "2", "--runs", "2"],
}
SILENT = {"layers", "probe"}
"""Verbs that write no folder."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "network_of_flags.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number in range(6):
        folder = Path("images", str(number % 2))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (50, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def find_models(value: Any) -> list[dict[str, Any]]:
    """Every network that a document names with its preprocessing."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict) and "preprocess" in value else []
    return [*own, *(model for item in items for model in find_models(item))]


@pytest.mark.parametrize("verb", LINES)
def test_a_verb_takes_what_is_stated_and_records_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if verb in SILENT else ["--out", "out"]
    assert run([*verb.split(), *LINES[verb], *out, *FLAGS, "--json"]) == 0, capsys.readouterr().err
    output = capsys.readouterr()
    models = find_models(json.loads(output.out))
    assert models
    for model in models:
        preprocess = model["preprocess"]
        assert {name: preprocess[name] for name in STATED} == STATED
    assert "usual settings" not in output.err  # nothing is assumed


def test_the_network_gets_what_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", *LINES["segment"], *FLAGS, "--out", "out"]) == 0, capsys.readouterr().err
    entry = json.loads(Path("out/result.json").read_text())["images"][0]
    with Image.open(Path("out") / entry["labels"]) as labels:
        written = np.asarray(labels)
    module: nn.Module = encoscope.load(MODEL).module
    options: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.5,), "size": (40, 48), "interpolation": "nearest"}
    expected = encoscope.segment(Encoder(module, **options), "images/0/0.png", n_clusters=3).labels
    np.testing.assert_array_equal(written, expected)
    usual = encoscope.segment(Encoder(module), "images/0/0.png", n_clusters=3).labels
    assert (usual != expected).any()
