"""The table of folders and classes, from Python and from the command line; every verb matches folders so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import encoscope
from encoscope.atlas.build.plan import plan_build
from encoscope.atlas.settings import AtlasSettings
from encoscope.cli.app import run
from encoscope.errors import UsageError
from support.heads import heads

NETWORKS = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 12))
"""
MODEL = "py:numbered_networks:network"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "numbered_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ENCOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for root, first in (("from0", 0), ("from1", 1)):
        for number in range(12):
            file = tmp_path / root / str(first + number) / "image.png"
            file.parent.mkdir(parents=True)
            # the photo of class i is grey with the value 20 i
            Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(file)
    return tmp_path


def test_from_the_command_line(here, capsys) -> None:
    assert run(["classes", MODEL, "--images", "from0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [[str(i), "1", str(i), "-", "index"] for i in range(3)]
    assert run(["classes", MODEL, "--images", "from1"]) == 2
    assert "--class-order numeric" in capsys.readouterr().err
    assert run(["classes", MODEL, "--images", "from1", "--class-order", "text", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["class_order"] == "text"
    assert {entry["label"]: entry["index"] for entry in document["results"]}["10"] == 1
    shutil.rmtree(here / "from0" / "11")
    (here / "from0" / "10").rename(here / "from0" / "tench")
    assert run(["classes", MODEL, "--images", "from0"]) == 1
    (here / "flat.png").write_bytes((here / "from1" / "1" / "image.png").read_bytes())
    assert run(["classes", MODEL, "--images", "flat.png"]) == 2


@pytest.mark.parametrize(
    ("root", "order", "label"),
    [("from0", None, "2"), ("from0", "text", "10"), ("from1", "numeric", "3"), ("from1", "text", "11")],
)
def test_the_images_that_a_class_is_visualized_from(here, capsys, root, order, label) -> None:
    flags = [] if order is None else ["--class-order", order]
    argv = ["visualize", "class:2", "--model", MODEL, "--references", root, "--steps", "1", "--json", *flags]
    assert run([*argv, "--out", "out"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["visualizations"]
    encoder = encoscope.load(MODEL, class_order=order)
    listing = encoscope.match_classes(encoder, root)
    assert {match.label for match in listing.matches if match.index == 2} == {label}
    file = here / root / label / "image.png"
    logit = float(encoder.logits(file)[0, 2])
    assert entry["reference_activation"] == pytest.approx(logit, rel=1e-4)


def test_numbered_folders_are_refused_by_every_verb_that_matches_classes(here, capsys) -> None:
    for argv in (
        ["visualize", "class:2", "--model", MODEL, "--references", "from1", "--steps", "1"],
        ["circuit", "class:2", "--model", MODEL, "--references", "from1", "--steps", "1"],
        ["concepts", "class:2", "--model", MODEL, "--references", "from1"],
        ["atlas", "build", "--model", MODEL, "--images", "from1", "--out", "site", "--no-describe"],
    ):
        assert run(argv) == 2, argv
        assert "cannot be told" in capsys.readouterr().err


def test_from_python(here) -> None:
    matches = encoscope.match_classes(heads(12, None, "numeric"), "from1")
    assert [match.index for match in matches.matches] == list(range(12)) and not matches.unmatched
    assert matches.matches[9].label == "10" and matches.to_dict()["settings"] == {"class_order": "numeric"}
    assert encoscope.match_classes(heads(12), "from1", class_order="text").matches[1].label == "10"
    with pytest.raises(UsageError, match="cannot be told"):
        encoscope.match_classes(heads(12), "from1")
    with pytest.raises(UsageError, match="no labels"):
        encoscope.match_classes(heads(12), here / "from1" / "3")


def test_wordnet_folders_have_their_classes_in_an_atlas(here) -> None:
    labels = {"n02099601": 0, "n01440764": 1, "elsewhere": None}
    for name in labels:
        (here / "wordnet").mkdir(exist_ok=True)
        shutil.copytree(here / "from1" / str(1 + len(list((here / "wordnet").iterdir()))), here / "wordnet" / name)
    encoder = heads(3, ["golden retriever", "tench, Tinca tinca", "parachute"])
    plan = plan_build(encoder, here / "wordnet", AtlasSettings(features=1, describe=False), progress=False)
    for name, index in labels.items():
        rows = [row for row, label in enumerate(plan.first_probe.labels) if label == name]
        assert len(rows) == 1
        if index is not None:
            assert plan.rows_of_class(index) == rows
            assert plan.label_of(plan.ids[rows[0]]) == (encoder.classes or ())[index]
        else:
            assert plan.label_of(plan.ids[rows[0]]) == name
    assert plan.rows_of_class(2) == []
