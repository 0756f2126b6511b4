"""``encoscope visualize`` and ``encoscope circuit`` from argument to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from encoscope.cli.app import run
from support.tiny_classifier import MODEL, settle


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos of three labels; a module with a network; a cache of its own."""
    folder = tmp_path_factory.mktemp("work")
    return settle(folder, monkeypatch, ("sea horse", "barrel", "panda"), ("sea_horse", "barrel", "panda"))


def visualize(*tokens: str) -> int:
    return run(["visualize", *tokens, "--model", MODEL])


def test_units_become_pictures_a_sheet_and_a_document(here, capsys):
    units = ("class:Sea_Horse", "2:3", "features:1")
    assert visualize(*units, "--references", "photos", "--steps", "3", "--out", "out", "--json") == 0
    document = json.loads((here / "out" / "result.json").read_text())
    assert json.loads(capsys.readouterr().out) == document
    assert document["format"] == "encoscope.visualization/1"
    assert [entry["unit"] for entry in document["visualizations"]] == list(units)
    for entry in document["visualizations"]:
        assert (here / "out" / entry["picture"]).exists()
        assert len(entry["references"]) in (3, 9)
        assert entry["reference_activation"] is not None
        assert entry["notes"]
    assert (here / "out" / "sheet.png").exists()
    assert not list((here / "out").glob("*.preview.png"))


def test_an_interrupted_run_leaves_its_picture_and_goes_on(here, monkeypatch, capsys):
    from encoscope.vital.synthesis.loop import _Run

    tokens = ("class:panda", "--references", "photos", "--steps", "6")
    assert visualize(*tokens, "--out", "whole", "--fresh") == 0
    step, calls = _Run.step, []

    def interrupting(self):
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(_Run, "step", interrupting)
    assert visualize(*tokens, "--out", "cut", "--fresh") == 130
    assert (here / "cut" / "class-panda.preview.png").exists()
    assert "give the same command to resume" in capsys.readouterr().err
    assert visualize(*tokens, "--out", "cut") == 0
    assert len(calls) == 4 + 3  # three steps were done before
    same = [(here / name / "class-panda.png").read_bytes() for name in ("whole", "cut")]
    assert same[0] == same[1]
    assert visualize(*tokens, "--out", "again") == 0  # a run that is done is not made again
    assert len(calls) == 7


@pytest.mark.parametrize("method", ["fourier", "maco", "deepinversion", "plugin"])
def test_other_methods_share_the_command(here, method):
    tokens = ["class:panda", "class:0", "--method", method, "--steps", "8", "--out", method]
    assert visualize(*tokens, *(["--references", "photos"] if method == "maco" else [])) == 0
    document = json.loads((here / method / "result.json").read_text())
    assert [entry["method"] for entry in document["visualizations"]] == [method, method]


@pytest.mark.parametrize("folder", ["photos", "photos/panda"])
def test_references_without_labels(here, folder, capsys):
    tokens = ("class:panda", "--references", folder, "--n-references", "2", "--steps", "1", "--out", "out")
    assert visualize(*tokens, "--select", "top") == 0
    output = capsys.readouterr()
    assert "2 references with a mean activation of" in output.out
    assert "selected by the network itself, not by labels" in output.err
    (entry,) = json.loads((here / "out" / "result.json").read_text())["visualizations"]
    assert entry["settings"]["select"] == "top" and entry["n_references"] == 2
    assert visualize("class:panda", "--select", "top") == 2
    assert "the top images are selected among real images" in capsys.readouterr().err


def test_control_and_facets(here):
    tokens = ("--references", "photos", "--steps", "2", "--n-references", "2")
    assert visualize("2:0", *tokens, "--facets", "2", "--out", "facets") == 0
    document = json.loads((here / "facets" / "result.json").read_text())
    assert [entry["facet"]["number"] for entry in document["visualizations"]] == [1, 2]
    resnet = ["class:0", "--model", "timm:resnet10t@untrained", "--size", "64"]
    assert run(["visualize", *resnet, "--references", "photos/panda", "--steps", "1", "--control", "untrained"]) == 0
    (entry,) = json.loads((here / "visualizations" / "result.json").read_text())["visualizations"]
    (control,) = entry["controls"]
    assert control["control"] == "untrained"
    assert (
        control["model"]["digest"]
        != json.loads((here / "visualizations" / "result.json").read_text())["model"]["digest"]
    )
    assert set(control["judged"]) == {"activation", "predicted"}
    assert control["references"] == entry["references"]
    assert (here / "visualizations" / control["picture"]).exists()


def test_a_circuit_has_a_figure_and_weights(here, capsys):
    tokens = [
        "class:barrel",
        "--model",
        MODEL,
        "--references",
        "photos",
        "--steps",
        "2",
        "--channels",
        "2",
        "--n-references",
        "3",
    ]
    assert run(["circuit", *tokens]) == 0
    document = json.loads((here / "circuit" / "result.json").read_text())
    found = document["circuit"]
    assert found["layer"] == "2"
    assert len(found["channels"]) == 2
    assert found["channels"][0]["relevance_share"] >= found["channels"][1]["relevance_share"]
    assert [entry["unit"] for entry in document["visualizations"]] == [
        "class:barrel",
        *(channel["unit"] for channel in found["channels"]),
    ]
    with Image.open(here / "circuit" / found["figure"]) as figure:
        assert min(figure.size) > 300
    assert "of the relevance of 2" in capsys.readouterr().out


def test_mistakes_are_one_line(here, capsys):
    for tokens, code, message in (
        ([], 2, "give at least one unit"),
        (["class:pandda", "--references", "photos"], 2, "nearest: panda"),
        (["2:99", "--references", "photos"], 2, "out of range"),
        (["class:panda"], 2, "no statistics of its own"),
        (["class:panda", "--references", "nowhere"], 3, "nowhere"),
        (["class:panda", "--facets", "2"], 2, "give references"),
        (
            ["class:panda", "--method", "fourier", "--relevance", "lrp"],
            2,
            "relevance goes with method vital, not with fourier",
        ),
    ):
        assert visualize(*tokens) == code
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
